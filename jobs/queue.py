"""The task queue: SAQ's Postgres queue. Its tables are known here and in `turns` alone."""

from __future__ import annotations

import asyncio
import json
from typing import ClassVar
from uuid import UUID

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from saq.job import Job, Status
from saq.queue.postgres import PostgresQueue
from saq.queue.postgres_migrations import get_migrations

from jobs.database import (
    APPLICATION_NAME,
    DIRECT_SETTINGS,
    IDLE_TRANSACTION_TIMEOUT,
    Connection,
    Pool,
)
from jobs.settings import JobSettings
from jobs.turns import WAITING

QUEUE_NAME = "transcribe"
FUNCTION_NAME = "transcribe"
UPKEEP = "upkeep"  # queue and function

# Lower comes first. A recording that was interrupted goes on before new ones are begun.
PRIORITY_RESUMED = 0
PRIORITY_SHORT = 5
PRIORITY_NORMAL = 10

# From fetching a job to claiming its session; after that it is taken for lost.
BEGIN_WITHIN_S = 10
FINISHED_JOB_TTL_S = 3600

# SAQ holds its own migration lock for the life of a connection; another key space keeps us free of
# the locks of processes that run an older version.
MIGRATION_KEYSPACE = 0x5351

# Connections beyond one for each running job: polling, heartbeats and upkeep.
SPARE_CONNECTIONS = 2


def job_key(session_id: UUID, attempt: int) -> str:
    """Unique for each attempt, so that a stale job can never hold back a new one."""
    return f"{FUNCTION_NAME}:{session_id}:{attempt}"


async def insert_job(
    db: Connection,
    session_id: UUID,
    attempt: int,
    *,
    priority: int = PRIORITY_NORMAL,
    delay_s: float = 0.0,
    timeout_s: int,
) -> bool:
    """Enqueue one attempt inside the caller's transaction. False if it is there already.

    SAQ's own enqueue uses another connection, and so cannot be one transaction with the session's
    row; this writes what it would write (a test compares the two, for the pinned version). All but
    the times: they are the database's, by which it is decided what is due.
    """
    job = Job(
        function=FUNCTION_NAME,
        kwargs={"session_id": str(session_id), "attempt": attempt},
        key=job_key(session_id, attempt),
        timeout=timeout_s,
        retries=2,  # of one whose session could not be claimed, since the database was away
        ttl=FINISHED_JOB_TTL_S,
        status=Status.QUEUED,
        priority=priority,
    )
    blob = json.dumps(job.to_dict() | {"queue": QUEUE_NAME})
    inserted = await db.fetchval(
        "INSERT INTO saq_jobs (key, job, queue, status, priority, scheduled) "
        "SELECT $1, convert_to(($2::jsonb || jsonb_build_object("
        "    'queued', floor(now_s * 1000)::bigint, 'scheduled', due_s))::text, 'UTF8'), "
        "  $3, 'queued', $4, due_s "
        "FROM (SELECT extract(epoch FROM clock_timestamp()) AS now_s) AS clock "
        "CROSS JOIN LATERAL (SELECT floor(now_s + $5::float)::bigint AS due_s) AS due "
        "ON CONFLICT (key) DO NOTHING RETURNING true",
        job.key,
        blob,
        QUEUE_NAME,
        priority,
        delay_s,
    )
    await db.execute("SELECT pg_notify($1, 'saq:enqueue')", f"saq:{QUEUE_NAME}")
    return bool(inserted)


async def delete_queued_jobs(db: Connection, session_id: UUID) -> None:
    """Take back the jobs of a session that have not begun."""
    await db.execute(
        "DELETE FROM saq_jobs WHERE queue = $1 AND status = 'queued' AND key LIKE $2",
        QUEUE_NAME,
        f"{FUNCTION_NAME}:{session_id}:%",
    )


# In the queue, or fetched a moment ago and on its way to begin its session. One that stays fetched
# was taken by a process that died with it. SAQ notes the time once more when it begins, by a clock
# that may be ahead.
AT_HAND = f"""(job.status = 'queued' OR job.status = 'active'
  AND abs((convert_from(job.job, 'UTF8')::jsonb ->> 'started')::bigint
    - extract(epoch FROM clock_timestamp()) * 1000) < {BEGIN_WITHIN_S * 1000})"""


async def select_job_waiting(db: Connection, session_id: UUID, attempt: int) -> bool:
    """Whether the job of this attempt is in the queue or about to begin."""
    waiting: bool = await db.fetchval(
        f"SELECT EXISTS (SELECT FROM saq_jobs AS job WHERE key = $1 AND {AT_HAND})",  # noqa: S608
        job_key(session_id, attempt),
    )
    return waiting


async def select_sessions_without_job(db: Connection | Pool, *, older_than_s: float) -> list[UUID]:
    """Queued sessions whose job is lost, or was taken by a process that died with it."""
    rows = await db.fetch(
        "SELECT id FROM sessions AS session WHERE status = 'queued' "  # noqa: S608
        "AND queued_at < now() - make_interval(secs => $1) "
        f"AND NOT EXISTS (SELECT FROM saq_jobs AS job WHERE {AT_HAND} "
        "  AND key = $2 || ':' || session.id || ':' || session.attempt)",
        older_than_s,
        FUNCTION_NAME,
    )
    return [row["id"] for row in rows]


async def delete_stale_jobs(db: Connection | Pool) -> int:
    """Take out of the queue what no session waits for: SAQ puts a job back when its worker stops,
    beside the new one that the session has by then, and keeps that of a worker that was lost.
    Returns how many; one that a process has locked is left for later."""
    done: str = await db.execute(
        "DELETE FROM saq_jobs WHERE key = ANY (ARRAY("
        "  SELECT key FROM saq_jobs AS job WHERE queue = $1 AND status IN ('queued', 'active') "
        "  AND key LIKE $2 || ':%' AND NOT EXISTS (SELECT FROM sessions AS session "
        "    WHERE session.status IN ('queued', 'processing') "
        "    AND (session.status = 'queued' OR job.status = 'active') "
        "    AND job.key = $2 || ':' || session.id || ':' || session.attempt) "
        "  FOR UPDATE OF job SKIP LOCKED))",
        QUEUE_NAME,
        FUNCTION_NAME,
    )
    return int(done.rsplit(maxsplit=1)[-1])


async def _end_idle_transactions(connection: AsyncConnection) -> None:
    """SAQ writes in transactions; a process that stands still in one would keep its locks."""
    timeout = DIRECT_SETTINGS[IDLE_TRANSACTION_TIMEOUT]
    setting = (IDLE_TRANSACTION_TIMEOUT, timeout)
    await connection.execute("SELECT set_config(%s, %s, false)", setting)


def queue_pool(dsn: str, settings: JobSettings) -> AsyncConnectionPool:
    """A pool for SAQ (not opened). Single use: a worker started again needs a new one."""
    return AsyncConnectionPool(
        dsn,
        min_size=2,
        max_size=settings.job_slots + SPARE_CONNECTIONS,
        open=False,
        timeout=settings.database_timeout_s,
        check=AsyncConnectionPool.check_connection,
        configure=None if settings.pooled else _end_idle_transactions,
        kwargs={
            "autocommit": True,
            "prepare_threshold": None,  # safe behind a transaction pooler
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 30000,
            "application_name": f"{APPLICATION_NAME}-queue",
        },
    )


# One statement, so that a process which freezes in the middle holds no lock on a job. The times are
# those that SAQ notes when it fetches, by which it tells a job whose process has died; by the
# database's clock, with which we compare them.
BEGIN = """
WITH next AS (
  SELECT job.key FROM saq_jobs AS job {order}
  LIMIT 1
  FOR UPDATE OF job SKIP LOCKED
)
UPDATE saq_jobs SET status = 'active', job = convert_to((
  convert_from(job, 'UTF8')::jsonb || jsonb_build_object('status', 'active',
    'started', (extract(epoch FROM now()) * 1000)::bigint,
    'touched', (extract(epoch FROM now()) * 1000)::bigint))::text, 'UTF8')
FROM next WHERE saq_jobs.key = next.key
RETURNING job
"""
BEGIN_NEXT_TURN = BEGIN.format(
    order=f"""
  JOIN ({WAITING}) AS waiting USING (key)
  WHERE job.status = 'queued' AND job.queue = %(queue)s AND waiting.due
  ORDER BY waiting.position"""
)
BEGIN_NEXT_DUE = BEGIN.format(
    order="""
  WHERE job.status = 'queued' AND job.queue = %(queue)s
    AND job.scheduled <= extract(epoch FROM clock_timestamp())::bigint
  ORDER BY job.priority, job.scheduled"""
)


class PolledQueue(PostgresQueue):
    """SAQ's queue with slots that ask for one job at a time, by the statement `begin_next`.

    SAQ fetches as many jobs as it believes slots to be waiting, counting some twice: jobs then lie
    in the memory of a busy process, marked active, while another process has nothing to do.
    """

    begin_next: ClassVar[str]

    def __init__(self, pool: AsyncConnectionPool, name: str, keyspace: int = 0) -> None:
        super().__init__(pool=pool, name=name, saq_lock_keyspace=keyspace)
        self._asking = asyncio.Lock()

    async def dequeue(self, timeout: float = 0.0, poll_interval: float = 0.0) -> Job | None:
        """The next job for this slot, looked for every `poll_interval` seconds. None when the
        worker stops, which SAQ does by cancelling."""
        try:
            async with self._asking:
                while self._connected:
                    if (job := await self._begin_next()) is not None:
                        return job
                    await asyncio.sleep(poll_interval)
        except asyncio.CancelledError:
            pass
        return None

    async def _begin_next(self) -> Job | None:
        async with self.pool.connection() as connection:
            cursor = await connection.execute(self.begin_next, {"queue": self.name})
            row = await cursor.fetchone()
        return None if row is None else self.deserialize(row[0], Status.ACTIVE)

    async def sweep(self, lock: int = 60, abort: float = 5.0) -> list[str]:
        """What finished long ago, and what takes too long. Not under SAQ's lock, which lasts as
        long as a connection: a process that stands still would keep all others from it."""
        self._has_sweep_lock = True
        return await super().sweep(lock, abort)

    async def schedule(self, lock: int = 1) -> list[str]:
        """Nothing: it would be a second way to fetch jobs."""
        return []


class TurnQueue(PolledQueue):
    """The recordings, in the order of `turns`: SAQ knows no users."""

    begin_next = BEGIN_NEXT_TURN

    def __init__(self, pool: AsyncConnectionPool, keyspace: int = 0) -> None:
        super().__init__(pool, QUEUE_NAME, keyspace)


class UpkeepQueue(PolledQueue):
    """Upkeep, apart from the recordings: it waits behind none and takes no slot of theirs."""

    begin_next = BEGIN_NEXT_DUE

    def __init__(self, pool: AsyncConnectionPool) -> None:
        super().__init__(pool, UPKEEP)


async def migrate_queue(dsn: str) -> None:
    """Create or upgrade SAQ's tables. The caller holds our migration lock: SAQ's own start-up does
    not wait for another's, and would go on without tables."""
    pool = AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False, kwargs={"autocommit": True})
    queue = TurnQueue(pool, MIGRATION_KEYSPACE)
    await pool.open(wait=True, timeout=30)
    try:
        if await _queue_version(pool) != queue_schema_version(queue):
            await queue.init_db()
    finally:
        await pool.close()


def queue_schema_version(queue: PostgresQueue) -> int:
    """The version of SAQ's schema that the installed SAQ expects."""
    migrations = get_migrations(jobs_table=queue.jobs_table, stats_table=queue.stats_table)
    return migrations[-1][0]


async def _queue_version(pool: AsyncConnectionPool) -> int | None:
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT to_regclass('saq_versions') IS NOT NULL")
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return None
        cursor = await connection.execute("SELECT max(version) FROM saq_versions")
        row = await cursor.fetchone()
        return None if row is None else row[0]
