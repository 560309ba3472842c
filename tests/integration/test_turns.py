"""Whose recording comes next, as the queue begins them and as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from saq.job import Job

from jobs.database import Pool
from jobs.errors import EngineError
from jobs.forecast import MAX_RUNS, Pace, Run
from jobs.lifecycle import Lifecycle
from jobs.publisher import StatusPublisher
from jobs.queue import TurnQueue, queue_pool
from jobs.runs import insert_run, select_pace
from jobs.statuses import select_latest_status, select_statuses_after
from jobs.turns import select_turns
from jobs.waiting import select_outlook, tell_waiting
from jobs.workers import Worker, upsert_worker
from quartapp.settings import WebSettings
from tests.people import make_user, new_session

ALIVE_S = 20.0


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


async def uploads(
    pool: Pool, lifecycle: Lifecycle, count: int, duration_s: float | None = 60.0
) -> list[UUID]:
    """So many recordings of one user, one after the other."""
    owner_id = await make_user(pool)
    return [(await lifecycle.create(new_session(owner_id, duration_s))).id for _ in range(count)]


async def told_order(pool: Pool) -> list[UUID]:
    turns = await select_turns(pool, None)
    assert [turn.position for turn in turns] == list(range(1, len(turns) + 1))
    return [turn.session_id for turn in turns]


async def begin_next(queue: TurnQueue, lifecycle: Lifecycle) -> UUID:
    """As a worker does: fetch a job and claim its session."""
    job = await queue.dequeue(poll_interval=0.01)
    assert job is not None
    return await claimed(lifecycle, job)


async def claimed(lifecycle: Lifecycle, job: Job) -> UUID:
    assert job.kwargs is not None
    session_id = UUID(job.kwargs["session_id"])
    assert await lifecycle.claim(session_id, job.kwargs["attempt"], "worker", "engine")
    return session_id


async def begun_order(queue: TurnQueue, lifecycle: Lifecycle, pool: Pool) -> list[UUID]:
    """In which order they begin when one runs at a time."""
    order = []
    while await select_turns(pool, 1):
        order.append(await begin_next(queue, lifecycle))
        await lifecycle.cancel(order[-1])
    return order


async def message_of(pool: Pool, session_id: UUID) -> Any:
    latest = await select_latest_status(pool, session_id)
    assert latest is not None
    return latest.fields()


async def wait_already(pool: Pool) -> None:
    """Nobody is told anything in the first seconds."""
    await pool.execute("UPDATE sessions SET queued_at = now() - interval '10 s'")


class TestOrder:
    async def test_one_user_alone_is_served_in_the_order_of_arrival(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        made = await uploads(pool, lifecycle, 5)
        assert await told_order(pool) == made
        assert await begun_order(queue, lifecycle, pool) == made

    async def test_users_take_turns(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        many = await uploads(pool, lifecycle, 5)
        one = await uploads(pool, lifecycle, 1)
        two = await uploads(pool, lifecycle, 2)
        expected = [many[0], one[0], two[0], many[1], two[1], *many[2:]]
        assert await told_order(pool) == expected
        assert await begun_order(queue, lifecycle, pool) == expected

    async def test_who_comes_later_does_not_put_off_a_turn(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        """Or a stream of new users would leave one with two recordings waiting for ever."""
        first, second, third = await uploads(pool, lifecycle, 3)
        assert await begin_next(queue, lifecycle) == first
        await lifecycle.cancel(first)
        (late,) = await uploads(pool, lifecycle, 1)
        assert await told_order(pool) == [second, late, third]
        assert await begun_order(queue, lifecycle, pool) == [second, late, third]

    async def test_one_fetched_and_not_yet_claimed_is_a_turn_taken(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        many = await uploads(pool, lifecycle, 3)
        (one,) = await uploads(pool, lifecycle, 1)
        fetched = await queue.dequeue(poll_interval=0.01)
        assert fetched is not None
        assert await told_order(pool) == [one, *many[1:]]

    @pytest.mark.parametrize(
        ("arrivals", "interrupted"),
        [
            ("AAAABCCCDD", 0),
            ("ABBACBACCA", 0),
            ("CBBAAACBDD", 2),
            ("ABBACCBABC", 4),
        ],
    )
    async def test_a_beginning_changes_no_other_place(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle, arrivals: str, interrupted: int
    ) -> None:
        """Or two processes that fetch at the same moment would disagree."""
        owners = {user: await make_user(pool) for user in sorted(set(arrivals))}
        for user in arrivals:
            await lifecycle.create(new_session(owners[user], 60.0))
        begun = [await begin_next(queue, lifecycle) for _ in range(interrupted)]
        for session_id in begun:
            assert await lifecycle.release(session_id, 1, "worker")
        order = await told_order(pool)
        for index in range(len(order)):
            assert await told_order(pool) == order[index:]
            fetched = await queue.dequeue(poll_interval=0.01)
            assert fetched is not None
            assert await told_order(pool) == order[index + 1 :]
            assert await claimed(lifecycle, fetched) == order[index]

    async def test_an_interrupted_one_goes_on_first(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        first, second = await uploads(pool, lifecycle, 2)
        (other,) = await uploads(pool, lifecycle, 1)
        assert await begin_next(queue, lifecycle) == first
        assert await lifecycle.release(first, 1, "worker")
        assert await told_order(pool) == [first, other, second]
        assert await begin_next(queue, lifecycle) == first

    async def test_one_that_is_not_due_waits_behind_all_that_are(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        first, second = await uploads(pool, lifecycle, 2)
        assert await begin_next(queue, lifecycle) == first
        assert await lifecycle.retry_after_failure(first, 1, "worker", EngineError("It failed."))
        assert await told_order(pool) == [second, first]
        assert await begin_next(queue, lifecycle) == second
        assert await queue._begin_next() is None
        await pool.execute("UPDATE saq_jobs SET scheduled = scheduled - 60")
        assert await begin_next(queue, lifecycle) == first

    async def test_short_ones_first_where_the_settings_say_so(
        self, queue: TurnQueue, pool: Pool, settings: WebSettings
    ) -> None:
        preferring = settings.model_copy(update={"short_audio_s": 120.0})
        for chosen, expected in ((settings, [0, 1, 2, 3]), (preferring, [1, 0, 2, 3])):
            lifecycle = Lifecycle(pool, StatusPublisher(pool), chosen)
            made = [
                (await uploads(pool, lifecycle, 1, duration_s))[0]
                for duration_s in (600.0, 120.0, 120.1, None)
            ]
            assert await told_order(pool) == [made[index] for index in expected]
            assert sorted(await begun_order(queue, lifecycle, pool)) == sorted(made)


class TestTelling:
    async def worker(self, pool: Pool, slots: int = 1) -> None:
        await upsert_worker(pool, Worker("worker", "here", "engine", slots))

    async def ground(self, pool: Pool, session_id: UUID) -> None:
        """Past runs: 2 s to set up, then 0.5 s for a second of audio."""
        for _ in range(3):
            run = Run("here", audio_s=100.0, setup_s=2.0, wall_s=52.0)
            await insert_run(pool, session_id, 1, "engine", run, None)

    async def test_each_is_told_its_place_and_again_only_when_it_changes(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        await self.worker(pool)
        made = await uploads(pool, lifecycle, 3)
        assert await tell_waiting(pool, lifecycle, alive_s=ALIVE_S) == 0, "it begins in a moment"
        await wait_already(pool)
        assert await tell_waiting(pool, lifecycle, alive_s=ALIVE_S) == 3
        messages = [(await message_of(pool, each))["message"] for each in made]
        assert messages == [
            "Next in line",
            "Waiting for its turn: 1 before it",
            "Waiting for its turn: 2 before it",
        ]
        assert await tell_waiting(pool, lifecycle, alive_s=ALIVE_S) == 0
        await begin_next(queue, lifecycle)
        assert await tell_waiting(pool, lifecycle, alive_s=ALIVE_S) == 2
        assert (await message_of(pool, made[1]))["message"] == "Next in line"
        assert (await message_of(pool, made[0]))["status"] == "processing"

    async def test_one_that_comes_back_to_the_same_place_is_told_it_again(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        await self.worker(pool)
        (session_id,) = await uploads(pool, lifecycle, 1)
        await wait_already(pool)
        assert await tell_waiting(pool, lifecycle, alive_s=ALIVE_S) == 1
        await begin_next(queue, lifecycle)
        assert await lifecycle.release(session_id, 1, "worker")
        await wait_already(pool)
        assert await tell_waiting(pool, lifecycle, alive_s=ALIVE_S) == 1
        assert (await message_of(pool, session_id))["message"] == "Next in line"

    async def test_that_there_is_no_worker_is_said(self, pool: Pool, lifecycle: Lifecycle) -> None:
        (waiting,) = await uploads(pool, lifecycle, 1)
        await wait_already(pool)
        assert await tell_waiting(pool, lifecycle, alive_s=ALIVE_S) == 1
        told = await message_of(pool, waiting)
        assert told["message"] == "Waiting for a worker: none is running"
        assert told["estimated_completion"] is None
        await self.worker(pool)
        assert await tell_waiting(pool, lifecycle, alive_s=ALIVE_S) == 1
        assert (await message_of(pool, waiting))["message"] == "Next in line"
        await pool.execute("UPDATE workers SET seen_at = now() - interval '1 minute'")
        assert await tell_waiting(pool, lifecycle, alive_s=ALIVE_S) == 1
        assert (await message_of(pool, waiting))["message"].startswith("Waiting for a worker")

    async def test_a_try_that_is_not_due_keeps_its_sentence(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        await self.worker(pool)
        (session_id,) = await uploads(pool, lifecycle, 1)
        await begin_next(queue, lifecycle)
        await lifecycle.retry_after_failure(session_id, 1, "worker", EngineError("It failed."))
        await wait_already(pool)
        assert await tell_waiting(pool, lifecycle, alive_s=ALIVE_S) == 0
        assert "Trying again" in (await message_of(pool, session_id))["message"]

    async def test_one_that_begins_meanwhile_is_not_put_back(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        (session_id,) = await uploads(pool, lifecycle, 1)
        (turn,) = await select_turns(pool, None)
        await begin_next(queue, lifecycle)
        assert not await lifecycle.tell_position(turn, 1, "Next in line", None)
        assert (await message_of(pool, session_id))["status"] == "processing"

    async def test_who_looked_earlier_does_not_take_back_what_another_told(
        self, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        await self.worker(pool)
        ahead, session_id = await uploads(pool, lifecycle, 2)
        await wait_already(pool)
        _, earlier = await select_turns(pool, None)
        await lifecycle.cancel(ahead)
        assert await tell_waiting(pool, lifecycle, alive_s=ALIVE_S) == 1
        assert not await lifecycle.tell_position(earlier, 2, "Waiting for its turn", None)
        assert (await message_of(pool, session_id))["message"] == "Next in line"

    async def test_the_estimate_is_of_the_whole_wait(
        self, queue: TurnQueue, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        await self.worker(pool, slots=2)
        many = await uploads(pool, lifecycle, 3, duration_s=100.0)  # 52 s each
        await begin_next(queue, lifecycle)
        outlook = await select_outlook(pool, alive_s=ALIVE_S, limit=None)
        assert [each.expected.start for each in outlook.turns] == [None, None], "no ground yet"
        await self.ground(pool, many[0])
        outlook = await select_outlook(pool, alive_s=ALIVE_S, limit=None)
        now = await pool.fetchval("SELECT now()")
        waits = [
            ((start - now).total_seconds(), (completion - now).total_seconds())
            for start, completion in (
                (each.expected.start, each.expected.completion) for each in outlook.turns
            )
            if start and completion
        ]
        assert waits[0] == pytest.approx((0, 52), abs=5)  # the free slot
        assert waits[1] == pytest.approx((52, 104), abs=5)  # when the first is done
        await wait_already(pool)
        await tell_waiting(pool, lifecycle, alive_s=ALIVE_S)
        told = (await select_statuses_after(pool, many[2], 0, 10))[-1]
        assert told.fields()["estimated_completion"] is not None
        assert waits[1][1] == pytest.approx(
            (await self.completion(pool, many[2]) - now).total_seconds(), abs=5
        )

    async def completion(self, pool: Pool, session_id: UUID) -> Any:
        return await pool.fetchval(
            "SELECT estimated_completion FROM processing_status "
            "WHERE session_id = $1 ORDER BY id DESC LIMIT 1",
            session_id,
        )

    async def test_the_latest_runs_are_the_ground(self, pool: Pool, lifecycle: Lifecycle) -> None:
        (session_id,) = await uploads(pool, lifecycle, 1)
        for wall_s in (500.0, 50.0):
            for _ in range(MAX_RUNS):
                run = Run("here", audio_s=100.0, setup_s=0.0, wall_s=wall_s)
                await insert_run(pool, session_id, 1, "engine", run, None)
            await pool.execute(
                "UPDATE transcription_runs SET completed_at = completed_at - interval '1 day'"
            )
        assert await select_pace(pool, "engine", "here") == Pace(0.0, 0.5)

    async def test_a_claim_says_when_it_will_be_done_by_past_runs(
        self, pool: Pool, lifecycle: Lifecycle
    ) -> None:
        (session_id,) = await uploads(pool, lifecycle, 1, duration_s=100.0)
        await self.ground(pool, session_id)
        assert await select_pace(pool, "another", "here") is None
        pace = await select_pace(pool, "engine", "here")
        before = await pool.fetchval("SELECT now()")
        await lifecycle.claim(session_id, 1, "worker", "engine", pace)
        promised = await self.completion(pool, session_id) - before
        assert timedelta(seconds=51) < promised < timedelta(seconds=80)
