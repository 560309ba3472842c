"""Pure rules of progress: percentages, milestones, sentences, speed and estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

MILESTONES = (10, 25, 50, 75, 90, 100)

# While the work goes on the percentage stays below this: 100 is said by completion alone.
LAST_RUNNING_PERCENT = 99

# Ground for an estimate: less of either is guesswork.
MIN_ESTIMATE_WALL_S = 2.0
MIN_ESTIMATE_AUDIO_S = 5.0

# Half of a speed's weight is gone after so many seconds of work. Speech is faster and slower to
# recognise from minute to minute; only what lasts longer says something of what is to come.
SPEED_HALF_LIFE_S = 90.0

# Past runs weigh as much as so many seconds of this one.
EXPECTED_WEIGHT_S = 30.0

MINUTE_S = 60
HOUR_S = 3600


def percent(processed_s: float, total_s: float | None) -> int:
    """How much of the recording is recognised, 0-99; 0 while the length is unknown."""
    if not total_s or processed_s <= 0:
        return 0
    return min(LAST_RUNNING_PERCENT, int(100 * processed_s / total_s))


def milestones_between(before: int, after: int) -> tuple[int, ...]:
    """The milestones in (before, after], in order."""
    return tuple(milestone for milestone in MILESTONES if before < milestone <= after)


def clock(seconds: float) -> str:
    """`7:30`, or `1:07:30` from an hour on."""
    whole = int(seconds)
    if whole >= HOUR_S:
        return f"{whole // HOUR_S}:{whole % HOUR_S // MINUTE_S:02}:{whole % MINUTE_S:02}"
    return f"{whole // MINUTE_S}:{whole % MINUTE_S:02}"


def opening_message(resume_s: float) -> str:
    """`Opening the recording`, or where it goes on."""
    return f"Continuing from {clock(resume_s)}" if resume_s > 0 else "Opening the recording"


def quiet_message(sentence: str, for_s: float) -> str:
    """The sentence of progress that stands still."""
    return f"{sentence} (no progress for {clock(for_s)})"


def transcribing_message(processed_s: float, total_s: float | None) -> str:
    """`Transcribing… 7:30 of 10:00`."""
    if total_s is None:
        return f"Transcribing… {clock(processed_s)}"
    return f"Transcribing… {clock(min(processed_s, total_s))} of {clock(total_s)}"


def completed_message(
    duration_s: float, wall_s: float, stated_s: float | None, segments: int
) -> str:
    """The sentence at the end; says so when there were no words, or less than the file states."""
    result = "Transcript ready" if segments else "No words were recognised"
    sentence = f"{result}: {clock(duration_s)} of audio in {clock(max(1.0, wall_s))}"
    if stated_s is not None and stated_s - duration_s > max(1.0, 0.02 * stated_s):
        sentence += f". The file ends early: it states {clock(stated_s)}"
    return sentence


class Position(NamedTuple):
    """How far the recogniser was in the recording at a moment (both in seconds)."""

    wall_s: float
    audio_s: float


@dataclass
class SpeedMeter:
    """Seconds of audio recognised per second of wall time, smoothed over the work done.

    Feed it the clock and the position; a resumed recording starts from its own position, so what an
    earlier attempt did does not count. `expected_speed` is that of past runs, for estimates before
    this one has shown its own; it is never told as measured.
    """

    started_wall_s: float
    started_audio_s: float
    expected_speed: float | None = None
    _last: Position | None = None
    _speed: float | None = None
    _committed: Position | None = None
    _committed_speed: float | None = None

    def start_over(self, wall_s: float, audio_s: float) -> None:
        """Recognition proper begins here: what was before it is no measure of its speed."""
        self.started_wall_s, self.started_audio_s = wall_s, audio_s
        self._last = self._committed = self._speed = self._committed_speed = None

    def advance(self, wall_s: float, audio_s: float) -> None:
        """The recogniser stands at `audio_s` at the time `wall_s` (both in seconds)."""
        here = Position(wall_s, audio_s)
        if self._moved(self._last, here):
            self._speed = self._smoothed(self._speed, self._last, here)
            self._last = here

    def commit(self, wall_s: float, audio_s: float) -> None:
        """A chunk ends at `audio_s`, and all that it takes has been done.

        Within a chunk its sound is heard faster than this: what is heard on either side of it, and
        the choice of the words, take time and move nothing.
        """
        self.advance(wall_s, audio_s)
        here = Position(wall_s, audio_s)
        if self._moved(self._committed, here):
            self._committed_speed = self._smoothed(self._committed_speed, self._committed, here)
            self._committed = here

    @property
    def speed(self) -> float | None:
        """The smoothed rate; None until there is ground for it."""
        if self._speed is None or not self._has_ground(self._last):
            return None
        return round(self._speed, 2)

    @property
    def mean(self) -> float | None:
        """The plain rate over all of the work, for what is over before it can be smoothed."""
        if self._last is None:
            return None
        wall_s = self._last.wall_s - self.started_wall_s
        return round((self._last.audio_s - self.started_audio_s) / wall_s, 2) if wall_s else None

    def completion(self, now: datetime, wall_s: float, total_s: float | None) -> datetime | None:
        """When the recording will be done at this speed, to the second; None without ground.

        `now` and `wall_s` are the same moment, by two clocks.
        """
        pace = self._seconds_per_audio_s()
        if pace is None or total_s is None:
            return None
        reached_s = self.started_audio_s if self._last is None else self._last.audio_s
        left_s = max(0.0, total_s - reached_s) * pace
        if self._committed is not None:
            since_s = wall_s - self._committed.wall_s
            # A chunk that takes longer than others leaves its successors their time.
            left_s = max((total_s - self._committed.audio_s) * pace - since_s, left_s / 2)
        return (now + timedelta(seconds=left_s + 0.5)).replace(microsecond=0)

    def _seconds_per_audio_s(self) -> float | None:
        """By past runs first, then more and more by this one; by whole chunks, once there are."""
        expected = 1 / self.expected_speed if self.expected_speed else None
        speed, last = self._committed_speed, self._committed
        if speed is None or not self._has_ground(last):
            speed, last = self._speed, self._last
        if speed is None or last is None or not self._has_ground(last):
            return expected
        if expected is None:
            return 1 / speed
        wall_s = last.wall_s - self.started_wall_s
        weight = wall_s / (wall_s + EXPECTED_WEIGHT_S)
        return weight / speed + (1 - weight) * expected

    def _moved(self, before: Position | None, here: Position) -> bool:
        before = before or self._start
        return here.wall_s > before.wall_s and here.audio_s > before.audio_s

    def _smoothed(self, speed: float | None, before: Position | None, here: Position) -> float:
        """The mean so far while there is little of it, an exponential average afterwards."""
        before = before or self._start
        spent_s = here.wall_s - before.wall_s
        rate = (here.audio_s - before.audio_s) / spent_s
        if speed is None:
            return rate
        share = spent_s / max(here.wall_s - self.started_wall_s, spent_s)
        forgotten = 1 - math.exp2(-spent_s / SPEED_HALF_LIFE_S)
        return speed + max(forgotten, share) * (rate - speed)

    def _has_ground(self, last: Position | None) -> bool:
        if last is None:
            return False
        wall_s, audio_s = last.wall_s - self.started_wall_s, last.audio_s - self.started_audio_s
        return wall_s >= MIN_ESTIMATE_WALL_S and audio_s >= MIN_ESTIMATE_AUDIO_S

    @property
    def _start(self) -> Position:
        return Position(self.started_wall_s, self.started_audio_s)
