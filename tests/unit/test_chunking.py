"""Where chunks are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.chunking import (
    LOOKAHEAD_S,
    MIN_REST_S,
    SAMPLE_RATE_HZ,
    Samples,
    chunk_length,
)
from jobs.model import MAX_CHUNK_S, MIN_CHUNK_S

RNG_SEED = 7


def noise(duration_s: float, level: float = 3000.0, seed: int = RNG_SEED) -> Samples:
    rng = np.random.default_rng(seed)
    samples = rng.normal(0.0, level, int(duration_s * SAMPLE_RATE_HZ))
    return samples.clip(-32768, 32767).astype(np.int16)


def with_pauses(samples: Samples, *pauses_s: tuple[float, float]) -> Samples:
    quiet = samples.copy()
    for start_s, end_s in pauses_s:
        part = slice(int(start_s * SAMPLE_RATE_HZ), int(end_s * SAMPLE_RATE_HZ))
        quiet[part] = quiet[part] // 100
    return quiet


def cuts(samples: Samples, start: int = 0) -> list[int]:
    """All cuts from `start` to the end, made with no more in sight than a chunk needs."""
    found = []
    lookahead = int(LOOKAHEAD_S * SAMPLE_RATE_HZ)
    while start < len(samples):
        seen = samples[start : start + lookahead]
        start += chunk_length(seen, at_end=start + len(seen) == len(samples))
        found.append(start)
    return found


def test_cut_falls_in_the_middle_of_the_longest_pause() -> None:
    samples = with_pauses(noise(40), (14.0, 14.3), (20.0, 20.8), (25.0, 25.4))
    assert chunk_length(samples, at_end=False) / SAMPLE_RATE_HZ == pytest.approx(20.4, abs=0.03)


def test_of_equal_pauses_the_last_is_taken() -> None:
    samples = with_pauses(noise(40), (15.0, 15.5), (27.0, 27.5))
    assert chunk_length(samples, at_end=False) / SAMPLE_RATE_HZ == pytest.approx(27.25, abs=0.1)


def test_pause_before_the_earliest_cut_is_no_candidate() -> None:
    samples = with_pauses(noise(40), (3.0, 6.0), (22.0, 22.4))
    assert chunk_length(samples, at_end=False) / SAMPLE_RATE_HZ == pytest.approx(22.2, abs=0.03)


def test_level_offset_is_not_taken_for_sound() -> None:
    samples = with_pauses(noise(40, level=1000.0), (20.0, 21.0)) + np.int16(9000)
    assert chunk_length(samples, at_end=False) / SAMPLE_RATE_HZ == pytest.approx(20.5, abs=0.03)


def test_short_recording_is_one_chunk() -> None:
    assert chunk_length(noise(MAX_CHUNK_S), at_end=True) == MAX_CHUNK_S * SAMPLE_RATE_HZ
    assert chunk_length(noise(0.5), at_end=True) == 0.5 * SAMPLE_RATE_HZ


def test_rest_too_short_for_a_chunk_is_avoided() -> None:
    samples = with_pauses(noise(30.5), (29.5, 30.0))
    first, last = cuts(samples)
    assert last - first >= MIN_REST_S * SAMPLE_RATE_HZ


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(100 * SAMPLE_RATE_HZ, dtype=np.int16),
        np.full(100 * SAMPLE_RATE_HZ, 32767, dtype=np.int16),
        np.tile(np.array([32767, -32768], dtype=np.int16), 50 * SAMPLE_RATE_HZ),
        noise(100),
    ],
    ids=["silence", "full scale", "square wave", "noise"],
)
def test_input_without_pauses_is_cut_within_bounds(samples: Samples) -> None:
    lengths = np.diff([0, *cuts(samples)])
    assert lengths.sum() == len(samples)
    assert lengths.max() <= MAX_CHUNK_S * SAMPLE_RATE_HZ
    assert lengths[:-1].min() >= MIN_CHUNK_S * SAMPLE_RATE_HZ
    assert lengths[-1] >= MIN_REST_S * SAMPLE_RATE_HZ


def test_too_little_in_sight_is_refused() -> None:
    with pytest.raises(ValueError, match="too few samples"):
        chunk_length(noise(LOOKAHEAD_S - 1), at_end=False)


@settings(max_examples=25)
@given(
    duration_s=st.floats(0.1, 150.0),
    pauses=st.lists(st.tuples(st.floats(0, 149), st.floats(0.05, 3.0)), max_size=20),
    seed=st.integers(0, 1000),
)
def test_resuming_at_any_cut_finds_the_same_later_cuts(
    duration_s: float, pauses: list[tuple[float, float]], seed: int
) -> None:
    samples = with_pauses(noise(duration_s, seed=seed), *((a, a + b) for a, b in pauses))
    all_cuts = cuts(samples)
    assert all_cuts[-1] == len(samples)
    for index, cut in enumerate(all_cuts):
        assert cuts(samples, cut) == all_cuts[index + 1 :]
