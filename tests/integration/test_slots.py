"""How many streams one user may have, over all processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from jobs.database import Pool, open_pool
from jobs.lifecycle import Lifecycle
from jobs.publisher import StatusPublisher
from quartapp.settings import WebSettings
from quartapp.streaming.slots import (
    BEAT,
    Refusal,
    Release,
    SlotRefused,
    SlotRequest,
    StreamSlots,
    Transport,
)
from tests.integration.streaming_fixtures import (
    Recording,
    Site,
    Wire,
    eventually,
    make_recording,
    requested,
    running_site,
    stream_path,
)
from tests.people import make_user

LIST_STREAM = "/api/v1/status/stream"


class Process:
    """The slots of one process, and the streams it was told were taken over."""

    def __init__(self, pool: Pool, settings: WebSettings) -> None:
        self.replaced: list[UUID] = []
        self.id = uuid4().hex
        self.slots = StreamSlots(pool, settings, self.id, self.replaced.append)

    async def take(
        self, user_id: UUID, client_id: str | None = None, session_id: UUID | None = None
    ) -> UUID:
        stream_id = uuid4()
        await self.slots.take(SlotRequest(stream_id, user_id, session_id, client_id, Transport.SSE))
        return stream_id

    async def refused(self, user_id: UUID, client_id: str | None = None) -> SlotRefused:
        with pytest.raises(SlotRefused) as refused:
            await self.take(user_id, client_id)
        return refused.value

    def release(self, stream_id: UUID) -> None:
        self.slots.release(Release(stream_id, "client", {"events": 2}))


@asynccontextmanager
async def process(pool: Pool, settings: WebSettings) -> AsyncIterator[Process]:
    started = Process(pool, settings)
    await started.slots.beat()
    yield started
    await started.slots.close()


@pytest.fixture
async def one(pool: Pool, settings: WebSettings) -> AsyncIterator[Process]:
    async with process(pool, settings) as started:
        yield started


@pytest.fixture
async def other(pool: Pool, settings: WebSettings) -> AsyncIterator[Process]:
    async with process(pool, settings) as started:
        yield started


WORKING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'active' AND query LIKE '%take_stream_slots%'
  AND pid <> pg_backend_pid()
"""


async def taken(pool: Pool) -> int:
    count: int = await pool.fetchval("SELECT count(*) FROM open_streams WHERE NOT replaced")
    return count


@pytest.mark.criterion("AC-4.2.1")
async def test_a_user_has_three_over_all_processes(
    one: Process, other: Process, pool: Pool
) -> None:
    user_id = await make_user(pool)
    await one.take(user_id)
    await other.take(user_id)
    await one.take(user_id)
    assert (await other.refused(user_id)).refusal is Refusal.STREAMS
    assert (await one.refused(user_id)).refusal is Refusal.STREAMS
    await one.take(await make_user(pool))


@pytest.mark.behaviour("MD-43")
async def test_opened_all_at_once_by_four_processes_exactly_three_succeed(
    pool: Pool, settings: WebSettings
) -> None:
    user_id = await make_user(pool)
    # Counting and taking are far enough apart for others to come between.
    await pool.execute(
        """
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$;
        CREATE TRIGGER dawdle BEFORE INSERT ON open_streams FOR EACH ROW EXECUTE FUNCTION dawdle();
        """
    )
    async with AsyncExitStack() as stack:
        connections = [await pool.acquire() for _ in range(4)]  # so that none is waited for later
        for connection in connections:
            await pool.release(connection)
        processes = [await stack.enter_async_context(process(pool, settings)) for _ in range(4)]
        outcomes = await asyncio.gather(
            *(processes[number % 4].take(user_id) for number in range(20)), return_exceptions=True
        )
    assert sum(isinstance(outcome, UUID) for outcome in outcomes) == 3
    assert all(isinstance(outcome, UUID | SlotRefused) for outcome in outcomes)


async def test_many_users_at_once_get_theirs_and_nobody_waits_for_another(
    one: Process, other: Process, pool: Pool
) -> None:
    users = [await make_user(pool) for _ in range(40)]
    takings = [process.take(user) for user in users for process in (one, other, one)]
    async with asyncio.timeout(20):
        await asyncio.gather(*takings)
    assert await taken(pool) == 120


async def test_a_slot_given_back_is_free_at_once(one: Process, pool: Pool) -> None:
    user_id = await make_user(pool)
    streams = [await one.take(user_id) for _ in range(3)]
    one.release(streams[1])
    await one.take(user_id)
    assert (await one.refused(user_id)).refusal is Refusal.STREAMS


@pytest.mark.behaviour("MD-44")
async def test_a_client_takes_over_its_own_slot(one: Process, other: Process, pool: Pool) -> None:
    recording = await make_recording(pool)
    user_id = recording.owner_id
    old = await one.take(user_id, "tab-1", recording.id)
    await one.take(user_id, "tab-2", recording.id)
    await one.take(user_id, "tab-3", recording.id)
    await other.take(user_id, "tab-1", recording.id)
    assert other.replaced == [old]
    assert one.replaced == []
    await one.slots.beat()
    assert one.replaced == [old]
    assert (await one.refused(user_id, "tab-4")).refusal is Refusal.STREAMS


async def test_a_client_with_streams_to_spare_keeps_them_all(one: Process, pool: Pool) -> None:
    first = await make_recording(pool)
    second = await make_recording(pool, owner_id=first.owner_id)
    streams = [
        await one.take(first.owner_id, "tab", None),
        await one.take(first.owner_id, "tab", first.id),
        await one.take(first.owner_id, "tab", second.id),
    ]
    assert one.replaced == []
    third = await make_recording(pool, owner_id=first.owner_id)
    await one.take(first.owner_id, "tab", third.id)
    assert one.replaced == streams[:1]


async def test_a_client_of_somebody_else_takes_nothing_over(one: Process, pool: Pool) -> None:
    await one.take(await make_user(pool), "tab")
    await one.take(await make_user(pool), "tab")
    assert one.replaced == []


async def test_the_slots_of_a_dead_process_expire(
    other: Process, pool: Pool, settings: WebSettings
) -> None:
    dying = Process(pool, settings.model_copy(update={"process_expiry_s": 0.3}))
    await dying.slots.beat()
    user_id = await make_user(pool)
    for _ in range(3):
        await dying.take(user_id)
    assert (await other.refused(user_id)).refusal is Refusal.STREAMS
    async with asyncio.timeout(10):
        while True:
            try:
                await other.take(user_id)
                break
            except SlotRefused:
                await asyncio.sleep(0.05)
    # It was only cut off: its streams count again.
    await dying.slots.beat()
    assert (await other.refused(user_id)).refusal is Refusal.STREAMS


async def test_a_process_renews_one_row_however_many_streams_it_has(
    one: Process, pool: Pool
) -> None:
    for _ in range(30):
        await one.take(await make_user(pool))
    written = "SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE relname = $1"
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(BEAT, one.id, 45.0, 86_400.0, [])
        assert await connection.fetchval(written, "open_streams") == 0
        assert await connection.fetchval(written, "web_processes") == 1


@pytest.mark.criterion("AC-4.2.6")
async def test_opens_are_limited_by_the_minute(pool: Pool, settings: WebSettings) -> None:
    user_id = await make_user(pool)
    async with process(pool, settings.model_copy(update={"stream_opens_per_minute": 5})) as one:
        for _ in range(5):
            one.release(await one.take(user_id))
        refused = await one.refused(user_id)
        assert refused.refusal is Refusal.OPENS
        assert refused.retry_after_s is not None
        assert 50 < refused.retry_after_s <= 60
        await one.take(await make_user(pool))
        await pool.execute("UPDATE stream_events SET at = at - interval '61 seconds'")
        await one.take(user_id)


async def test_what_was_opened_closed_and_refused_is_remembered(one: Process, pool: Pool) -> None:
    recording = await make_recording(pool)
    first = await one.take(recording.owner_id, session_id=recording.id)
    for _ in range(2):
        await one.take(recording.owner_id)
    for _ in range(5):
        await one.refused(recording.owner_id)
    one.release(first)
    await one.take(recording.owner_id)
    rows = await pool.fetch(
        "SELECT kind, session_id, reason, details FROM stream_events ORDER BY id"
    )
    kinds = [row["kind"] for row in rows]
    assert kinds == ["connect"] * 3 + ["refused", "disconnect", "connect"]
    assert rows[3]["reason"] == "streams"
    assert (rows[4]["session_id"], rows[4]["reason"]) == (recording.id, "client")
    assert '"events": 2' in rows[4]["details"]


async def test_what_is_remembered_is_forgotten_in_time(pool: Pool, settings: WebSettings) -> None:
    async with process(
        pool, settings.model_copy(update={"stream_events_retention_s": 3600.0})
    ) as one:
        for _ in range(2):
            one.release(await one.take(await make_user(pool)))
        await eventually_empty(pool)
        await pool.execute(
            "UPDATE stream_events SET at = now() - interval '2 hours' WHERE kind = 'connect'"
        )
        await one.slots.beat()
        assert await pool.fetchval("SELECT count(*) FROM stream_events") == 2


async def eventually_empty(pool: Pool) -> None:
    async with asyncio.timeout(10):
        while await taken(pool):  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(0.01)


async def test_a_session_deleted_meanwhile_spoils_no_other_slot(one: Process, pool: Pool) -> None:
    kept, lost = await make_recording(pool), await make_recording(pool)
    await pool.execute("DELETE FROM sessions WHERE id = $1", lost.id)
    outcomes = await asyncio.gather(
        one.take(kept.owner_id, session_id=kept.id),
        one.take(lost.owner_id, session_id=lost.id),
        one.take(kept.owner_id, session_id=kept.id),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], UUID)
    assert isinstance(outcomes[1], SlotRefused)
    assert outcomes[1].refusal is Refusal.GONE
    assert isinstance(outcomes[2], UUID)


async def test_a_session_deleted_while_its_streams_close_is_deleted(
    pool: Pool, settings: WebSettings
) -> None:
    lifecycle = Lifecycle(pool, StatusPublisher(pool), settings)
    # Between the end of a stream and the note of it there is time for others to come.
    await pool.execute(
        """
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN PERFORM pg_sleep(0.05); RETURN OLD; END $$;
        CREATE TRIGGER dawdle AFTER DELETE ON open_streams FOR EACH ROW EXECUTE FUNCTION dawdle();
        """
    )
    async with process(pool, settings) as one:
        for turn in range(10):
            recording = await make_recording(pool)
            stream_id = await one.take(recording.owner_id, session_id=recording.id)
            one.release(stream_id)
            await asyncio.sleep(0.005 * turn)
            deleted = await lifecycle.delete(recording.id)
            assert deleted is not None
        await eventually_empty(pool)
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        await pool.execute("SELECT pg_stat_force_next_flush()")
        assert await pool.fetchval(deadlocks) == 0


async def test_one_who_leaves_while_waiting_holds_nothing(one: Process, pool: Pool) -> None:
    users = [await make_user(pool) for _ in range(30)]
    waiting = [asyncio.create_task(one.take(user)) for user in users]
    for turns, task in enumerate(waiting):
        for _ in range(turns % 5):
            await asyncio.sleep(0)
        task.cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, UUID):
            one.release(outcome)
    await eventually_empty(pool)


async def test_a_release_survives_a_database_that_is_away(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    async with (
        Wire(dsn) as wire,
        open_pool(wire.dsn, settings) as wired,
        process(wired, settings.model_copy(update={"read_timeout_s": 0.3})) as one,
    ):
        stream_id = await one.take(await make_user(pool))
        wire.freeze()
        one.release(stream_id)
        with pytest.raises((TimeoutError, OSError)):
            await one.take(await make_user(pool))
        assert await taken(pool) == 1
        wire.thaw()
        await eventually_empty(pool)


async def test_a_slot_whose_answer_never_came_is_nobodys_and_goes(
    pool: Pool, settings: WebSettings
) -> None:
    user_id = await make_user(pool)
    async with process(pool, settings.model_copy(update={"read_timeout_s": 0.3})) as one:
        async with pool.acquire() as holder, holder.transaction():
            lock = "SELECT pg_advisory_xact_lock(7116001, hashtext($1::text))"
            await holder.execute(lock, str(user_id))
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await one.take(user_id)
        # Statements that were given up may succeed now; whether they do is not ours to say.
        async with asyncio.timeout(20):
            while await pool.fetchval(WORKING):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.02)
        await one.slots.beat()
        assert await taken(pool) == 0


async def test_a_process_that_was_forgotten_goes_on(one: Process, pool: Pool) -> None:
    recording = await make_recording(pool)
    await pool.execute("DELETE FROM web_processes")
    await one.take(recording.owner_id, session_id=recording.id)
    assert await taken(pool) == 1


async def test_a_process_that_stops_leaves_nothing(pool: Pool, settings: WebSettings) -> None:
    async with process(pool, settings) as one:
        await one.take(await make_user(pool))
    assert await pool.fetchval("SELECT count(*) FROM open_streams") == 0
    assert await pool.fetchval("SELECT count(*) FROM web_processes") == 0


# As a client sees it


@pytest.fixture
async def site(settings: WebSettings) -> AsyncIterator[Site]:
    async with running_site(settings) as site:
        yield site


async def refusal(site: Site, path: str, headers: dict[str, str]) -> tuple[int, str | None, Any]:
    """Status, Retry-After and body of a stream that is refused."""
    async with requested(site, path, headers) as answer:
        assert answer.header("Content-Type") == "application/problem+json"
        body = await answer.to_end()
        return answer.status, answer.header("Retry-After"), body.decode()


@asynccontextmanager
async def streams(
    site: Site, paths: list[str], headers: dict[str, str]
) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        opened = []
        for path in paths:
            stream = await stack.enter_async_context(requested(site, path, headers))
            assert stream.status == 200
            assert (await stream.block())["event"] == "hello"
            opened.append(stream)
        yield opened


@pytest.mark.criterion("AC-4.2.1")
@pytest.mark.behaviour("MD-42")
async def test_the_fourth_stream_is_refused_until_one_is_left(site: Site) -> None:
    recording, headers = await site.recording()
    path = stream_path(recording)
    async with streams(site, [path, path, LIST_STREAM], headers) as opened:
        for refused in (path, LIST_STREAM):
            status, retry_after, body = await refusal(site, refused, headers)
            assert (status, retry_after is not None) == (429, True)
            assert '"too_many_streams"' in body
        opened[0].close()
        await eventually(lambda: site.open_streams() == 2)
        async with streams(site, [path], headers):
            pass


async def test_neither_head_nor_a_refusal_takes_a_slot(site: Site) -> None:
    recording, headers = await site.recording()
    path = stream_path(recording)
    async with streams(site, [path, path], headers):
        for _ in range(3):
            async with requested(site, path, headers, method="HEAD") as answer:
                assert answer.status == 200
            async with requested(site, path, headers | {"Accept": "text/html"}) as answer:
                assert answer.status == 406
        async with streams(site, [path], headers):
            pass


@pytest.mark.behaviour("MD-44")
async def test_the_same_tab_opened_again_replaces_its_own_stream(site: Site) -> None:
    recording, headers = await site.recording()
    paths = [stream_path(recording, f"?client_id=tab-{number}") for number in range(3)]
    async with streams(site, paths, headers) as opened, streams(site, paths[:1], headers):
        told = await opened[0].until("replaced")
        assert int(told["retry"]) >= 600_000  # or two of one name would chase each other
        assert await opened[0].rest() == []
        assert opened[0].ended
        status, _, _ = await refusal(site, stream_path(recording, "?client_id=tab-3"), headers)
        assert status == 429


@pytest.mark.parametrize("client_id", ["a" * 65, "tab 1", "<script>", "é"])
async def test_a_client_id_that_is_none_is_refused(site: Site, client_id: str) -> None:
    recording, headers = await site.recording()
    status, _, body = await refusal(
        site, stream_path(recording, f"?client_id={quote(client_id)}"), headers
    )
    assert status == 422
    assert '"invalid_client_id"' in body


@pytest.mark.behaviour("MD-45")
@pytest.mark.criterion("AC-4.2.6")
async def test_too_many_opens_in_a_minute_are_refused_with_the_time_to_wait(
    settings: WebSettings,
) -> None:
    async with running_site(settings.model_copy(update={"stream_opens_per_minute": 4})) as site:
        recording, headers = await site.recording()
        for opened in range(4):
            async with streams(site, [stream_path(recording)], headers):
                assert site.open_streams() == 1
            await eventually(lambda: site.open_streams() == 0, what=f"stream {opened} closed")
        status, retry_after, body = await refusal(site, stream_path(recording), headers)
        assert (status, '"rate_limited"' in body) == (429, True)
        assert retry_after is not None
        assert 1 <= int(retry_after) <= 61
        another, headers = await site.recording()
        async with streams(site, [stream_path(another)], headers):
            pass


@pytest.mark.criterion("AC-4.2.5")
async def test_a_process_takes_no_more_streams_than_it_can_hold(settings: WebSettings) -> None:
    async with running_site(settings.model_copy(update={"max_streams": 2})) as site:
        people: list[tuple[Recording, dict[str, str]]] = [await site.recording() for _ in range(3)]
        async with AsyncExitStack() as stack:
            for recording, headers in people[:2]:
                await stack.enter_async_context(streams(site, [stream_path(recording)], headers))
            recording, headers = people[2]
            status, retry_after, body = await refusal(site, stream_path(recording), headers)
            assert (status, '"at_capacity"' in body) == (503, True)
            assert retry_after is not None
            assert 1 <= int(retry_after) <= 16
            async with requested(site, "/healthz") as answer:
                assert answer.status == 200
        await eventually(lambda: site.open_streams() == 0)
        async with streams(site, [stream_path(recording)], headers):
            pass
