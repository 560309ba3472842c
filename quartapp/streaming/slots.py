"""Slots: how many streams one user may have, over all processes, decided by the database.

A slot is a row of `open_streams` under the row of its process in `web_processes`. A process renews
that one row, however many streams it has; when it dies, its slots expire with it. Takings and
releases go in batches, so that a thousand streams that come back together take one connection.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

import structlog

from jobs.database import DATABASE_ERRORS, Connection, Pool, connection_within
from quartapp.streaming.settings import StreamSettings

log = structlog.get_logger()

MAX_BATCH = 100
RETRY_S = 1.0
# A statement given up goes on for as long as it waits for something, and may then still succeed.
LOST_FOR_S = 300.0
STOP_TIMEOUT_S = 1.0

# Nothing is lost with a slot, so nobody waits for the disk.
TAKE = """
SELECT slot.taker, slot.refusal, slot.retry_after_s, slot.taken_over
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS relaxed,
     take_stream_slots($1::json, $2, $3, $4) AS slot
"""

RELEASE = """
WITH relaxed AS (
  SELECT set_config('synchronous_commit', 'off', true)
), closed AS (
  SELECT * FROM json_to_recordset($1::json) AS item (stream_id uuid, reason text, details json)
), kept AS (
  -- First, as whoever deletes a session does: in another order the two would wait for each other.
  SELECT sessions.id FROM sessions
  WHERE id IN (SELECT session_id FROM open_streams JOIN closed USING (stream_id))
  ORDER BY id FOR KEY SHARE
), released AS (
  DELETE FROM open_streams USING closed, relaxed
  WHERE open_streams.stream_id = closed.stream_id AND (SELECT count(*) FROM kept) IS NOT NULL
  RETURNING open_streams.*, closed.reason, closed.details
)
INSERT INTO stream_events (kind, user_id, session_id, stream_id, transport, reason, details)
SELECT 'disconnect', user_id, session_id, stream_id, transport, reason, details FROM released
"""

# Dead processes are kept for a while: one that was only cut off finds its slots again.
BEAT = """
WITH alive AS (
  INSERT INTO web_processes (process_id, expires_at)
  VALUES ($1, now() + make_interval(secs => $2))
  ON CONFLICT (process_id) DO UPDATE SET expires_at = excluded.expires_at
), dead AS (
  DELETE FROM web_processes WHERE expires_at < now() - interval '1 hour' AND process_id <> $1
), lost AS (
  DELETE FROM open_streams WHERE stream_id = ANY ($4::uuid[])
), old AS (
  DELETE FROM stream_events WHERE id IN (
    SELECT id FROM stream_events WHERE at < now() - make_interval(secs => $3)
    ORDER BY at LIMIT 1000)
)
SELECT stream_id FROM open_streams WHERE process_id = $1 AND replaced
"""


class Transport(StrEnum):
    """What carries a stream."""

    SSE = "sse"
    WEBSOCKET = "websocket"


class Refusal(StrEnum):
    """Why there is no slot."""

    OPENS = "opens"  # too many opened in the last minute
    STREAMS = "streams"  # too many open at a time
    GONE = "gone"  # the user or the session has been deleted meanwhile


class SlotRefused(Exception):
    """There is no slot; for `opens` with the seconds after which there may be one."""

    def __init__(self, refusal: Refusal, retry_after_s: float | None) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class SlotRequest:
    """A stream that wants a slot. `session_id` is None for the stream of all sessions."""

    stream_id: UUID
    user_id: UUID
    session_id: UUID | None
    client_id: str | None
    transport: Transport


@dataclass(frozen=True, slots=True)
class Release:
    """A stream that gives its slot back, and what is remembered of it."""

    stream_id: UUID
    reason: str
    details: dict[str, Any]


class StreamSlots:
    """The slots of one process."""

    def __init__(
        self,
        pool: Pool,
        settings: StreamSettings,
        process_id: str,
        on_replaced: Callable[[UUID], None],
    ) -> None:
        """`on_replaced` is told of a stream whose slot was taken over, perhaps more than once, and
        perhaps of one that has ended."""
        self._pool = pool
        self._settings = settings
        self._process_id = process_id
        self._on_replaced = on_replaced
        self._wanted: dict[SlotRequest, asyncio.Future[None]] = {}
        self._released: list[Release] = []
        # Asked for without an answer: the database may give these slots yet, and to nobody.
        self._lost: dict[UUID, float] = {}
        self._working: asyncio.Task[None] | None = None

    async def beat(self) -> None:
        """Say that this process lives. Raises what the database raises."""
        settings = self._settings
        async with self._connection() as connection:
            rows = await connection.fetch(
                BEAT,
                self._process_id,
                settings.process_expiry_s,
                settings.stream_events_retention_s,
                list(self._lost),
            )
        forgotten_at = asyncio.get_running_loop().time() - LOST_FOR_S
        self._lost = {key: at for key, at in self._lost.items() if at > forgotten_at}
        for row in rows:
            self._on_replaced(row["stream_id"])

    async def take(self, request: SlotRequest) -> None:
        """Take a slot; cancelled, none is taken. Raises SlotRefused, or as the database does."""
        answer = self._wanted[request] = asyncio.get_running_loop().create_future()
        self._work()
        try:
            await asyncio.shield(answer)
        except asyncio.CancelledError:
            if self._wanted.pop(request, None) is None:  # already asked for
                self.release(Release(request.stream_id, "client", {}))
            raise

    def release(self, release: Release) -> None:
        """Give a slot back. Does not wait; while the database is away it is tried again."""
        self._released.append(release)
        self._work()

    async def close(self) -> None:
        """Give all slots of this process back."""
        try:
            if self._working is not None:
                await asyncio.wait([self._working], timeout=STOP_TIMEOUT_S)
            async with connection_within(self._pool, STOP_TIMEOUT_S) as connection:
                await connection.execute(
                    "DELETE FROM web_processes WHERE process_id = $1", self._process_id
                )
        except DATABASE_ERRORS as error:  # they expire
            log.info("slots_not_released", error=repr(error))
        if self._working is not None:
            self._working.cancel()

    def _connection(self) -> AbstractAsyncContextManager[Connection]:
        return connection_within(self._pool, self._settings.read_timeout_s)

    def _work(self) -> None:
        if self._working is None:
            self._working = asyncio.create_task(self._work_off(), name="stream-slots")

    async def _work_off(self) -> None:
        try:
            while self._wanted or self._released:
                # Releases first: one who leaves and comes back has a slot again.
                released = self._released[:MAX_BATCH]
                if released and not await self._release(released) and not self._wanted:
                    await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311
                if self._wanted:
                    requests = list(self._wanted)[:MAX_BATCH]
                    await self._take({request: self._wanted.pop(request) for request in requests})
        finally:
            self._working = None

    async def _take(self, batch: dict[SlotRequest, asyncio.Future[None]]) -> None:
        by_id = {request.stream_id: answer for request, answer in batch.items()}
        try:
            async with self._connection() as connection:
                rows = await connection.fetch(
                    TAKE,
                    _json([asdict(request) for request in batch]),
                    self._process_id,
                    self._settings.streams_per_user,
                    self._settings.stream_opens_per_minute,
                )
        except Exception as error:  # each asker gets it, and decides
            self._lost |= dict.fromkeys(by_id, asyncio.get_running_loop().time())
            for answer in batch.values():
                answer.set_exception(error)
                answer.exception()  # whoever asked may have left
            return
        for stream_id, refusal, retry_after_s, taken_over in rows:
            answer = by_id[stream_id]
            if refusal is None:
                answer.set_result(None)
            else:
                answer.set_exception(SlotRefused(Refusal(refusal), retry_after_s))
                answer.exception()
            for old in taken_over:
                self._on_replaced(old)

    async def _release(self, batch: Sequence[Release]) -> bool:
        try:
            async with self._connection() as connection:
                await connection.execute(RELEASE, _json([asdict(release) for release in batch]))
        except DATABASE_ERRORS as error:
            log.info("slots_not_released", streams=len(batch), error=repr(error))
            return False
        del self._released[: len(batch)]
        return True


def _json(rows: list[dict[str, Any]]) -> str:
    return json.dumps(rows, default=str)
