"""What we take from SAQ, held against the pinned version."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from saq.job import Job, Status

from jobs.database import Pool
from jobs.errors import EngineError
from jobs.lifecycle import Lifecycle, Outcome
from jobs.publisher import StatusPublisher
from jobs.queue import (
    BEGIN_WITHIN_S,
    FUNCTION_NAME,
    TurnQueue,
    delete_stale_jobs,
    insert_job,
    job_key,
    queue_pool,
    select_sessions_without_job,
)
from jobs.recovery import recover_lost, run_recovery
from jobs.statuses import select_latest_status
from jobs.turns import select_turns
from quartapp.settings import WebSettings
from tests.people import make_user, new_session


@pytest.fixture
async def queue(dsn: str, settings: WebSettings) -> AsyncIterator[TurnQueue]:
    async with queue_pool(dsn, settings) as pool:
        queue = TurnQueue(pool)
        await queue.connect()
        yield queue
        await queue.disconnect()


@pytest.fixture
def lifecycle(pool: Pool, settings: WebSettings) -> Lifecycle:
    return Lifecycle(pool, StatusPublisher(pool), settings)


@dataclass(frozen=True)
class FaultyAtFirst(Lifecycle):
    """One that fails in a way nobody foresaw, once."""

    asked: list[UUID] = field(default_factory=list)

    async def recover(self, session_id: UUID) -> bool:
        self.asked.append(session_id)
        if len(self.asked) == 1:
            raise KeyError(session_id)
        return await super().recover(session_id)


async def note_started(pool: Pool, at: float) -> None:
    """Have the jobs say that they were fetched then."""
    await pool.execute(
        "UPDATE saq_jobs SET job = convert_to((convert_from(job, 'UTF8')::jsonb "
        "|| jsonb_build_object('started', $1::bigint))::text, 'UTF8')",
        int(at * 1000),
    )


async def enqueue(pool: Pool, session_id: UUID, attempt: int = 1, **more: float) -> bool:
    async with pool.acquire() as connection:
        return await insert_job(connection, session_id, attempt, timeout_s=3600, **more)  # type: ignore[arg-type]


async def test_our_row_is_the_row_saq_would_write(queue: TurnQueue, pool: Pool) -> None:
    ours, theirs = uuid4(), uuid4()
    assert await enqueue(pool, ours)
    await queue.enqueue(
        Job(
            function=FUNCTION_NAME,
            kwargs={"session_id": str(theirs), "attempt": 1},
            key=job_key(theirs, 1),
            timeout=3600,
            retries=2,
            ttl=3600,
            priority=10,
        )
    )
    rows = await pool.fetch("SELECT * FROM saq_jobs ORDER BY lock_key")
    plain = []
    for row, session_id in zip(rows, (ours, theirs), strict=True):
        fields = dict(row)
        blob = json.loads(fields.pop("job"))
        for volatile in ("queued", "scheduled"):
            blob.pop(volatile, None)
        text = json.dumps(blob).replace(str(session_id), "ID")
        fields |= {"job": json.loads(text), "key": fields["key"].replace(str(session_id), "ID")}
        fields.pop("lock_key")
        assert abs(fields.pop("scheduled") - rows[0]["scheduled"]) <= 2
        plain.append(fields)
    assert plain[0] == plain[1]


async def test_saq_reads_our_row_back(queue: TurnQueue, pool: Pool) -> None:
    session_id = uuid4()
    await enqueue(pool, session_id)
    job = await queue.job(job_key(session_id, 1))
    assert job is not None
    assert (job.function, job.status, job.retries) == (FUNCTION_NAME, Status.QUEUED, 2)
    assert job.kwargs == {"session_id": str(session_id), "attempt": 1}


async def test_an_attempt_is_enqueued_once(pool: Pool) -> None:
    session_id = uuid4()
    assert await enqueue(pool, session_id)
    assert not await enqueue(pool, session_id)
    assert await enqueue(pool, session_id, 2)


async def test_a_slot_takes_one_job_and_leaves_the_rest_to_others(
    queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
) -> None:
    for _ in range(5):
        await lifecycle.create(new_session(await make_user(pool)))
    jobs = await asyncio.gather(*(queue.dequeue(poll_interval=0.01) for _ in range(2)))
    assert all(job is not None and job.status is Status.ACTIVE for job in jobs)
    active = await pool.fetchval("SELECT count(*) FROM saq_jobs WHERE status = 'active'")
    assert active == 2


async def test_a_job_that_is_taken_reads_as_one_that_saq_took(
    queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
) -> None:
    session = await lifecycle.create(new_session(await make_user(pool)))
    taken = await queue.dequeue(poll_interval=0.01)
    stored = await queue.job(job_key(session.id, 1))
    assert taken is not None
    assert stored is not None
    assert taken.to_dict() == stored.to_dict()
    assert (stored.status, stored.attempts) == (Status.ACTIVE, 0)
    assert abs(stored.touched - time.time() * 1000) < 60_000
    assert stored.started == stored.touched
    assert not stored.stuck


async def test_a_cancelled_wait_takes_nothing(
    queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
) -> None:
    waiting = asyncio.create_task(queue.dequeue(poll_interval=0.01))
    await asyncio.sleep(0.05)
    waiting.cancel()
    assert await waiting is None
    await lifecycle.create(new_session(await make_user(pool)))
    assert await pool.fetchval("SELECT status FROM saq_jobs") == "queued"


async def test_what_no_session_waits_for_is_not_begun_and_is_taken_away(
    queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
) -> None:
    """As SAQ leaves it when its worker stops: the old job is queued again beside the new one."""
    session = await lifecycle.create(new_session(await make_user(pool)))
    old = await queue.dequeue(poll_interval=0.01)
    await lifecycle.claim(session.id, 1, "owner", "engine")
    assert await lifecycle.release(session.id, 1, "owner")
    assert old is not None
    await old.retry("cancelled")
    assert await pool.fetchval("SELECT count(*) FROM saq_jobs WHERE status = 'queued'") == 2
    assert await delete_stale_jobs(pool) == 1
    assert await delete_stale_jobs(pool) == 0
    new = await queue.dequeue(poll_interval=0.01)
    assert new is not None
    assert new.key == job_key(session.id, 2)


async def test_a_job_is_due_by_the_clock_of_the_database(
    pool: Pool, lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would wait for as long as the clock of the host that took the upload is ahead."""
    owner_id = await make_user(pool)
    ahead = time.time() + 3600
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: ahead)
        session = await lifecycle.create(new_session(owner_id))
        delayed = uuid4()
        await enqueue(pool, delayed, delay_s=60.0)
    (turn,) = await select_turns(pool, None)
    assert (turn.session_id, turn.due) == (session.id, True)
    wait_s = await pool.fetchval(
        "SELECT scheduled - extract(epoch FROM now())::float FROM saq_jobs WHERE key = $1",
        job_key(delayed, 1),
    )
    assert 30 < wait_s <= 61


async def test_a_job_of_a_long_attempt_is_not_taken_for_one_that_is_lost(
    queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
) -> None:
    """However long the lease, and whatever the clocks: the lease alone decides."""
    session = await lifecycle.create(new_session(await make_user(pool)))
    job = await queue.dequeue(poll_interval=0.01)
    assert job is not None
    job.touched = job.started = int((time.time() - 3000) * 1000)
    await queue._update(job, Status.ACTIVE)
    await lifecycle.claim(session.id, 1, "owner", "engine")
    assert await queue.sweep() == []
    assert await delete_stale_jobs(pool) == 0
    assert await pool.fetchval("SELECT status FROM saq_jobs") == "active"


async def test_the_job_of_a_worker_that_was_lost_is_taken_away(
    queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
) -> None:
    session = await lifecycle.create(new_session(await make_user(pool)))
    assert await queue.dequeue(poll_interval=0.01) is not None
    assert await delete_stale_jobs(pool) == 0, "it may be about to begin"
    await lifecycle.claim(session.id, 1, "owner", "engine")
    await pool.execute("UPDATE sessions SET lease_until = now() - interval '1 hour'")
    assert await lifecycle.recover(session.id)
    assert await delete_stale_jobs(pool) == 1
    assert await pool.fetchval("SELECT key FROM saq_jobs") == job_key(session.id, 2)


async def test_a_process_that_stands_still_in_a_transaction_of_the_queue_holds_up_nobody(
    queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
) -> None:
    session = await lifecycle.create(new_session(await make_user(pool)))
    assert await queue.dequeue(poll_interval=0.01) is not None
    async with queue.pool.connection() as frozen, frozen.transaction():
        await frozen.execute("UPDATE saq_jobs SET priority = 0")
        await lifecycle.cancel(session.id)
        async with asyncio.timeout(5):
            assert await delete_stale_jobs(pool) == 0, "left for later"
        cursor = await frozen.execute("SHOW idle_in_transaction_session_timeout")
        assert await cursor.fetchone() == ("10s",)
    assert await delete_stale_jobs(pool) == 1


async def test_old_jobs_are_swept_while_another_process_stands_still(
    queue: TurnQueue, pool: Pool
) -> None:
    """As it would with SAQ's lock in its hands."""
    await enqueue(pool, uuid4())
    await pool.execute("UPDATE saq_jobs SET status = 'complete', expire_at = 1")
    async with pool.acquire() as frozen:
        await frozen.execute(
            "SELECT pg_advisory_lock($1, hashtext($2))", queue.saq_lock_keyspace, queue.name
        )
        await queue.sweep()
        assert await pool.fetchval("SELECT count(*) FROM saq_jobs") == 0
        await frozen.execute("SELECT pg_advisory_unlock_all()")


class TestRecovery:
    async def test_a_session_whose_job_is_lost_gets_another(
        self, pool: Pool, lifecycle: Lifecycle, settings: WebSettings
    ) -> None:
        session = await lifecycle.create(new_session(await make_user(pool)))
        await pool.execute("UPDATE saq_jobs SET status = 'active'")
        assert await recover_lost(pool, settings, lifecycle) == 0, "it may be about to begin"
        await pool.execute("UPDATE sessions SET queued_at = now() - interval '1 minute'")
        assert await recover_lost(pool, settings, lifecycle) == 1
        assert await recover_lost(pool, settings, lifecycle) == 0
        latest = await select_latest_status(pool, session.id)
        assert latest is not None
        assert (latest.fields()["status"], latest.fields()["attempt"]) == ("queued", 2)
        assert latest.fields()["message"] == "Waiting for its turn"
        (turn,) = await select_turns(pool, None)
        assert (turn.session_id, turn.attempt, turn.position) == (session.id, 2, 1)

    async def test_one_that_waits_in_the_queue_is_left_alone(
        self, pool: Pool, lifecycle: Lifecycle, settings: WebSettings
    ) -> None:
        await lifecycle.create(new_session(await make_user(pool)))
        await pool.execute("UPDATE sessions SET queued_at = now() - interval '1 day'")
        assert await select_sessions_without_job(pool, older_than_s=1) == []
        assert await recover_lost(pool, settings, lifecycle) == 0

    async def test_one_that_is_about_to_begin_is_left_alone_for_a_while(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle, settings: WebSettings
    ) -> None:
        """Its job has been fetched, and it has not been claimed."""
        session = await lifecycle.create(new_session(await make_user(pool)))
        await pool.execute("UPDATE sessions SET queued_at = now() - interval '1 day'")
        assert await queue.dequeue(poll_interval=0.01) is not None
        assert await recover_lost(pool, settings, lifecycle) == 0
        assert not await lifecycle.recover(session.id)
        await note_started(pool, time.time() - BEGIN_WITHIN_S - 1)
        assert await recover_lost(pool, settings, lifecycle) == 1, "who fetched it has died"

    async def test_one_fetched_by_a_host_whose_clock_was_ahead_is_found_as_soon(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle, settings: WebSettings
    ) -> None:
        await lifecycle.create(new_session(await make_user(pool)))
        await pool.execute("UPDATE sessions SET queued_at = now() - interval '1 day'")
        assert await queue.dequeue(poll_interval=0.01) is not None
        await note_started(pool, time.time() + 3600)
        assert await recover_lost(pool, settings, lifecycle) == 1

    async def test_a_fault_nobody_foresaw_does_not_end_it(
        self, pool: Pool, lifecycle: Lifecycle, settings: WebSettings
    ) -> None:
        session = await lifecycle.create(new_session(await make_user(pool)))
        await lifecycle.claim(session.id, 1, "owner", "engine")
        await pool.execute("UPDATE sessions SET lease_until = now() - interval '1 hour'")
        brief = settings.model_copy(update={"recovery_interval_s": 0.02, "lease_s": 0.001})
        faulty = FaultyAtFirst(pool, StatusPublisher(pool), brief)
        recovery = asyncio.create_task(run_recovery(pool, brief, faulty))
        try:
            async with asyncio.timeout(60):
                while True:  # until the job of the first attempt is taken away for that of another
                    assert not recovery.done()
                    keys = [row["key"] for row in await pool.fetch("SELECT key FROM saq_jobs")]
                    if keys == [job_key(session.id, 2)]:
                        break
                    await asyncio.sleep(0.02)
        finally:
            recovery.cancel()
            await asyncio.wait([recovery])
        assert faulty.asked[:2] == [session.id] * 2

    async def test_a_retry_by_its_user_begins_with_a_clean_record(
        self, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        session = await lifecycle.create(new_session(await make_user(pool)))
        await lifecycle.claim(session.id, 1, "owner", "engine")
        await pool.execute("UPDATE sessions SET failures = 2, interruptions = 19")
        await lifecycle.fail(session.id, 1, "owner", EngineError("It failed."))
        assert await lifecycle.restart(session.id) is Outcome.DONE
        (row,) = await pool.fetch("SELECT failures, interruptions, started_at FROM sessions")
        assert tuple(row) == (0, 0, None), "the time it takes counts from the retry too"

    async def test_what_is_lost_again_and_again_waits_and_ends(
        self, pool: Pool, lifecycle: Lifecycle, settings: WebSettings
    ) -> None:
        """What takes down whoever works on it shall not do so all the time, nor for ever."""
        brief = settings.model_copy(update={"max_interruptions": 4, "lease_s": 0.001})
        lifecycle = Lifecycle(pool, StatusPublisher(pool), brief)
        session = await lifecycle.create(new_session(await make_user(pool)))
        due = []
        for attempt in range(1, 5):
            await lifecycle.claim(session.id, attempt, "owner", "engine")
            await pool.execute("UPDATE sessions SET lease_until = now() - interval '1 hour'")
            assert await recover_lost(pool, brief, lifecycle) == 1
            due += [turn.due for turn in await select_turns(pool, 1)]
        assert due == [True, True, False]
        latest = await select_latest_status(pool, session.id)
        assert latest is not None
        assert latest.fields()["error"]["code"] == "worker_lost"

    async def test_one_whose_worker_was_heard_of_meanwhile_is_left_alone(
        self, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        """Between the look that found it lost and the lock on its row."""
        session = await lifecycle.create(new_session(await make_user(pool)))
        await lifecycle.claim(session.id, 1, "owner", "engine")
        assert not await lifecycle.recover(session.id)
        latest = await select_latest_status(pool, session.id)
        assert latest is not None
        assert latest.fields()["status"] == "processing"

    async def test_what_two_processes_find_is_recovered_once(
        self, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        session = await lifecycle.create(new_session(await make_user(pool)))
        await pool.execute("UPDATE saq_jobs SET status = 'active'")
        outcomes = await asyncio.gather(*(lifecycle.recover(session.id) for _ in range(4)))
        assert sorted(outcomes) == [False, False, False, True]
        queued = await pool.fetchval("SELECT count(*) FROM saq_jobs WHERE status = 'queued'")
        assert queued == 1

    async def test_after_a_start_of_the_database_workers_get_a_lease_to_return(
        self, pool: Pool, lifecycle: Lifecycle, settings: WebSettings
    ) -> None:
        session = await lifecycle.create(new_session(await make_user(pool)))
        await lifecycle.claim(session.id, 1, "owner", "engine")
        await pool.execute("UPDATE sessions SET lease_until = now() - interval '1 hour'")
        patient = settings.model_copy(update={"lease_s": 1e6})
        assert await recover_lost(pool, patient, lifecycle) == 0
        impatient = settings.model_copy(update={"lease_s": 0.001})
        assert await recover_lost(pool, impatient, lifecycle) == 1
