"""Where to cut a recording into chunks.

Pure: samples in, a length out. A cut depends on nothing but the samples that follow the chunk's
start, so a run that resumes at the end of a committed chunk cuts at the same places as the run that
was interrupted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jobs.model import MAX_CHUNK_S, MIN_CHUNK_S

SAMPLE_RATE_HZ = 16_000
MIN_REST_S = 2.0  # a shorter rest would be a chunk of its own with too little context
LOOKAHEAD_S = MAX_CHUNK_S + MIN_REST_S  # what `chunk_length` must see unless the recording ends

_FRAME_SAMPLES = SAMPLE_RATE_HZ // 100
_QUIET_SHARE = 0.25  # of the way from the quiet to the loud frames of the window, in decibels
_QUIET_PERCENTILE, _LOUD_PERCENTILE = 5, 90

Samples = npt.NDArray[np.int16]


def chunk_length(samples: Samples, *, at_end: bool) -> int:
    """How many of `samples` (int16, 16 kHz, mono, from the chunk's start) make the next chunk.

    At most `MAX_CHUNK_S`. The cut falls in the middle of the longest quiet run between
    `MIN_CHUNK_S` and `MAX_CHUNK_S`; of equally long runs, the last. `at_end` says that nothing
    follows `samples`; otherwise they must span `LOOKAHEAD_S` (ValueError).
    """
    if at_end and len(samples) <= MAX_CHUNK_S * SAMPLE_RATE_HZ:
        return len(samples)
    if not at_end and len(samples) < LOOKAHEAD_S * SAMPLE_RATE_HZ:
        raise ValueError("too few samples to choose a cut")
    latest = min(MAX_CHUNK_S * SAMPLE_RATE_HZ, len(samples) - MIN_REST_S * SAMPLE_RATE_HZ)
    levels = _levels_db(samples[: int(latest)])
    first = int(MIN_CHUNK_S * SAMPLE_RATE_HZ) // _FRAME_SAMPLES
    start, end = _longest_quiet_run(levels, first)
    return (start + end) // 2 * _FRAME_SAMPLES


def _levels_db(samples: Samples) -> npt.NDArray[np.float64]:
    """Level of each 10 ms frame, smoothed over five so that a plosive's closure is no pause."""
    frames = samples[: len(samples) // _FRAME_SAMPLES * _FRAME_SAMPLES]
    frames = frames.reshape(-1, _FRAME_SAMPLES).astype(np.float64)
    power = np.square(frames - frames.mean(axis=1, keepdims=True)).mean(axis=1)
    smooth = np.convolve(power, np.full(5, 0.2), mode="same")
    return np.asarray(10.0 * np.log10(smooth + 1.0))


def _longest_quiet_run(levels_db: npt.NDArray[np.float64], first: int) -> tuple[int, int]:
    """Frames [start, end) of the longest run below the threshold, looking from `first` on."""
    quiet_db, loud_db = np.percentile(levels_db, [_QUIET_PERCENTILE, _LOUD_PERCENTILE])
    threshold_db = quiet_db + _QUIET_SHARE * (loud_db - quiet_db)
    candidates = levels_db[first:]
    quiet = candidates <= max(threshold_db, float(candidates.min()))
    edges = np.diff(np.concatenate(([False], quiet, [False])).astype(np.int8))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    lengths = ends - starts
    longest = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
    return first + int(starts[longest]), first + int(ends[longest])
