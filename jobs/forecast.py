"""Pure rules of the whole wait: how fast an engine is here, and when each turn comes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

# Fewer runs than this are no ground for a forecast; more than that tell of a time gone by.
MIN_RUNS = 3
MAX_RUNS = 20


@dataclass(frozen=True, slots=True)
class Run:
    """What one finished attempt took."""

    host: str
    audio_s: float  # that it recognised
    setup_s: float  # from its claim to its first word: loading the model, opening the recording
    wall_s: float  # from its claim to its end


@dataclass(frozen=True, slots=True)
class Pace:
    """How long an engine takes on a host."""

    setup_s: float
    per_audio_s: float  # seconds of work for one second of audio

    def work_s(self, audio_s: float) -> float:
        """The whole time for a recording of this length."""
        return self.setup_s + self.per_audio_s * audio_s


@dataclass(frozen=True, slots=True)
class Slot:
    """A place where recordings are transcribed, and when it is free."""

    free_at: datetime
    pace: Pace


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recording that waits, in the order of the queue."""

    due_at: datetime  # not before
    audio_s: float | None  # still to be recognised; None while the length is unknown


@dataclass(frozen=True, slots=True)
class Expected:
    """When a recording is begun, and when it is done; None without ground."""

    start: datetime | None
    completion: datetime | None


UNKNOWN = Expected(None, None)


def pace_of(runs: Sequence[Run], host: str) -> Pace | None:
    """The pace by the latest runs (newest first) of one engine: of this host, or where there are
    too few, of any. None when there are too few at all."""
    here = [run for run in runs if run.host == host][:MAX_RUNS]
    ground = here if len(here) >= MIN_RUNS else runs[:MAX_RUNS]
    if len(ground) < MIN_RUNS:
        return None
    # Of sums, not the mean of ratios: long recordings say most about the pace.
    worked_s = sum(run.wall_s - run.setup_s for run in ground)
    return Pace(median(run.setup_s for run in ground), worked_s / sum(r.audio_s for r in ground))


def expected_turns(slots: Iterable[Slot], waiting: Iterable[Waiting]) -> list[Expected]:
    """When each of `waiting` is begun and done, if each takes the slot that is free first.

    From the first recording of unknown length on nothing is known but its own start.
    """
    free = [(slot.free_at, number, slot.pace) for number, slot in enumerate(slots)]
    heapq.heapify(free)
    expected: list[Expected] = []
    for recording in waiting:
        if not free:
            expected.append(UNKNOWN)
            continue
        free_at, number, pace = free[0]
        start = max(free_at, recording.due_at)
        if recording.audio_s is None:
            expected.append(Expected(start, None))
            free = []
            continue
        completion = start + timedelta(seconds=pace.work_s(recording.audio_s))
        expected.append(Expected(start, completion))
        heapq.heapreplace(free, (completion, number, pace))
    return expected
