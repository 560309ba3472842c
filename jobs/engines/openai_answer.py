"""What a transcription endpoint answers, read with distrust. Pure: bytes in, a recognition out.

Both forms are read: `json` (`text` alone) and `verbose_json` (`language`, `segments` and `words`
with their times). A service that is compatible may leave out any of it but the text.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from jobs.engines import Recognition
from jobs.engines.languages import iso_code, whisper_code
from jobs.engines.words import segments_of
from jobs.errors import EngineError
from jobs.model import Segment, Word

MAX_CHARS = 20_000  # of a chunk's text; nobody speaks so fast
MAX_PIECES = 5_000  # of its words, or segments
# Where Whisper's own program takes what it wrote for an invention, and drops it.
SILENT_PROBABILITY = 0.6
DOUBTFUL_LOG_PROBABILITY = -1.0

_NONSENSE = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Piece:
    """A word or a segment as it was answered, its times in order and within the chunk."""

    start_s: float
    end_s: float
    text: str


def recognition_of(body: bytes, duration_s: float) -> Recognition:
    """Times are brought into the chunk's `duration_s` and into order. EngineError for what is no
    transcript: other JSON, far too much text, times that are none."""
    try:
        answer = json.loads(body, parse_constant=_refuse)
        text, divided = _clean(answer["text"]), bool(answer.get("segments"))
        segments = list(_pieces(_spoken(_listed(answer, "segments")), "text", duration_s))
        words = list(_pieces(_listed(answer, "words"), "word", duration_s))
        language = _language(answer.get("language"))
    except _NONSENSE as error:
        raise EngineError("The speech service answered with what is no transcript.") from error
    spoken = [Word(word.text, word.start_s, word.end_s, None) for word in words]
    if divided:
        return Recognition(tuple(_divided(segments, spoken)), language)
    if spoken:
        return Recognition(segments_of(spoken), language)
    whole = (Segment(0, 0.0, round(duration_s, 3), text),) if text else ()
    return Recognition(whole, language)


def _divided(segments: list[Piece], words: list[Word]) -> Iterator[Segment]:
    """The segments, each with the words from its beginning to that of the next."""
    for idx, piece in enumerate(segments):
        since_s = piece.start_s if idx else 0.0
        until_s = segments[idx + 1].start_s if idx + 1 < len(segments) else math.inf
        own = tuple(_held(word, piece) for word in words if since_s <= word.start_s < until_s)
        yield Segment(idx, piece.start_s, piece.end_s, piece.text, own)


def _held(word: Word, piece: Piece) -> Word:
    start_s, end_s = (
        min(max(time_s, piece.start_s), piece.end_s) for time_s in (word.start_s, word.end_s)
    )
    return replace(word, start_s=start_s, end_s=end_s)


def _pieces(entries: Iterator[Mapping[str, Any]], name: str, duration_s: float) -> Iterator[Piece]:
    """Those with text; none begins before the one in front of it."""
    reached_s, chars = 0.0, 0
    for entry in entries:
        text = _clean(entry[name])
        start_s = min(max(_time_s(entry["start"]), reached_s), duration_s)
        end_s = min(max(_time_s(entry["end"]), start_s), duration_s)
        reached_s, chars = start_s, chars + len(text)
        if chars > MAX_CHARS:
            raise ValueError("too much text")
        if text:
            yield Piece(round(start_s, 3), round(end_s, 3), text)


def _spoken(segments: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Without what was made up of silence."""
    for segment in segments:
        silent = segment.get("no_speech_prob") or 0.0
        doubt = segment.get("avg_logprob") or 0.0
        if not (silent > SILENT_PROBABILITY and doubt < DOUBTFUL_LOG_PROBABILITY):
            yield segment


def _listed(answer: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    entries = answer.get(name) or []
    if not isinstance(entries, list) or len(entries) > MAX_PIECES:
        raise ValueError(f"no list of {name}")
    return iter(entries)


def _language(name: Any) -> str | None:
    """`en` for `english` or `en`; None for one that is not known here."""
    code = whisper_code(name) if isinstance(name, str) else None
    return None if code is None else iso_code(code)


def _time_s(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no time")
    time_s = float(value)
    if not math.isfinite(time_s) or time_s < 0:
        raise ValueError("no time")
    return time_s


def _clean(text: Any) -> str:
    """One line, of characters that can be stored."""
    if not isinstance(text, str) or len(text) > MAX_CHARS:
        raise ValueError("no text")
    storable = (" " if unicodedata.category(char) in {"Cc", "Cs"} else char for char in text)
    return " ".join("".join(storable).split())


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
