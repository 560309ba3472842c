"""However much an engine returns, segments stay small enough to be events."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from jobs.engines import Chunk
from jobs.engines.bounds import MAX_CHUNK_BYTES, MAX_SEGMENT_BYTES, bounded
from jobs.engines.words import SAMPLE_RATE_HZ, segments_of, within
from jobs.errors import EngineError
from jobs.model import Segment, Word


def size_bytes(segment: Segment) -> int:
    return len(json.dumps(segment.fields()))


def spoken(count: int, text: str = "word") -> list[Word]:
    return [Word(text, n * 0.01, n * 0.01 + 0.01, 0.5) for n in range(count)]


def one_segment(words: list[Word], separator: str = " ") -> Segment:
    text = separator.join(word.text for word in words)
    return Segment(0, 0.0, words[-1].end_s, text, tuple(words))


def test_a_segment_of_common_size_is_left_as_it_is() -> None:
    segments = tuple(replace(one_segment(spoken(20)), idx=idx) for idx in range(3))
    assert bounded(segments) == segments


@pytest.mark.parametrize("separator", [" ", ""])
def test_a_segment_too_long_for_an_event_is_divided_between_words(separator: str) -> None:
    words = spoken(2000, "wörd")
    whole = one_segment(words, separator)
    pieces = bounded([whole, replace(whole, idx=1)])
    assert all(size_bytes(piece) <= MAX_SEGMENT_BYTES for piece in pieces)
    assert [piece.idx for piece in pieces] == list(range(len(pieces)))
    assert [word for piece in pieces for word in piece.words] == words * 2
    half = pieces[: len(pieces) // 2]
    assert separator.join(piece.text for piece in half) == whole.text
    assert (half[0].start_s, half[-1].end_s) == (whole.start_s, whole.end_s)
    assert all(one.end_s <= two.start_s for one, two in pairwise(half))


@pytest.mark.parametrize(
    "text", ["word " * 20_000, "a" * 100_000, "\N{MUSICAL SYMBOL G CLEF}" * 9_000]
)
def test_text_without_words_is_divided_with_times_in_proportion(text: str) -> None:
    pieces = bounded([Segment(0, 10.0, 30.0, text.strip())])
    assert len(pieces) > 1
    assert all(size_bytes(piece) <= MAX_SEGMENT_BYTES for piece in pieces)
    assert "".join(piece.text for piece in pieces).replace(" ", "") == text.replace(" ", "")
    assert all(piece.text == piece.text.strip() for piece in pieces)
    assert (pieces[0].start_s, pieces[-1].end_s) == (10.0, 30.0)
    assert all(one.end_s == two.start_s for one, two in pairwise(pieces))


def test_text_that_holds_more_than_its_words_loses_nothing() -> None:
    words = spoken(1000)
    text = ", ".join(word.text for word in words) + "."
    pieces = bounded([replace(one_segment(words), text=text)])
    assert len(pieces) > 1
    assert " ".join(piece.text for piece in pieces) == text
    assert [word for piece in pieces for word in piece.words] == words


def test_one_word_longer_than_an_event_is_divided_too() -> None:
    pieces = bounded([one_segment([Word("a" * 100_000, 0.0, 1.0, None)])])
    assert "".join(piece.text for piece in pieces) == "a" * 100_000
    assert all(size_bytes(piece) <= MAX_SEGMENT_BYTES for piece in pieces)


def test_more_text_than_anyone_can_say_is_an_error_of_the_engine() -> None:
    with pytest.raises(EngineError, match="more text than anyone can say"):
        bounded([Segment(0, 0.0, 30.0, "a" * MAX_CHUNK_BYTES)])


def test_words_that_bring_their_spaces_make_the_text_of_their_language() -> None:
    german = [
        Word(" Guten", 0.0, 0.4, None),
        Word(" Tag", 0.4, 0.8, None),
        Word(".", 0.8, 0.9, None),
    ]
    chinese = [Word("你", 0.0, 0.4, None), Word("好", 0.4, 0.8, None)]
    (segment,) = segments_of(german, separator="")
    assert segment.text == "Guten Tag."
    assert [word.text for word in segment.words] == ["Guten", "Tag", "."]
    assert segments_of(chinese, separator="")[0].text == "你好"


def test_segments_end_with_sentences_that_are_not_too_short() -> None:
    text = "So. It had been built by his father long ago. Nobody knew. Had anybody asked him?"
    words = [Word(f" {each}", n * 0.3, n * 0.3 + 0.3, None) for n, each in enumerate(text.split())]
    assert [segment.text for segment in segments_of(words, separator="")] == [
        "So. It had been built by his father long ago.",
        "Nobody knew. Had anybody asked him?",
    ]


def test_a_word_of_the_context_is_left_out_by_its_middle() -> None:
    second = SAMPLE_RATE_HZ
    chunk = Chunk([0] * (5 * second), before=second, after=second)  # type: ignore[arg-type]
    words = [Word(str(n), n * 0.5 + 0.2, n * 0.5 + 0.6, None) for n in range(9)]
    kept = list(within(words, chunk))
    assert [word.text for word in kept] == ["2", "3", "4", "5", "6", "7"]
    assert (kept[0].start_s, kept[-1].end_s) == (0.2, 3.0)
