"""What is made of the answers of transcription services."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.engines import Recognition
from jobs.engines.openai_answer import MAX_CHARS, recognition_of
from jobs.errors import EngineError
from jobs.model import Segment, Word

DURATION_S = 10.0


def read(answer: Any) -> Recognition:
    return recognition_of(json.dumps(answer).encode(), DURATION_S)


def segment(start_s: Any, end_s: Any, text: Any = "so", **more: Any) -> dict[str, Any]:
    return {"start": start_s, "end": end_s, "text": text, **more}


def word(start_s: Any, end_s: Any, text: Any = "so") -> dict[str, Any]:
    return {"start": start_s, "end": end_s, "word": text}


def test_segments_keep_their_punctuation_and_get_their_words() -> None:
    answer = {
        "text": "Well, yes. No.",
        "language": "german",
        "segments": [segment(0.5, 2, " Well, yes."), segment(2, 3, " No.", no_speech_prob=0.9)],
        "words": [word(0.4, 0.9, "Well"), word(1, 1.5, "yes"), word(2.1, 3.4, "No")],
    }
    assert read(answer) == Recognition(
        (
            Segment(
                0,
                0.5,
                2.0,
                "Well, yes.",
                (Word("Well", 0.5, 0.9, None), Word("yes", 1.0, 1.5, None)),
            ),
            Segment(1, 2.0, 3.0, "No.", (Word("No", 2.1, 3.0, None),)),
        ),
        "de",
    )


def test_words_alone_are_grouped() -> None:
    answer = {"text": "yes no", "words": [word(0, 1, "yes"), word(4, 5, "no")]}
    assert [piece.text for piece in read(answer).segments] == ["yes", "no"]


def test_text_alone_is_one_segment_of_the_whole_chunk() -> None:
    assert read({"text": " Yes,\nno. "}).segments == (Segment(0, 0.0, DURATION_S, "Yes, no."),)


@pytest.mark.parametrize(
    "answer",
    [
        {"text": ""},
        {"text": " ", "segments": [], "words": None},
        {"text": "", "segments": [segment(0, 1, "  ")]},
        {"text": "Bye.", "segments": [segment(0, 1, "Bye.", no_speech_prob=0.7, avg_logprob=-1.2)]},
    ],
    ids=["empty", "blank", "blank segment", "made up of silence"],
)
def test_nothing_said_is_no_segment(answer: dict[str, Any]) -> None:
    assert read(answer).segments == ()


def test_times_are_brought_into_the_chunk_and_into_order() -> None:
    answer = {
        "text": "a b c",
        "segments": [segment(1, 4, "a"), segment(0.5, 0.7, "b"), segment(9, 1e300, "c")],
        "words": [word(3, 2, "a"), word(50, 60, "c")],
    }
    pieces = read(answer).segments
    assert [(piece.start_s, piece.end_s) for piece in pieces] == [(1, 4), (1, 1), (9, 10)]
    words = [(held.text, held.start_s, held.end_s) for piece in pieces for held in piece.words]
    assert words == [("a", 1, 1), ("c", 10, 10)]


@pytest.mark.parametrize(
    ("name", "code"),
    [("english", "en"), ("German", "de"), ("fr", "fr"), ("klingon", None), (None, None), (7, None)],
)
def test_language_is_a_code_or_unknown(name: Any, code: str | None) -> None:
    assert read({"text": "x", "language": name}).language == code


def test_text_that_cannot_be_stored_is_made_storable() -> None:
    [piece] = read({"text": "a\x00b\ud800c\u202fd \u200c"}).segments
    assert piece.text.encode() == "a b c d \u200c".encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not found",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"text": null}',
        b'{"text": "x", "segments": {"a": 1}}',
        b'{"text": "x", "segments": [1]}',
        b'{"text": "x", "segments": [{"text": "x"}]}',
        b'{"text": "x", "segments": [{"text": "x", "start": NaN, "end": 1}]}',
        b'{"text": "x", "segments": [{"text": "x", "start": 0, "end": 1e999}]}',
        b'{"text": "x", "segments": [{"text": "x", "start": -1, "end": 1}]}',
        b'{"text": "x", "segments": [{"text": "x", "start": true, "end": 1}]}',
        b'{"text": "x", "segments": [{"text": "x", "start": "0", "end": 1}]}',
        b'{"text": "x", "words": [{"word": 5, "start": 0, "end": 1}]}',
        b'{"text": "x", "words": [{"word": "x", "start": 0, "end": 1' + b"0" * 400 + b"}]}",
        b"[" * 100_000,
        b'{"text": "' + b"x" * (MAX_CHARS + 1) + b'"}',
        b'{"text": "x", "words": [' + b'{"word": "x", "start": 0, "end": 1},' * 9000 + b"1]}",
    ],
)
def test_what_is_no_transcript_is_one_error(body: bytes) -> None:
    with pytest.raises(EngineError, match="what is no transcript"):
        recognition_of(body, DURATION_S)


def test_text_in_many_segments_is_bounded_too() -> None:
    with pytest.raises(EngineError):
        read({"text": "x", "segments": [segment(0, 1, "x" * 5000) for _ in range(5)]})


numbers = st.floats() | st.integers(-5, 20) | st.none()
entries = st.lists(
    st.fixed_dictionaries({"start": numbers, "end": numbers, "word": st.text(), "text": st.text()}),
    max_size=6,
)


@given(st.fixed_dictionaries({"text": st.text(), "segments": entries, "words": entries}))
def test_any_answer_gives_ordered_times_within_the_chunk_or_the_one_error(answer: Any) -> None:
    with suppress(EngineError):
        reached_s = 0.0
        for idx, piece in enumerate(read(answer).segments):
            assert piece.idx == idx
            assert piece.text.strip() == piece.text != ""
            assert reached_s <= piece.start_s <= piece.end_s <= DURATION_S
            reached_s = piece.start_s
            within_s = piece.start_s
            for held in piece.words:
                assert within_s <= held.start_s <= held.end_s <= piece.end_s
                assert math.isfinite(held.end_s)
                within_s = held.start_s
