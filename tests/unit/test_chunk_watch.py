"""The bounds that a recogniser is held to."""

from __future__ import annotations

import math

import pytest

from jobs.chunk_watch import MAX_ASKS, MAX_CHUNK_S, ChunkWatch
from jobs.recogniser_wire import WireError


def watch_of(chunk_s: float | None = None, *, reports: bool = True) -> ChunkWatch:
    watch = ChunkWatch(60.0, 10.0)
    if chunk_s is not None:
        watch.begin(chunk_s, reports)
    return watch


def test_between_chunks_only_silence_counts() -> None:
    watch = watch_of()
    watch.waited(1000)
    assert watch.wait_s == 60
    assert watch.stalled() == "gave no sign of life for 60 seconds"


def test_an_engine_that_reports_is_held_to_both_bounds() -> None:
    watch = watch_of(30)
    assert watch.wait_s == 60
    assert watch.stalled() == "gave no sign of life for 60 seconds"
    watch.waited(320)
    assert watch.wait_s == 40
    assert watch.stalled() == "did not finish 30 seconds of sound within 360 seconds"
    watch.waited(40)
    assert watch.wait_s <= 0


def test_an_engine_that_does_not_report_is_held_to_the_bound_of_the_chunk() -> None:
    watch = watch_of(30, reports=False)
    assert watch.wait_s == 360
    assert watch.stalled() == "did not finish 30 seconds of sound within 360 seconds"


def test_each_chunk_has_its_own_bound() -> None:
    watch = watch_of(30, reports=False)
    watch.waited(300)
    watch.end()
    assert watch.wait_s == 60
    watch.begin(2, False)
    assert watch.wait_s == 80


@pytest.mark.parametrize("chunk_s", [0, -1, math.nan, math.inf, MAX_CHUNK_S + 1])
def test_a_chunk_of_no_credible_length_cannot_begin(chunk_s: float) -> None:
    with pytest.raises(WireError):
        watch_of(chunk_s)


def test_a_chunk_cannot_begin_within_another() -> None:
    with pytest.raises(WireError):
        watch_of(30).begin(30, True)


def test_nothing_comes_of_a_chunk_that_has_not_begun() -> None:
    for said in (watch_of().progressed, watch_of().asked, watch_of().end):
        with pytest.raises(WireError):
            said()


def test_questions_are_counted_for_each_chunk() -> None:
    watch = watch_of(30)
    for _ in range(2):
        for _ in range(MAX_ASKS):
            watch.asked()
        with pytest.raises(WireError):
            watch.asked()
        watch.end()
        watch.begin(30, True)
