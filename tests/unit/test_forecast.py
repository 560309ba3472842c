"""The pure rules of the whole wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobs.forecast import (
    MIN_RUNS,
    UNKNOWN,
    Expected,
    Pace,
    Run,
    Slot,
    Waiting,
    expected_turns,
    pace_of,
)
from jobs.waiting import NO_WORKER, Running, is_news, slots_of, waiting_message
from jobs.workers import Worker

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
HALF = Pace(setup_s=10.0, per_audio_s=0.5)  # 60 s of audio take 40 s


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def run(host: str = "here", wall_s: float = 60.0, setup_s: float = 10.0) -> Run:
    return Run(host, audio_s=100.0, setup_s=setup_s, wall_s=wall_s)


class TestPace:
    def test_there_is_none_without_ground(self) -> None:
        assert pace_of([run()] * (MIN_RUNS - 1), "here") is None
        assert pace_of([run()] * MIN_RUNS, "here") == Pace(10.0, 0.5)

    def test_runs_of_this_host_come_before_those_of_others(self) -> None:
        others = [run("there", wall_s=210.0)] * 10
        assert pace_of([*others, *[run()] * MIN_RUNS], "here") == Pace(10.0, 0.5)
        mixed = pace_of([*others, *[run()] * (MIN_RUNS - 1)], "elsewhere")
        assert mixed is not None
        assert mixed.per_audio_s == pytest.approx((10 * 200 + 2 * 50) / 1200)

    def test_long_recordings_say_most_and_old_runs_nothing(self) -> None:
        long = Run("here", audio_s=3600.0, setup_s=10.0, wall_s=1810.0)
        short = Run("here", audio_s=4.0, setup_s=10.0, wall_s=30.0)
        pace = pace_of([long, short, short], "here")
        assert pace is not None
        assert pace.per_audio_s == pytest.approx(0.5, rel=0.05)
        old = [run(wall_s=1e6)] * 50
        assert pace_of([*[run()] * 20, *old], "here") == Pace(10.0, 0.5)


class TestTurns:
    def test_each_takes_the_slot_that_is_free_first(self) -> None:
        slots = [Slot(after(100), HALF), Slot(after(20), HALF)]
        waiting = [Waiting(NOW, 60.0)] * 4
        assert expected_turns(slots, waiting) == [
            Expected(after(20), after(60)),
            Expected(after(60), after(100)),
            Expected(after(100), after(140)),
            Expected(after(100), after(140)),
        ]

    def test_not_before_it_is_due(self) -> None:
        assert expected_turns([Slot(NOW, HALF)], [Waiting(after(30), 60.0)]) == [
            Expected(after(30), after(70))
        ]

    def test_behind_a_recording_of_unknown_length_nothing_is_known(self) -> None:
        slots = [Slot(NOW, HALF), Slot(after(1), HALF)]
        expected = expected_turns(slots, [Waiting(NOW, None), Waiting(NOW, 60.0)])
        assert expected == [Expected(NOW, None), UNKNOWN]

    def test_without_slots_nothing_is_known(self) -> None:
        assert expected_turns([], [Waiting(NOW, 60.0)]) == [UNKNOWN]


class TestSlots:
    WORKER = Worker("one", "here", "engine", 2)

    def slots(self, *running: Running, pace: Pace | None = HALF) -> list[Slot]:
        return slots_of([self.WORKER], {("engine", "here"): pace}, running, NOW)

    def test_a_slot_is_free_when_its_recording_is_expected_to_be_done(self) -> None:
        assert self.slots() == [Slot(NOW, HALF)] * 2
        busy = Running("one", 60.0, after(70))
        assert self.slots(busy) == [Slot(after(70), HALF), Slot(NOW, HALF)]
        late = Running("one", 60.0, after(-5))
        assert self.slots(late)[0] == Slot(NOW, HALF)

    def test_without_an_estimate_of_its_own_by_its_length(self) -> None:
        assert self.slots(Running("one", 60.0, None))[0] == Slot(after(40), HALF)

    def test_a_worker_has_no_more_slots_than_it_says(self) -> None:
        """Whatever is left in its name, such as by a process that died while it claimed."""
        busy = [Running("one", 60.0, after(seconds)) for seconds in (70, 80, 90)]
        assert self.slots(*busy) == [Slot(after(70), HALF), Slot(after(80), HALF)]

    def test_what_another_worker_runs_takes_no_slot_of_this_one(self) -> None:
        assert self.slots(Running("two", 60.0, None)) == [Slot(NOW, HALF)] * 2

    def test_nothing_is_known_while_any_part_is_not(self) -> None:
        assert self.slots(Running("one", None, None)) == []
        assert self.slots(pace=None) == []


@pytest.mark.parametrize(
    ("told", "position", "news"),
    [
        (None, 3, True),
        (None, NO_WORKER, True),
        (3, 3, False),
        (3, 2, True),
        (2, 3, True),
        (50, 48, False),
        (50, 45, True),
        (45, 50, True),
        (4, NO_WORKER, True),
        (NO_WORKER, 4, True),
        (NO_WORKER, NO_WORKER, False),
    ],
)
def test_of_a_long_queue_only_a_real_change_is_news(
    told: int | None, position: int, news: bool
) -> None:
    assert is_news(told, position) is news


def test_the_sentences_are_for_people() -> None:
    assert waiting_message(1) == "Next in line"
    assert waiting_message(4) == "Waiting for its turn: 3 before it"
    assert waiting_message(NO_WORKER) == "Waiting for a worker: none is running"
