"""The rules of progress: percentages, milestones, sentences, speed and estimates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.progress import (
    MILESTONES,
    SpeedMeter,
    clock,
    completed_message,
    milestones_between,
    percent,
    transcribing_message,
)

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("processed_s", "total_s", "expected"),
    [
        (0.0, 60.0, 0),
        (0.5, 60.0, 0),
        (30.0, 60.0, 50),
        (59.99, 60.0, 99),
        (60.0, 60.0, 99),
        (70.0, 60.0, 99),
        (10.0, None, 0),
        (10.0, 0.0, 0),
    ],
)
def test_percent_is_the_share_of_audio_and_leaves_100_to_completion(
    processed_s: float, total_s: float | None, expected: int
) -> None:
    assert percent(processed_s, total_s) == expected


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30))
def test_however_progress_jumps_each_milestone_passed_is_named_once(steps: list[int]) -> None:
    announced = 0
    named: list[int] = []
    for step in steps:
        passed = milestones_between(announced, step)
        named += passed
        announced = max(announced, step, *passed)
    assert named == [milestone for milestone in MILESTONES if milestone <= max(steps)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0:00"), (59.9, "0:59"), (450, "7:30"), (3599, "59:59"), (4050, "1:07:30")],
)
def test_clock(seconds: float, expected: str) -> None:
    assert clock(seconds) == expected


@pytest.mark.criterion("AC-1.3.2")
def test_sentences_are_for_people() -> None:
    assert transcribing_message(450, 600) == "Transcribing… 7:30 of 10:00"
    assert transcribing_message(700, 600) == "Transcribing… 10:00 of 10:00"
    assert transcribing_message(450, None) == "Transcribing… 7:30"
    ready = "Transcript ready: 10:00 of audio in 2:05"
    assert completed_message(600, 125, 600, 40) == ready
    assert completed_message(600, 125, None, 40) == ready
    silent = completed_message(600, 125, None, 0)
    assert silent == "No words were recognised: 10:00 of audio in 2:05"
    early = completed_message(300, 60, 600, 40)
    assert early.endswith("The file ends early: it states 10:00")


def completion(meter: SpeedMeter, total_s: float | None, wall_s: float = 0.0) -> datetime | None:
    """The estimate at `wall_s`, which is called NOW."""
    return meter.completion(NOW, wall_s, total_s)


class TestSpeedMeter:
    def test_nothing_is_claimed_without_ground(self) -> None:
        meter = SpeedMeter(started_wall_s=100.0, started_audio_s=0.0)
        assert meter.speed is None
        meter.advance(101.0, 20.0)  # much audio, little time
        assert meter.speed is None
        assert completion(meter, 600.0) is None
        meter = SpeedMeter(100.0, 0.0)
        meter.advance(110.0, 3.0)  # much time, little audio
        assert meter.speed is None

    @pytest.mark.criterion("AC-1.3.5")
    def test_a_steady_pace_is_told_exactly(self) -> None:
        meter = SpeedMeter(100.0, 0.0)
        for step in range(1, 21):
            meter.advance(100.0 + step, 4.0 * step)
        assert meter.speed == 4.0
        assert completion(meter, 480.0) == NOW + timedelta(seconds=100)

    def test_short_work_has_a_mean_if_not_a_smoothed_speed(self) -> None:
        meter = SpeedMeter(100.0, 0.0)
        assert meter.mean is None
        meter.advance(100.5, 3.0)
        assert meter.speed is None
        assert meter.mean == 6.0

    def test_work_of_an_earlier_attempt_does_not_count(self) -> None:
        meter = SpeedMeter(100.0, 300.0)
        meter.advance(110.0, 320.0)
        assert meter.speed == 2.0

    def test_a_lasting_change_of_pace_wins(self) -> None:
        meter = SpeedMeter(0.0, 0.0)
        for step in range(1, 61):
            meter.advance(float(step), 8.0 * step)
        for step in range(1, 421):
            meter.advance(60.0 + step, 480.0 + 2.0 * step)
        assert meter.speed == pytest.approx(2.0, abs=0.3)

    def test_estimates_go_by_whole_chunks_once_there_are(self) -> None:
        meter = SpeedMeter(0.0, 0.0)
        for chunk in range(4):  # each takes 10 s for its 30 s, and half of that at its end
            for second in range(1, 6):
                meter.advance(chunk * 10.0 + second, chunk * 30.0 + 6 * second)
                if chunk:
                    done_at = NOW + timedelta(seconds=100 - 10 * chunk - second)
                    assert completion(meter, 300.0, chunk * 10.0 + second) == done_at
            meter.commit(10.0 * (chunk + 1), 30.0 * (chunk + 1))

    def test_a_chunk_that_takes_long_leaves_the_others_their_time(self) -> None:
        meter = SpeedMeter(0.0, 0.0)
        meter.commit(10.0, 30.0)
        meter.advance(80.0, 45.0)
        assert completion(meter, 105.0, 80.0) == NOW + timedelta(seconds=10), (
            "half of what 60 s take"
        )

    def test_past_runs_speak_first_then_this_one_more_and_more(self) -> None:
        meter = SpeedMeter(0.0, 0.0, expected_speed=4.0)
        assert completion(meter, 400.0) == NOW + timedelta(seconds=100)
        assert meter.speed is None, "none of it is measured"
        meter.advance(30.0, 60.0)
        assert completion(meter, 460.0) == NOW + timedelta(seconds=400 * (1 / 2 + 1 / 4) / 2)
        for step in range(1, 100):
            meter.advance(30.0 + 30 * step, 60.0 + 60 * step)
        left = (completion(meter, 6400.0) or NOW) - NOW
        assert left.total_seconds() == pytest.approx(200, rel=0.01)
        assert meter.speed == 2.0

    def test_preparation_is_no_measure_of_speed(self) -> None:
        meter = SpeedMeter(0.0, 0.0)
        meter.advance(30.0, 6.0)
        meter.start_over(35.0, 6.0)
        assert (meter.speed, meter.mean, completion(meter, 600.0)) == (None, None, None)
        meter.advance(45.0, 46.0)
        assert meter.speed == 4.0

    def test_standing_still_and_going_back_change_nothing(self) -> None:
        meter = SpeedMeter(0.0, 0.0)
        meter.advance(10.0, 40.0)
        before = meter.speed
        meter.advance(10.0, 50.0)
        meter.advance(11.0, 40.0)
        assert meter.speed == before

    def test_past_the_stated_length_it_is_done_now(self) -> None:
        meter = SpeedMeter(0.0, 0.0)
        meter.advance(10.0, 40.0)
        assert completion(meter, 30.0) == NOW
        assert completion(meter, None) is None
