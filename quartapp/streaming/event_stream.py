"""One open stream: hello, what has been, what happens, heartbeats, and an end that is told.

The stream is pulled: it takes the next event when the transport has taken the last. It holds no
task and no copy for its reader; while one does not read, its events wait in the subscription's
bounded buffer and then in the table. What must happen to a stream whose reader has stopped cannot
be done from within, and belongs to whoever iterates it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

import structlog

from jobs.model import StatusMessage
from quartapp.streaming import metrics
from quartapp.streaming.clock import Clock
from quartapp.streaming.encoder import EventName, ServerSentEvent, status_event
from quartapp.streaming.open_streams import OpenStream
from quartapp.streaming.script import heartbeat, hello, last_event, make_event
from quartapp.streaming.segments import SegmentFeed, SegmentReader, segment_event
from quartapp.streaming.settings import StreamSettings
from quartapp.streaming.subscriber import SessionGone, StatusSubscriber, StatusSubscription

log = structlog.get_logger()

# A heartbeat is late by at most so much when the database does not answer.
HEARTBEAT_READ_S = 0.5


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream begins: after an event (0: with the first), or with a snapshot."""

    after: int | None = None
    segments: int = 0  # how many of them the client has
    reset: bool = False  # say that the client's cursor is not known


class EventStream:
    """The script of one stream, whatever transport carries it."""

    def __init__(
        self,
        stream: OpenStream,
        session_id: UUID,
        start: Start,
        *,
        subscriber: StatusSubscriber,
        settings: StreamSettings,
        segments: SegmentReader | None = None,
    ) -> None:
        """With `segments`, pieces of the transcript stand before the status events that brought
        them."""
        self._stream = stream
        self._session_id = session_id
        self._start = start
        self._subscriber = subscriber
        self._settings = settings
        self._segments = segments

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """The stream's events. Nothing is acquired before the first is asked for."""
        async with self._subscriber.subscribe(self._session_id, self._start.after) as subscription:
            with (
                closing(Clock(self._stream, self._settings, subscription.wake)) as clock,
                closing(self._feed(subscription)) as feed,
            ):
                async with aclosing(self._script(subscription, clock, feed)) as script:
                    async for event in script:
                        self._stream.events += 1
                        metrics.EVENTS.labels(event.event).inc()
                        yield event

    def _feed(self, subscription: StatusSubscription) -> SegmentFeed | _NoSegments:
        if self._segments is None:
            return _NoSegments()
        return SegmentFeed(
            self._segments, self._session_id, self._start.segments, subscription.wake
        )

    async def _script(
        self, subscription: StatusSubscription, clock: Clock, feed: SegmentFeed | _NoSegments
    ) -> AsyncGenerator[ServerSentEvent, None]:
        yield hello(self._stream, self._settings, self._subscriber.mode.value)
        if self._start.reset:
            yield make_event(EventName.RESET, reason="cursor_unknown")
        delivered = self._start.after or 0
        held: StatusMessage | None = None  # until its segments have been sent
        while True:
            if (ending := clock.ending) is not None:
                yield self._last_event(ending)
                return
            if clock.heartbeat_due:
                await subscription.refresh(HEARTBEAT_READ_S)
                yield heartbeat(self._subscriber.mode.value, subscription.worker_seen_at)
                clock.said(status=False)
                continue
            if held is None:
                try:
                    held = await subscription.next()
                except SessionGone:
                    yield self._last_event(EventName.GONE)
                    return
                if held is None:
                    continue
                feed.begin(held.segments)
            for segment in feed.take():
                yield segment_event(delivered, segment)
                clock.said(status=False)
            if feed.pending:
                await subscription.woken()
                continue
            last = held.terminal and subscription.at_end
            if last:
                self._stream.ended = status_event(held, last=True).event.value
            self._observe_lag(held)
            yield status_event(held, last=last)
            if last:
                return
            delivered, held = held.id, None
            clock.said(status=True)

    def _observe_lag(self, message: StatusMessage) -> None:
        """An id reads as the time of its event; of those before the stream, nobody waited."""
        written_at = message.id / 1_000_000
        if written_at >= self._stream.opened_at.timestamp():
            metrics.LAG.observe(max(0.0, time.time() - written_at))

    def _last_event(self, ending: EventName) -> ServerSentEvent:
        self._stream.ended = ending.value
        return last_event(ending, self._settings)


class _NoSegments:
    """For streams without segments."""

    pending = False

    def begin(self, until: int) -> None:
        pass

    def take(self) -> tuple[()]:
        return ()

    def close(self) -> None:
        pass


Encode: TypeAlias = Callable[[ServerSentEvent], bytes]


def encoded(event: ServerSentEvent) -> bytes:
    """The events as they are."""
    return event.encoded


async def as_blocks(
    events: AsyncGenerator[ServerSentEvent, None],
    stream: OpenStream,
    encode: Encode = encoded,
) -> AsyncGenerator[bytes, None]:
    """The stream as SSE. Whatever breaks, it ends cleanly, so that the client comes back."""
    async with aclosing(events):
        try:
            async for event in events:
                if block := encode(event):
                    yield block
        except Exception:
            stream.ended = "error"
            log.exception(
                "stream_broke", session_id=str(stream.session_id), stream_id=str(stream.id)
            )
