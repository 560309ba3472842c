"""When a recording is said to be done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobs.completion import EXPECTED_WEIGHT_S, TYPICAL_CHUNK_S, CompletionEstimate
from jobs.model import CONTEXT_S

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
CHUNK_S = TYPICAL_CHUNK_S
HEARD_PER_CHUNK_S = CHUNK_S + 2 * CONTEXT_S
SPEED = 3.0  # seconds heard in a second


def left_s(estimate: CompletionEstimate, total_s: float | None) -> float | None:
    at = estimate.at(NOW, total_s)
    return None if at is None else (at - NOW).total_seconds()


def test_nothing_is_claimed_without_ground() -> None:
    estimate = CompletionEstimate(100.0, 0.0, None)
    assert estimate.at(NOW, 600.0) is None
    estimate.advance(101.0, 20.0)  # much audio, little time
    assert estimate.at(NOW, 600.0) is None
    estimate = CompletionEstimate(100.0, 0.0, None)
    estimate.advance(110.0, 3.0)  # much time, little audio
    assert estimate.at(NOW, 600.0) is None
    estimate.advance(120.0, 30.0)
    assert estimate.at(NOW, None) is None


@pytest.mark.criterion("AC-1.3.5")
@pytest.mark.parametrize("started_s", [0.0, 210.0])
def test_at_a_steady_pace_the_end_is_the_same_all_through(started_s: float) -> None:
    """Whether asked within a chunk or at its end, and wherever the work began."""
    chunks = 10
    total_s = started_s + chunks * CHUNK_S
    done_at = chunks * HEARD_PER_CHUNK_S / SPEED
    estimate = CompletionEstimate(0.0, started_s, None)
    asked = 0
    for chunk in range(chunks):
        for second in range(1, int(CHUNK_S) + 1):
            wall_s = (chunk * HEARD_PER_CHUNK_S + CONTEXT_S + second) / SPEED
            estimate.advance(wall_s, started_s + chunk * CHUNK_S + second)
            found = left_s(estimate, total_s)
            if found is not None:
                assert wall_s + found == pytest.approx(done_at, abs=1.0)
                asked += 1
        wall_s = (chunk + 1) * HEARD_PER_CHUNK_S / SPEED
        estimate.commit(wall_s, started_s + (chunk + 1) * CHUNK_S)
        assert wall_s + (left_s(estimate, total_s) or 0.0) == pytest.approx(done_at, abs=1.0)
    assert asked > (chunks - 1) * CHUNK_S


def test_past_runs_speak_first_then_this_one_more_and_more() -> None:
    estimate = CompletionEstimate(0.0, 0.0, 4.0)
    total_s = 100 * CHUNK_S
    assert left_s(estimate, total_s) == pytest.approx(total_s / 4, abs=1)
    wall_s = 0.0
    shares = []
    for chunk in range(1, 61):
        wall_s += CHUNK_S / 2  # half as fast
        estimate.commit(wall_s, chunk * CHUNK_S)
        by_this_one = (total_s - chunk * CHUNK_S) / 2
        found = left_s(estimate, total_s)
        assert found is not None
        shares.append(2 * found / by_this_one - 1)  # 0: as past runs say, 1: as this one does
        assert shares[-1] == pytest.approx(wall_s / (wall_s + EXPECTED_WEIGHT_S), abs=0.02)
    assert shares[-1] > 2 * shares[0]


def test_preparation_is_no_measure_of_speed() -> None:
    estimate = CompletionEstimate(0.0, 0.0, None)
    estimate.advance(30.0, 6.0)
    estimate.start_over(35.0, 6.0)
    assert estimate.at(NOW, 600.0) is None
    estimate.commit(35.0 + HEARD_PER_CHUNK_S / SPEED, 6.0 + CHUNK_S)
    assert left_s(estimate, 6.0 + 2 * CHUNK_S) == pytest.approx(HEARD_PER_CHUNK_S / SPEED, abs=1)


def test_standing_still_and_going_back_change_nothing() -> None:
    estimate = CompletionEstimate(0.0, 0.0, None)
    estimate.advance(10.0, 40.0)
    before = estimate.at(NOW, 600.0)
    estimate.advance(12.0, 40.0)
    estimate.advance(13.0, 30.0)
    estimate.commit(14.0, 0.0)
    assert estimate.at(NOW, 600.0) == before


def test_past_the_stated_length_it_is_done_now() -> None:
    estimate = CompletionEstimate(0.0, 0.0, None)
    estimate.commit(10.0, 40.0)
    assert estimate.at(NOW, 30.0) == NOW


def test_it_is_told_to_the_nearest_second() -> None:
    estimate = CompletionEstimate(0.0, 0.0, None)
    estimate.commit(10.0, CHUNK_S)
    at = estimate.at(NOW + timedelta(milliseconds=700), CHUNK_S)
    assert at == NOW + timedelta(seconds=1)
