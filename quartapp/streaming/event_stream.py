"""One open stream: hello, what has been, what happens, heartbeats, and an end that is told.

The stream is pulled: it takes the next event when the transport has taken the last. It holds no
task and no copy for its reader; while one does not read, its events wait in the subscription's
bounded buffer and then in the table. What must happen to a stream whose reader has stopped cannot
be done from within, and belongs to whoever iterates it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import structlog

from quartapp.streaming.encoder import EventName, ServerSentEvent, json_line, status_event
from quartapp.streaming.open_streams import OpenStreams
from quartapp.streaming.settings import StreamSettings
from quartapp.streaming.subscriber import SessionGone, StatusSubscriber, StatusSubscription

log = structlog.get_logger()

# A heartbeat is late by at most so much when the database does not answer.
HEARTBEAT_READ_S = 0.5
LIFETIME_SPREAD = 0.2
ACCESS_CHECK_SPREAD = 0.25


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins: after an event (0: with the first), or with a snapshot."""

    after: int | None = None
    reset: bool = False  # say that the client's cursor is not known


class EventStream:
    """The script of one stream, whatever transport carries it."""

    def __init__(
        self,
        session_id: UUID,
        start: Start,
        *,
        subscriber: StatusSubscriber,
        streams: OpenStreams,
        settings: StreamSettings,
        has_access: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`has_access` is asked again and again; an exception of it leaves things as they are."""
        self.id = uuid4()
        self.session_id = session_id
        self._start = start
        self._subscriber = subscriber
        self._streams = streams
        self._settings = settings
        self._has_access = has_access
        self._access_withdrawn = False

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The stream as SSE. Whatever breaks, it ends cleanly, so that the client comes back."""
        async with aclosing(self.events()) as events:
            try:
                async for event in events:
                    yield event.encoded
            except Exception:
                log.exception(
                    "stream_broke", session_id=str(self.session_id), stream_id=str(self.id)
                )

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """The stream's events. Nothing is acquired before the first is asked for."""
        now = asyncio.get_running_loop().time
        settings = self._settings
        lifetime_s = settings.max_lifetime_s * random.uniform(1 - LIFETIME_SPREAD, 1)  # noqa: S311
        lifetime_ends_at = now() + lifetime_s
        idle_ends_at = now() + settings.idle_timeout_s
        async with self._subscriber.subscribe(self.session_id, self._start.after) as subscription:
            timer = _Timer(subscription.wake)
            with timer, self._streams.opened(subscription.wake), self._access_checked(subscription):
                yield self._hello()
                if self._start.reset:
                    yield _event(EventName.RESET, reason="cursor_unknown")
                heartbeat_at = now() + settings.heartbeat_s
                while True:
                    ending = self._ending(idle_ends_at, lifetime_ends_at)
                    if ending is not None:
                        yield self._last_event(ending)
                        return
                    if heartbeat_at <= now():
                        await subscription.refresh(HEARTBEAT_READ_S)
                        yield self._heartbeat(subscription)
                        heartbeat_at = now() + settings.heartbeat_s
                        continue
                    timer.due_at = min(heartbeat_at, idle_ends_at, lifetime_ends_at)
                    try:
                        message = await subscription.next()
                    except SessionGone:
                        yield self._last_event(EventName.GONE)
                        return
                    if message is None:
                        continue
                    last = message.terminal and subscription.at_end
                    yield status_event(message, last=last)
                    if last:
                        return
                    heartbeat_at = now() + settings.heartbeat_s
                    idle_ends_at = now() + settings.idle_timeout_s

    def _ending(self, idle_ends_at: float, lifetime_ends_at: float) -> EventName | None:
        now = asyncio.get_running_loop().time()
        if self._streams.draining:
            return EventName.RESTARTING
        if self._access_withdrawn:
            return EventName.UNAUTHORIZED
        if lifetime_ends_at <= now:
            return EventName.LIFETIME
        if idle_ends_at <= now:
            return EventName.IDLE
        return None

    def _hello(self) -> ServerSentEvent:
        settings = self._settings
        return _event(
            EventName.HELLO,
            retry_ms=_retry_ms(settings.retry_min_ms, settings.retry_max_ms),
            stream_id=str(self.id),
            server_time=_timestamp(datetime.now(UTC)),
            heartbeat_s=settings.heartbeat_s,
            idle_timeout_s=settings.idle_timeout_s,
            max_lifetime_s=settings.max_lifetime_s,
            transport=self._subscriber.mode.value,
        )

    def _heartbeat(self, subscription: StatusSubscription) -> ServerSentEvent:
        seen_at = subscription.worker_seen_at
        return _event(
            EventName.HEARTBEAT,
            comment="heartbeat",
            timestamp=_timestamp(datetime.now(UTC)),
            worker_seen_at=None if seen_at is None else _timestamp(seen_at),
            transport=self._subscriber.mode.value,
        )

    def _last_event(self, ending: EventName) -> ServerSentEvent:
        longest_ms = self._settings.retry_max_ms
        if ending is EventName.RESTARTING:
            longest_ms = self._settings.restart_retry_max_ms
        return _event(
            ending,
            retry_ms=_retry_ms(self._settings.retry_min_ms, longest_ms),
            timestamp=_timestamp(datetime.now(UTC)),
        )

    @contextmanager
    def _access_checked(self, subscription: StatusSubscription) -> Iterator[None]:
        """Ask `has_access` again and again, and wake the stream once it says no."""
        if self._has_access is None:
            yield
            return
        task = asyncio.create_task(
            self._check_access(self._has_access, subscription), name="stream-access"
        )
        try:
            yield
        finally:
            task.cancel()

    async def _check_access(
        self, has_access: Callable[[], Awaitable[bool]], subscription: StatusSubscription
    ) -> None:
        while not self._access_withdrawn:
            spread = random.uniform(1 - ACCESS_CHECK_SPREAD, 1 + ACCESS_CHECK_SPREAD)  # noqa: S311
            await asyncio.sleep(self._settings.access_check_s * spread)
            try:
                self._access_withdrawn = not await has_access()
            except Exception as error:  # a database that is away takes nobody's access
                log.warning("access_unknown", session_id=str(self.session_id), error=repr(error))
        subscription.wake()


class _Timer:
    """Calls back at `due_at`, which is moved with every event, and so must cost nothing to move."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._handle: asyncio.TimerHandle | None = None
        self._due_at = float("inf")

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
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


def _event(
    name: EventName, *, retry_ms: int | None = None, comment: str | None = None, **fields: Any
) -> ServerSentEvent:
    return ServerSentEvent(name, json_line(fields), retry_ms=retry_ms, comment=comment)


def _retry_ms(shortest_ms: int, longest_ms: int) -> int:
    return random.randint(shortest_ms, max(shortest_ms, longest_ms))  # noqa: S311 - spreads load


def _timestamp(moment: datetime) -> str:
    """As in status messages: UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
