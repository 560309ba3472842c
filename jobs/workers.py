"""The `workers` table: which processes transcribe, with what, and when each was last heard of."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog

from jobs.database import CONNECT_ERRORS, Connection, Pool
from jobs.engines import understands

log = structlog.get_logger()

# For whoever asks about a session: of the worker that has it, and while it waits, of any.
WORKER_SEEN_AT = """CASE WHEN session.status = 'queued'
  THEN greatest(session.worker_seen_at, (SELECT max(seen_at) FROM workers))
  ELSE session.worker_seen_at END"""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process that transcribes."""

    id: str  # the lease owner of the sessions it works on
    host: str
    engine: str
    slots: int


def host_name() -> str:
    """What past runs on this machine are known by."""
    return socket.gethostname()


async def upsert_worker(db: Connection | Pool, worker: Worker) -> None:
    """Say that this worker is alive."""
    await db.execute(
        "INSERT INTO workers (id, host, engine, slots) VALUES ($1, $2, $3, $4) "
        "ON CONFLICT (id) DO UPDATE SET seen_at = now()",
        worker.id,
        worker.host,
        worker.engine,
        worker.slots,
    )


async def delete_worker(db: Connection | Pool, worker_id: str) -> None:
    await db.execute("DELETE FROM workers WHERE id = $1", worker_id)


async def select_live_workers(db: Connection | Pool, within_s: float) -> list[Worker]:
    """Those heard of in the last `within_s` seconds."""
    rows = await db.fetch(
        "SELECT id, host, engine, slots FROM workers "
        "WHERE seen_at > now() - make_interval(secs => $1) ORDER BY started_at, id",
        within_s,
    )
    return [Worker(*row.values()) for row in rows]


async def understood(db: Connection | Pool, language: str, within_s: float) -> bool:
    """Whether any worker heard of lately may know a language; True while there is none to ask."""
    names = {worker.engine for worker in await select_live_workers(db, within_s)}
    return not names or any(understands(name, language) for name in names)


async def select_worker_seen_at(db: Connection | Pool, session_id: UUID) -> datetime | None:
    """When the worker of a session, or while it waits any worker, was last heard of."""
    seen_at: datetime | None = await db.fetchval(
        f"SELECT {WORKER_SEEN_AT} FROM sessions AS session WHERE id = $1",  # noqa: S608
        session_id,
    )
    return seen_at


@asynccontextmanager
async def registered(pool: Pool, worker: Worker, every_s: float) -> AsyncIterator[None]:
    """Be known as a worker for the length of the block. A database that is away is waited for."""

    async def announce() -> None:
        while True:
            try:
                await upsert_worker(pool, worker)
            except CONNECT_ERRORS as error:
                log.warning("worker_not_announced", error=str(error))
            await asyncio.sleep(every_s)

    task = asyncio.create_task(announce(), name="worker-announcement")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        try:
            async with asyncio.timeout(1):
                await delete_worker(pool, worker.id)
        except CONNECT_ERRORS as error:
            log.warning("worker_not_signed_off", error=str(error))
