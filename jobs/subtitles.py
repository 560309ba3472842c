"""Transcripts as text, SubRip (SRT) and WebVTT. Pure.

SRT has no standard; this is the form of the original SubRip that players agree on. WebVTT follows
the W3C recommendation: its cue text escapes `&`, `<` and `>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from jobs.model import Segment

# A player shows a cue of no length for no time at all.
MIN_CUE_MS = 10

# Text from one piece to the next is a new paragraph after a pause of this length, in seconds.
PARAGRAPH_PAUSE_S = 2.0

LINE_BREAKS = re.compile(r"\s+")


def to_text(segments: Iterable[Segment]) -> str:
    """The words in paragraphs, ending in a newline; empty when there are none."""
    paragraphs: list[list[str]] = []
    last_end_s: float | None = None
    for segment in segments:
        if last_end_s is None or segment.start_s - last_end_s >= PARAGRAPH_PAUSE_S:
            paragraphs.append([])
        paragraphs[-1].append(_one_line(segment.text))
        last_end_s = segment.end_s
    return "".join(" ".join(lines) + "\n" for lines in paragraphs)


def to_srt(segments: Iterable[Segment]) -> str:
    """SubRip: numbered from 1, times with a comma, CRLF as players on Windows expect."""
    cues = []
    for number, segment in enumerate(segments, start=1):
        start_ms, end_ms = _cue_ms(segment)
        # A text that holds an arrow would read as a time line.
        text = _one_line(segment.text).replace("-->", "->")
        cues.append(
            f"{number}\r\n{_stamp(start_ms, ',')} --> {_stamp(end_ms, ',')}\r\n{text}\r\n\r\n"
        )
    return "".join(cues)


def to_vtt(segments: Iterable[Segment]) -> str:
    """WebVTT."""
    cues = ["WEBVTT\n\n"]
    for segment in segments:
        start_ms, end_ms = _cue_ms(segment)
        text = _one_line(segment.text)
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        cues.append(f"{_stamp(start_ms, '.')} --> {_stamp(end_ms, '.')}\n{text}\n\n")
    return "".join(cues)


def _cue_ms(segment: Segment) -> tuple[int, int]:
    start_ms = round(segment.start_s * 1000)
    return start_ms, max(round(segment.end_s * 1000), start_ms + MIN_CUE_MS)


def _stamp(ms: int, separator: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{separator}{ms:03}"


def _one_line(text: str) -> str:
    return LINE_BREAKS.sub(" ", text).strip()
