"""When a recording will be done, from what recognising it has taken so far. Pure.

A recogniser hears more than the recording: each chunk with some of the sound on either side, so
that no word is cut. Progress stands still meanwhile. The time left is therefore reckoned in sound
heard, of which a second takes about as long as any other.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from jobs.model import CONTEXT_S, MAX_CHUNK_S, MIN_CHUNK_S
from jobs.speed import SmoothedRate, has_ground

TYPICAL_CHUNK_S = (MIN_CHUNK_S + MAX_CHUNK_S) / 2

# Past runs weigh as much as so many seconds of this one.
EXPECTED_WEIGHT_S = 20.0


class CompletionEstimate:
    """Feed it the clock and the position, and tell it of the ends of chunks.

    `expected_speed` (audio per wall time) is that of past runs, for estimates before this one has
    shown its own; None without any.
    """

    def __init__(self, wall_s: float, audio_s: float, expected_speed: float | None) -> None:
        self._expected_speed = expected_speed
        self.start_over(wall_s, audio_s)

    def start_over(self, wall_s: float, audio_s: float) -> None:
        """Recognition proper begins here: what was before it is no measure of its speed."""
        self._started_s = self._reached_s = self._committed_s = audio_s
        self._chunks = 0
        self._rate = SmoothedRate(wall_s, 0.0)

    def advance(self, wall_s: float, audio_s: float) -> None:
        """The recogniser stands at `audio_s` at the time `wall_s` (both in seconds)."""
        if audio_s > self._reached_s:
            self._reached_s = audio_s
            self._rate.advance(wall_s, self._heard_s)

    def commit(self, wall_s: float, audio_s: float) -> None:
        """A chunk ends at `audio_s`, and the sound after it has been heard too."""
        if audio_s > self._committed_s:
            self._reached_s = max(self._reached_s, audio_s)
            self._committed_s = audio_s
            self._chunks += 1
            self._rate.advance(wall_s, self._heard_s)

    def at(self, now: datetime, total_s: float | None) -> datetime | None:
        """The time, to the second; None until there is ground for it."""
        if total_s is None:
            return None
        in_all_s = self._heard_in_all_s(total_s)
        pace = self._seconds_per_heard_s(total_s - self._started_s, in_all_s)
        if pace is None:
            return None
        left_s = max(0.0, in_all_s - self._heard_s) * pace
        return (now + timedelta(seconds=left_s + 0.5)).replace(microsecond=0)

    @property
    def _heard_s(self) -> float:
        within = CONTEXT_S if self._reached_s > self._committed_s else 0.0
        return self._reached_s - self._started_s + 2 * CONTEXT_S * self._chunks + within

    def _heard_in_all_s(self, total_s: float) -> float:
        """What will have been heard at the end. Of the chunks to come only the typical length is
        known."""
        rest_s = total_s - self._committed_s
        left = rest_s / TYPICAL_CHUNK_S if rest_s > MAX_CHUNK_S else float(rest_s > 0)
        return total_s - self._started_s + 2 * CONTEXT_S * (self._chunks + left)

    def _seconds_per_heard_s(self, audio_s: float, heard_s: float) -> float | None:
        """By past runs first, then more and more by this one."""
        speed = self._expected_speed
        expected = audio_s / (speed * heard_s) if speed and heard_s > 0 else None
        rate = self._rate
        if rate.value is None or not has_ground(rate.wall_s, self._reached_s - self._started_s):
            return expected
        if expected is None:
            return 1 / rate.value
        weight = rate.wall_s / (rate.wall_s + EXPECTED_WEIGHT_S)
        return weight / rate.value + (1 - weight) * expected
