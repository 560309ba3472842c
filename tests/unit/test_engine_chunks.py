"""What the child makes of what an engine returns, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from jobs.engines import Chunk, OnProgress, Recognition, Samples
from jobs.engines.bounds import MAX_SEGMENT_BYTES
from jobs.engines.faster_whisper import WINDOW_SAMPLES, in_one_window
from jobs.model import Segment
from jobs.recogniser_child import Parent, Transcription
from jobs.recogniser_wire import Frame
from tests import clips

SECOND = clips.SAMPLE_RATE_HZ


class Listener(Parent):
    """A parent that has one recording and remembers what it is told."""

    def __init__(self, recording: bytes) -> None:
        self.told: list[Frame] = []
        self._recording = recording
        self._answer = Frame("data")

    def _write(self, frame: Frame) -> None:
        if frame.kind == "read":
            start = frame.fields["offset"]
            self._answer = Frame(
                "data", {}, self._recording[start : start + frame.fields["length"]]
            )
        else:
            self.told.append(frame)

    def receive(self) -> Frame:
        return self._answer


class Scripted:
    """An engine that returns what it was given, and remembers which language it was told."""

    reports = False

    def __init__(self, *answers: Recognition) -> None:
        self.languages: list[str | None] = []
        self._answers = iter(answers)

    def listen(self, recording: Iterable[Samples]) -> None:
        """Nothing to adapt."""

    def recognise(self, chunk: Chunk, language: str | None, on_progress: OnProgress) -> Recognition:
        self.languages.append(language)
        return next(self._answers)


def chunks_told(engine: Scripted, language: str | None = None) -> list[Frame]:
    """The frames of the chunks of a recording that is long enough for four."""
    recording = clips.wav_of(np.zeros(80 * SECOND, np.int16))
    parent = Listener(recording)
    order = {
        "size_bytes": len(recording),
        "start_s": 0.0,
        "first_idx": 7,
        "language": language,
    }
    Transcription(parent, engine, order).run()
    return [frame for frame in parent.told if frame.kind == "chunk"]


SAID = (Segment(0, 1.0, 2.0, "something"),)


def test_the_first_chunk_with_speech_decides_the_language() -> None:
    engine = Scripted(
        Recognition((), "fr"),
        Recognition(SAID, "de"),
        Recognition((), "de"),
        Recognition(SAID, "de"),
    )
    told = chunks_told(engine)
    assert engine.languages == [None, None, "de", "de"]
    assert [frame.fields["language"] for frame in told] == [None, "de", None, "de"]


def test_a_language_that_is_given_stays() -> None:
    engine = Scripted(*[Recognition(SAID, "sv")] * 4)
    chunks_told(engine, "sv-SE")
    assert engine.languages == ["sv-SE"] * 4


def test_an_engine_that_tells_no_language_is_told_none() -> None:
    engine = Scripted(*[Recognition(SAID)] * 4)
    assert [frame.fields["language"] for frame in chunks_told(engine)] == [None] * 4
    assert engine.languages == [None] * 4


def test_a_segment_too_long_for_an_event_is_sent_in_pieces_numbered_on() -> None:
    whole = Recognition((Segment(0, 0.0, 20.0, "many words " * 10_000),))
    told = chunks_told(Scripted(whole, Recognition(SAID), Recognition(), Recognition(SAID)))
    segments = [segment for frame in told for segment in frame.fields["segments"]]
    assert [segment["idx"] for segment in segments] == list(range(7, 7 + len(segments)))
    assert len(segments) > 4
    assert all(len(segment["text"]) < MAX_SEGMENT_BYTES for segment in segments)


@pytest.mark.parametrize(
    ("before_s", "core_s", "after_s", "expected_s"),
    [
        (3, 20, 3, (3, 3)),
        (3, 26, 3, (2, 2)),
        (3, 26, 1, (3, 1)),
        (1, 26, 3, (1, 3)),
        (0, 28, 3, (0, 2)),
        (3, 30, 3, (0, 0)),
        (3, 12, 0, (3, 0)),
    ],
)
def test_a_chunk_keeps_as_much_context_as_fits_one_window(
    before_s: int, core_s: int, after_s: int, expected_s: tuple[int, int]
) -> None:
    samples = np.arange((before_s + core_s + after_s) * SECOND) // SECOND
    chunk = Chunk(samples.astype(np.int16), before_s * SECOND, after_s * SECOND)
    fitted = in_one_window(chunk)
    assert (fitted.before / SECOND, fitted.after / SECOND) == expected_s
    assert len(fitted.samples) <= WINDOW_SAMPLES
    core = slice(chunk.before, chunk.before + chunk.core_samples)
    fitted_core = slice(fitted.before, fitted.before + fitted.core_samples)
    assert (fitted.samples[fitted_core] == chunk.samples[core]).all()
