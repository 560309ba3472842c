"""The streams this process has open, and what ends them from outside.

A few tasks serve them all: they say that the process lives, learn which slots were taken over, and
ask in one query whether the viewers may still see what they watch.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import structlog

from jobs.database import DATABASE_ERRORS, Connection, Pool, connection_within
from quartapp.streaming import metrics
from quartapp.streaming.encoder import EventName
from quartapp.streaming.settings import StreamSettings
from quartapp.streaming.slots import Release, SlotRefused, SlotRequest, StreamSlots, Transport

log = structlog.get_logger()

ACCESS_CHECK_SPREAD = 0.25
ACCESS_CHECK_TIMEOUT_S = 5.0
ACCESS_BATCH = 1000

# Asked for (sign-in, owner of the session or None): whether each may still see it. May raise.
MayStillSee: TypeAlias = Callable[
    [Connection, Sequence[tuple[UUID, UUID | None]]], Awaitable[Sequence[bool]]
]


class AtCapacity(Exception):
    """This process holds as many streams as it may."""


class OpenStream:
    """One stream as the rest of the process sees it: whose it is, and how to end it."""

    def __init__(
        self,
        *,
        user_id: UUID,
        login_id: UUID,
        expires_at: datetime,
        session_id: UUID | None,
        owner_id: UUID | None,
        transport: Transport,
    ) -> None:
        self.id = uuid4()
        self.user_id = user_id
        self.login_id = login_id
        self.expires_at = expires_at  # of the sign-in
        self.session_id = session_id  # None: the stream of all sessions
        self.owner_id = owner_id
        self.transport = transport
        self.opened_at = datetime.now(UTC)
        self.events = 0
        self.ending: EventName | None = None  # what is to be said last, and soon
        self.ended: str = "client"  # why it closed; unless told otherwise, the client left
        self._wake: Callable[[], None] | None = None

    def on_ending(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when the stream is to end."""
        self._wake = wake

    def end(self, ending: EventName) -> None:
        """Ask for the end. What was asked for first is said."""
        if self.ending is None:
            self.ending = ending
            if self._wake is not None:
                self._wake()


class OpenStreams:
    """Every stream of this process."""

    def __init__(
        self,
        *,
        pool: Pool,
        settings: StreamSettings,
        process_id: str,
        drain: asyncio.Event,
        may_still_see: MayStillSee,
    ) -> None:
        """`drain` is set when the process begins to stop: then every stream is told."""
        self._pool = pool
        self._settings = settings
        self._drain = drain
        self._may_still_see = may_still_see
        self._slots = StreamSlots(pool, settings, process_id, self._replaced)
        self._streams: dict[UUID, OpenStream] = {}
        self._opening = 0
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[OpenStream]:
        return iter(list(self._streams.values()))

    @property
    def draining(self) -> bool:
        return self._drain.is_set()

    async def start(self) -> None:
        """Begin. Raises what the database raises."""
        await self._slots.beat()
        for name, work in (
            ("stream-drain", self._end_at_drain()),
            ("stream-beat", self._keep_beating()),
            ("stream-access", self._keep_checking_access()),
        ):
            self._tasks.append(asyncio.create_task(work, name=name))

    async def stop(self) -> None:
        """Give back what is held; streams must have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._slots.close()

    async def open(self, stream: OpenStream, client_id: str | None) -> None:
        """Admit a stream; `close` it whatever happens to it. While draining it is only told so.

        Raises AtCapacity, SlotRefused, and what the database raises.
        """
        if self.draining:
            stream.end(EventName.RESTARTING)
            self._admit(stream)
            return
        if len(self._streams) + self._opening >= self._settings.max_streams:
            metrics.REFUSED.labels("capacity").inc()
            raise AtCapacity
        self._opening += 1
        try:
            await self._slots.take(
                SlotRequest(
                    stream.id, stream.user_id, stream.session_id, client_id, stream.transport
                )
            )
        except SlotRefused as refused:
            metrics.REFUSED.labels(refused.refusal.value).inc()
            log.info(
                "stream_refused",
                user_id=str(stream.user_id),
                session_id=_text(stream.session_id),
                reason=refused.refusal.value,
            )
            raise
        finally:
            self._opening -= 1
        self._admit(stream)
        if self.draining:
            stream.end(EventName.RESTARTING)

    def close(self, stream: OpenStream) -> None:
        """The stream is over. Does nothing for one that was not admitted, or is closed."""
        if self._streams.pop(stream.id, None) is None:
            return
        duration_s = (datetime.now(UTC) - stream.opened_at).total_seconds()
        metrics.OPEN.labels(stream.transport).dec()
        metrics.CLOSED.labels(stream.transport, stream.ended).inc()
        metrics.DURATION.observe(duration_s)
        figures = {"duration_s": round(duration_s, 3), "events": stream.events}
        self._slots.release(Release(stream.id, stream.ended, figures))
        log.info(
            "stream_closed",
            stream_id=str(stream.id),
            session_id=_text(stream.session_id),
            transport=stream.transport.value,
            reason=stream.ended,
            **figures,
        )

    def _admit(self, stream: OpenStream) -> None:
        self._streams[stream.id] = stream
        metrics.OPENED.labels(stream.transport).inc()
        metrics.OPEN.labels(stream.transport).inc()
        log.info(
            "stream_opened",
            stream_id=str(stream.id),
            session_id=_text(stream.session_id),
            user_id=str(stream.user_id),
            transport=stream.transport.value,
        )

    def _replaced(self, stream_id: UUID) -> None:
        if (stream := self._streams.get(stream_id)) is not None:
            stream.end(EventName.REPLACED)

    async def _end_at_drain(self) -> None:
        await self._drain.wait()
        for stream in self:
            stream.end(EventName.RESTARTING)

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(self._settings.process_beat_s)
            await _attempted("process_beat_failed", self._slots.beat())

    async def _keep_checking_access(self) -> None:
        while True:
            spread = random.uniform(1 - ACCESS_CHECK_SPREAD, 1 + ACCESS_CHECK_SPREAD)  # noqa: S311
            await asyncio.sleep(self._settings.access_check_s * spread)
            await _attempted("access_unknown", self._check_access())

    async def _check_access(self) -> None:
        watched: dict[tuple[UUID, UUID | None], list[OpenStream]] = {}
        for stream in self:
            watched.setdefault((stream.login_id, stream.owner_id), []).append(stream)
        wanted = list(watched)
        for start in range(0, len(wanted), ACCESS_BATCH):
            batch = wanted[start : start + ACCESS_BATCH]
            async with connection_within(self._pool, ACCESS_CHECK_TIMEOUT_S) as connection:
                allowed = await self._may_still_see(connection, batch)
            for key, still in zip(batch, allowed, strict=True):
                if not still:
                    for stream in watched[key]:
                        stream.end(EventName.UNAUTHORIZED)


async def _attempted(failure: str, work: Coroutine[Any, Any, None]) -> None:
    """Do it, and live with a database that is away: it takes nobody's access and ends no stream."""
    try:
        await work
    except DATABASE_ERRORS as error:
        log.warning(failure, error=repr(error))
    except Exception:  # the next time may go better
        log.exception(failure)


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
