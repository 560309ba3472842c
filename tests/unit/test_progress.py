"""The rules of progress: percentages, milestones and sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.progress import (
    MILESTONES,
    clock,
    completed_message,
    milestones_between,
    percent,
    transcribing_message,
)


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
