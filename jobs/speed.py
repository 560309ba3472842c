"""How fast recognition goes, measured while it goes. Pure: the clock is the caller's."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp2

# Ground for an estimate: less of either is guesswork.
MIN_ESTIMATE_WALL_S = 2.0
MIN_ESTIMATE_AUDIO_S = 5.0

# Half of a rate's weight is gone after so many seconds of work. Speech is faster and slower to
# recognise from minute to minute; only what lasts longer says something of what is to come.
HALF_LIFE_S = 90.0


def has_ground(wall_s: float, audio_s: float) -> bool:
    """Whether so much work on so much of a recording is ground for an estimate."""
    return wall_s >= MIN_ESTIMATE_WALL_S and audio_s >= MIN_ESTIMATE_AUDIO_S


@dataclass
class SmoothedRate:
    """How much a position rises in a second of wall time, smoothed over the work done.

    Feed it the clock and the position; what stands still or falls changes nothing.
    """

    started_wall_s: float
    started_at: float
    value: float | None = None  # a second; None while nothing has moved
    _last_wall_s: float = 0.0
    _last_at: float = 0.0

    def __post_init__(self) -> None:
        self._last_wall_s, self._last_at = self.started_wall_s, self.started_at

    def advance(self, wall_s: float, at: float) -> None:
        spent_s = wall_s - self._last_wall_s
        if spent_s <= 0 or at <= self._last_at:
            return
        rate = (at - self._last_at) / spent_s
        # The mean so far while there is little of it, an exponential average afterwards.
        share = spent_s / max(wall_s - self.started_wall_s, spent_s)
        weight = max(1 - exp2(-spent_s / HALF_LIFE_S), share)
        self.value = rate if self.value is None else self.value + weight * (rate - self.value)
        self._last_wall_s, self._last_at = wall_s, at

    @property
    def wall_s(self) -> float:
        """The time that this is the rate of."""
        return self._last_wall_s - self.started_wall_s

    @property
    def moved(self) -> float:
        """The way that this is the rate of."""
        return self._last_at - self.started_at


class SpeedMeter:
    """Seconds of audio recognised per second of wall time.

    A resumed recording starts from its own position, so what an earlier attempt did does not count.
    """

    def __init__(self, wall_s: float, audio_s: float) -> None:
        self._rate = SmoothedRate(wall_s, audio_s)

    @property
    def started_wall_s(self) -> float:
        return self._rate.started_wall_s

    def start_over(self, wall_s: float, audio_s: float) -> None:
        """Recognition proper begins here: what was before it is no measure of its speed."""
        self._rate = SmoothedRate(wall_s, audio_s)

    def advance(self, wall_s: float, audio_s: float) -> None:
        """The recogniser stands at `audio_s` at the time `wall_s` (both in seconds)."""
        self._rate.advance(wall_s, audio_s)

    @property
    def speed(self) -> float | None:
        """The smoothed rate; None until there is ground for it."""
        rate = self._rate
        if rate.value is None or not has_ground(rate.wall_s, rate.moved):
            return None
        return round(rate.value, 2)

    @property
    def mean(self) -> float | None:
        """The plain rate over all of the work, for what is over before it can be smoothed."""
        return round(self._rate.moved / self._rate.wall_s, 2) if self._rate.wall_s else None
