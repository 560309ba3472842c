"""From timed words to segments that people read, for all engines. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from jobs.engines import Chunk
from jobs.model import Segment, Word

SAMPLE_RATE_HZ = 16_000
SEGMENT_PAUSE_S = 0.5
SEGMENT_MAX_S = 12.0
SEGMENT_MAX_CHARS = 84
SENTENCE_MIN_CHARS = 40  # a segment this long ends with its sentence
_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")


def within(words: Iterable[Word], chunk: Chunk) -> Iterator[Word]:
    """The words whose middle lies in the chunk proper, in its own time; `words` are timed from
    where its context begins."""
    before_s = chunk.before / SAMPLE_RATE_HZ
    core_s = chunk.core_samples / SAMPLE_RATE_HZ
    for word in words:
        start_s, end_s = word.start_s - before_s, word.end_s - before_s
        if 0.0 <= (start_s + end_s) / 2 < core_s:
            yield replace(
                word, start_s=round(max(0.0, start_s), 3), end_s=round(min(core_s, end_s), 3)
            )


def segments_of(words: Iterable[Word], separator: str = " ") -> tuple[Segment, ...]:
    """Group words into segments at pauses, at the ends of sentences where an engine tells them, and
    where one would grow too long to read.

    With an empty `separator` each word brings the space before it, if there is one.
    """
    groups: list[list[Word]] = []
    for word in words:
        if groups and _continues(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    return tuple(
        Segment(
            idx=idx,
            start_s=group[0].start_s,
            end_s=group[-1].end_s,
            text=separator.join(word.text for word in group).strip(),
            words=tuple(replace(word, text=word.text.strip()) for word in group),
        )
        for idx, group in enumerate(groups)
    )


def _continues(group: list[Word], word: Word) -> bool:
    chars = sum(len(each.text) + 1 for each in group)
    if chars > SENTENCE_MIN_CHARS and group[-1].text.endswith(_SENTENCE_ENDS):
        return False
    return (
        word.start_s - group[-1].end_s < SEGMENT_PAUSE_S
        and word.end_s - group[0].start_s <= SEGMENT_MAX_S
        and chars + len(word.text) <= SEGMENT_MAX_CHARS
    )
