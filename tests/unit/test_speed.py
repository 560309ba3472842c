"""How fast recognition is said to go."""

from __future__ import annotations

import pytest

from jobs.speed import SpeedMeter


def test_nothing_is_claimed_without_ground() -> None:
    meter = SpeedMeter(100.0, 0.0)
    assert meter.speed is None
    meter.advance(101.0, 20.0)  # much audio, little time
    assert meter.speed is None
    meter = SpeedMeter(100.0, 0.0)
    meter.advance(110.0, 3.0)  # much time, little audio
    assert meter.speed is None


def test_a_steady_pace_is_told_exactly() -> None:
    meter = SpeedMeter(100.0, 0.0)
    for step in range(1, 21):
        meter.advance(100.0 + step, 4.0 * step)
    assert meter.speed == 4.0


def test_short_work_has_a_mean_if_not_a_smoothed_speed() -> None:
    meter = SpeedMeter(100.0, 0.0)
    assert meter.mean is None
    meter.advance(100.5, 3.0)
    assert meter.speed is None
    assert meter.mean == 6.0


def test_work_of_an_earlier_attempt_does_not_count() -> None:
    meter = SpeedMeter(100.0, 300.0)
    meter.advance(110.0, 320.0)
    assert meter.speed == 2.0


def test_a_lasting_change_of_pace_wins() -> None:
    meter = SpeedMeter(0.0, 0.0)
    for step in range(1, 61):
        meter.advance(float(step), 8.0 * step)
    for step in range(1, 421):
        meter.advance(60.0 + step, 480.0 + 2.0 * step)
    assert meter.speed == pytest.approx(2.0, abs=0.3)


def test_preparation_is_no_measure_of_speed() -> None:
    meter = SpeedMeter(0.0, 0.0)
    meter.advance(30.0, 6.0)
    meter.start_over(35.0, 6.0)
    assert (meter.speed, meter.mean) == (None, None)
    meter.advance(45.0, 46.0)
    assert meter.speed == 4.0


def test_standing_still_and_going_back_change_nothing() -> None:
    meter = SpeedMeter(0.0, 0.0)
    meter.advance(10.0, 40.0)
    before = meter.speed
    meter.advance(10.0, 50.0)
    meter.advance(11.0, 40.0)
    assert meter.speed == before
