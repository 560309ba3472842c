"""The times of one stream: heartbeats, and when it has lasted long enough."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime

from quartapp.streaming.encoder import EventName
from quartapp.streaming.open_streams import OpenStream
from quartapp.streaming.settings import StreamSettings

LIFETIME_SPREAD = 0.2


class Clock:
    """When a stream has something to say of itself: heartbeats, and the end."""

    def __init__(
        self, stream: OpenStream, settings: StreamSettings, ring: Callable[[], None]
    ) -> None:
        """`ring` is called when something is due."""
        self._stream = stream
        self._settings = settings
        self._timer = Timer(ring)
        now = _now()
        lifetime_s = settings.max_lifetime_s * random.uniform(1 - LIFETIME_SPREAD, 1)  # noqa: S311
        self._lifetime_ends_at = now + lifetime_s
        left_s = (stream.expires_at - datetime.now(UTC)).total_seconds()
        self._access_ends_at = now + left_s
        self._idle_ends_at = now + settings.idle_timeout_s
        self._heartbeat_at = now + settings.heartbeat_s
        stream.on_ending(ring)
        self._set()

    @property
    def ending(self) -> EventName | None:
        """What ends the stream now, if anything."""
        if self._stream.ending is not None:
            return self._stream.ending
        now = _now()
        if self._access_ends_at <= now:
            return EventName.UNAUTHORIZED
        if self._lifetime_ends_at <= now:
            return EventName.LIFETIME
        if self._idle_ends_at <= now:
            return EventName.IDLE
        return None

    @property
    def heartbeat_due(self) -> bool:
        return self._heartbeat_at <= _now()

    def said(self, *, status: bool) -> None:
        """Something was sent: a status event, or else."""
        now = _now()
        self._heartbeat_at = now + self._settings.heartbeat_s
        if status:
            self._idle_ends_at = now + self._settings.idle_timeout_s
        self._set()

    def close(self) -> None:
        """Ring no more."""
        self._timer.close()

    def _set(self) -> None:
        self._timer.due_at = min(
            self._heartbeat_at, self._idle_ends_at, self._lifetime_ends_at, self._access_ends_at
        )


class Timer:
    """Calls back at `due_at`, which is moved with every event, and so must cost nothing to move."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._handle: asyncio.TimerHandle | None = None
        self._due_at = float("inf")

    def close(self) -> None:
        """Call back no more."""
        if self._handle is not None:
            self._handle.cancel()

    @property
    def due_at(self) -> float:
        return self._due_at

    @due_at.setter
    def due_at(self, time: float) -> None:
        self._due_at = time
        if self._handle is None or self._handle.when() > time:
            self._arm()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        loop = asyncio.get_running_loop()
        self._handle = loop.call_at(self._due_at, self._ring)

    def _ring(self) -> None:
        self._handle = None
        if self._due_at > asyncio.get_running_loop().time():
            self._arm()
        else:
            self._call()


def _now() -> float:
    return asyncio.get_running_loop().time()
