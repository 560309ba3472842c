"""StatusSubscriber: the events of a session, each once, in order, none missing.

One rule gives all three: an event that comes live is delivered only when its `prev_id` is the event
delivered last. Anything else (a gap, a lost notification, a message too long for one, a buffer that
ran over, a reconnect) means the same: read the table from the last delivered event on.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from uuid import UUID

import structlog

from jobs.database import DATABASE_ERRORS, Pool
from jobs.model import StatusMessage
from jobs.statuses import StatusPage
from quartapp.streaming.listener import Listener, Mode, Watch
from quartapp.streaming.reader import StatusReader
from quartapp.streaming.settings import StreamSettings

log = structlog.get_logger()

RETRY_MIN_S = 0.2
RETRY_MAX_S = 1.0


class SessionGone(Exception):
    """The session was deleted, or never was."""


class StatusSubscriber:
    """Subscribes to sessions. Subscriptions to one session share its channel and its messages."""

    def __init__(self, *, listener: Listener, pool: Pool, settings: StreamSettings) -> None:
        self._listener = listener
        self._reader = StatusReader(
            pool, page_size=settings.read_page_size, timeout_s=settings.read_timeout_s
        )
        self._settings = settings
        self._feeds: dict[UUID, _Feed] = {}

    @property
    def mode(self) -> Mode:
        """How events come at present."""
        return self._listener.mode

    @asynccontextmanager
    async def subscribe(
        self, session_id: UUID, after: int | None
    ) -> AsyncIterator[StatusSubscription]:
        """The events after `after` (0: all there are), or for None the newest and those after it.

        Entering does not wait. Leaving always unsubscribes.
        """
        with self._joined(session_id) as feed:
            subscription = StatusSubscription(
                feed.watch, self._reader, after, buffer_size=self._settings.subscriber_buffer
            )
            feed.subscriptions[subscription] = None
            try:
                yield subscription
            finally:
                del feed.subscriptions[subscription]
                subscription.close()

    @contextmanager
    def _joined(self, session_id: UUID) -> Iterator[_Feed]:
        """The feed of a session, made by its first subscription and ended by its last."""
        feed = self._feeds.get(session_id)
        if feed is None:
            feed = self._feeds[session_id] = _Feed(self._listener, session_id)
        feed.users += 1
        try:
            yield feed
        finally:
            feed.users -= 1
            if feed.users == 0:
                del self._feeds[session_id]
                feed.watch.close()


class _Feed:
    """One session's messages, to all its subscriptions."""

    def __init__(self, listener: Listener, session_id: UUID) -> None:
        self.users = 0
        self.subscriptions: dict[StatusSubscription, None] = {}
        self.watch = listener.watch(session_id, self._on_message)

    def _on_message(self, message: StatusMessage | None) -> None:
        for subscription in self.subscriptions:
            subscription.offer(message)


class StatusSubscription:
    """One reader's place in a session's events. Iterate it, or call `next()`; one task only.

    It takes no time of its own while its reader does not ask: what comes live waits in a bounded
    buffer, and once that ran over, in the table.
    """

    def __init__(
        self, watch: Watch, reader: StatusReader, after: int | None, *, buffer_size: int
    ) -> None:
        self.session_id = watch.session_id
        self.worker_seen_at: datetime | None = None  # as of the last read of the table
        self._watch = watch
        self._reader = reader
        self._buffer_size = buffer_size
        self._delivered = after or 0
        self._snapshot_due = after is None
        self._stale = True  # the table has, or may have, what is not here
        self._gone = False
        self._more = False  # the table has more than was read
        self._rows: deque[StatusMessage] = deque()  # read from the table
        self._live: deque[StatusMessage] = deque()  # came by notification
        self._reading: asyncio.Task[None] | None = None
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> StatusSubscription:
        return self

    async def __anext__(self) -> StatusMessage:
        while (message := await self.next()) is None:
            pass
        return message

    async def next(self) -> StatusMessage | None:
        """The next event, or None after `wake()`. Raises SessionGone.

        Database errors are not raised: reading is tried again until it succeeds.
        """
        while True:
            message = self._take()
            if message is not None:
                self._delivered = message.id
                return message
            if self._gone:
                raise SessionGone(str(self.session_id))
            if self._woken:
                self._woken = False
                return None
            await self._wait()

    async def woken(self) -> None:
        """Wait for `wake()`, and take no event."""
        while not self._woken:
            await self._wait()
        self._woken = False

    @property
    def at_end(self) -> bool:
        """Whether nothing is known to come after the event delivered last."""
        return not (
            self._rows or self._more or any(live.id > self._delivered for live in self._live)
        )

    def offer(self, message: StatusMessage | None) -> None:
        """An event from the session's channel; None: the table may have news."""
        if message is None or len(self._live) >= self._buffer_size:
            self._live.clear()
            self._stale = True
        else:
            self._live.append(message)
        self._stir()

    def wake(self) -> None:
        """Have `next()` return, now or when it is next called."""
        self._woken = True
        self._stir()

    async def refresh(self, timeout_s: float) -> None:
        """Read the table now, for at most so long: `worker_seen_at`, and whatever was missed."""
        self._stale = True
        if not self._rows:
            self._begin_read()
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=timeout_s)

    def close(self) -> None:
        """Stop reading. `StatusSubscriber.subscribe` does it."""
        if self._reading is not None:
            self._reading.cancel()

    def _take(self) -> StatusMessage | None:
        """What can be delivered at once; begins a read of the table when that is what it takes."""
        if self._rows:
            return self._rows.popleft()
        if self._reading is not None:
            return None
        while self._live and not self._stale:
            message = self._live.popleft()
            if message.prev_id == self._delivered:
                return message
            self._stale = message.id > self._delivered
        if self._stale:
            self._begin_read()
        return None

    def _begin_read(self) -> None:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="status-read")

    async def _read(self) -> None:
        try:
            await self._watch.ready()
            # First, so that what is said during the read is heeded after it.
            self._stale = False
            self._accept(await self._read_page())
        finally:
            self._reading = None
            self._stir()

    async def _read_page(self) -> StatusPage:
        after = None if self._snapshot_due else self._delivered
        while True:
            try:
                return await self._reader.read(self.session_id, after)
            except DATABASE_ERRORS as error:
                log.debug("status_read_failed", session_id=str(self.session_id), error=repr(error))
            except Exception:  # its reader waits for nothing else, so it must go on
                log.exception("status_read_broke", session_id=str(self.session_id))
            await asyncio.sleep(random.uniform(RETRY_MIN_S, RETRY_MAX_S))  # noqa: S311

    def _accept(self, page: StatusPage) -> None:
        self._gone = not page.exists
        self._snapshot_due = False
        self._more = page.more
        self._stale = self._stale or page.more
        self._rows.extend(page.messages)
        self.worker_seen_at = page.worker_seen_at
        if page.messages:
            self._watch.saw(page.messages[-1].id)

    async def _wait(self) -> None:
        """Until something has changed."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _stir(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
