"""However much an engine returns, a segment stays small enough to be an event. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

from jobs.errors import EngineError
from jobs.model import Segment

MAX_SEGMENT_BYTES = 48 * 1024  # as JSON, words included
MAX_CHUNK_BYTES = 768 * 1024  # of all segments of a chunk together


def bounded(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """The same text, in segments of at most `MAX_SEGMENT_BYTES`, numbered from 0.

    Longer ones are divided between words, or within a word that is longer than words are. Raises
    EngineError for more than anybody can say in a chunk.
    """
    segments = tuple(segments)
    if sum(map(_size_bytes, segments)) > MAX_CHUNK_BYTES:
        raise EngineError("The speech engine returned more text than anyone can say.")
    pieces = [piece for segment in segments for piece in _pieces(segment)]
    return tuple(replace(piece, idx=idx) for idx, piece in enumerate(pieces))


def _pieces(segment: Segment) -> Iterator[Segment]:
    if _size_bytes(segment) <= MAX_SEGMENT_BYTES:
        yield segment
        return
    for half in _by_words(segment) if len(segment.words) > 1 else _by_length(segment):
        yield from _pieces(half)


def _by_words(segment: Segment) -> tuple[Segment, Segment]:
    middle = len(segment.words) // 2
    first, second = segment.words[:middle], segment.words[middle:]
    # The text may hold what is no word, such as punctuation: it is divided for itself.
    space = int(" " in segment.text)
    first_chars, chars = (
        sum(len(word.text) + space for word in part) - space for part in (first, segment.words)
    )
    place = round(len(segment.text) * first_chars / max(1, chars))
    first_text, second_text = _divided(segment.text, place)
    return (
        replace(segment, end_s=first[-1].end_s, text=first_text, words=first),
        replace(segment, start_s=second[0].start_s, text=second_text, words=second),
    )


def _by_length(segment: Segment) -> tuple[Segment, Segment]:
    """Without words the times are in proportion to the text."""
    first_text, second_text = _divided(segment.text, len(segment.text) // 2)
    share = len(first_text) / len(segment.text)
    middle_s = round(segment.start_s + share * (segment.end_s - segment.start_s), 3)
    return (
        replace(segment, end_s=middle_s, text=first_text, words=()),
        replace(segment, start_s=middle_s, text=second_text, words=()),
    )


def _divided(text: str, place: int) -> tuple[str, str]:
    """At the last space up to `place`, else there."""
    space = text.rfind(" ", 0, place + 1)
    place = space if space > 0 else place
    return text[:place].strip(), text[place:].strip()


def _size_bytes(segment: Segment) -> int:
    """At most what its event takes: there, characters beyond ASCII are not escaped."""
    return len(json.dumps(segment.fields()))
