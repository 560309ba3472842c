"""Transcripts as text, SRT and WebVTT: exact bytes, and what independent rules say of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model import Segment
from jobs.subtitles import to_srt, to_text, to_vtt

TWO = [
    Segment(0, 0.0, 2.5, "hello there"),
    Segment(1, 3661.2345, 3662.0, "a < b & c > d --> e"),
]


def test_srt() -> None:
    assert to_srt(TWO) == (
        "1\r\n00:00:00,000 --> 00:00:02,500\r\nhello there\r\n\r\n"
        "2\r\n01:01:01,234 --> 01:01:02,000\r\na < b & c > d -> e\r\n\r\n"
    )


def test_vtt() -> None:
    assert to_vtt(TWO) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nhello there\n\n"
        "01:01:01.234 --> 01:01:02.000\na &lt; b &amp; c &gt; d --&gt; e\n\n"
    )


def test_text_has_a_paragraph_for_each_long_pause() -> None:
    segments = [
        Segment(0, 0.0, 1.0, "one"),
        Segment(1, 1.5, 2.0, "two"),
        Segment(2, 4.5, 5.0, "three"),
    ]
    assert to_text(segments) == "one two\nthree\n"


def test_nothing_said_is_an_empty_file() -> None:
    assert (to_text([]), to_srt([]), to_vtt([])) == ("", "", "WEBVTT\n\n")


def test_a_cue_of_no_length_is_given_one() -> None:
    assert "00:00:01,000 --> 00:00:01,010" in to_srt([Segment(0, 1.0, 1.0, "x")])


@pytest.mark.parametrize(("form", "write"), [("srt", to_srt), ("webvtt", to_vtt)])
def test_a_player_reads_every_cue(
    form: str, write: Callable[[Iterable[Segment]], str], tmp_path: Path
) -> None:
    """FFmpeg, as any player built on it."""
    said = [Segment(n, n * 2.0, n * 2.0 + 1.5, f"<i>line</i> & {n} --> on") for n in range(50)]
    path = tmp_path / f"transcript.{form}"
    path.write_text(write(said), encoding="utf-8", newline="")
    with av.open(str(path), format=form) as file:
        packets = [packet for packet in file.demux(subtitles=0) if packet.size]
    base = packets[0].time_base
    assert base is not None
    assert [float((packet.pts or 0) * base) for packet in packets] == [s.start_s for s in said]
    assert [float((packet.duration or 0) * base) for packet in packets] == [1.5] * 50
    assert all(str(n).encode() in bytes(packet) for n, packet in enumerate(packets))


texts = st.text(max_size=60)
times = st.floats(0, 360_000, allow_nan=False)


@given(st.lists(st.tuples(times, times, texts), max_size=8))
def test_no_text_breaks_the_form(parts: list[tuple[float, float, str]]) -> None:
    segments = [
        Segment(idx, min(start, end), max(start, end), text)
        for idx, (start, end, text) in enumerate(parts)
    ]
    stamp = r"\d{2,}:\d\d:\d\d"
    srt_times = re.findall(rf"^{stamp},\d{{3}} --> {stamp},\d{{3}}\r$", to_srt(segments), re.M)
    assert len(srt_times) == len(segments)
    assert to_srt(segments).count("-->") == len(segments)
    assert to_vtt(segments).count("-->") == len(segments)
    cues = to_vtt(segments).split("\n\n")
    assert len(cues) - 2 == len(segments)
