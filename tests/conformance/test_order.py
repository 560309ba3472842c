"""What is said, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import asyncpg
import httpx
import pytest

from jobs.database import Pool
from jobs.model import Status
from jobs.publisher import StatusPublisher
from quartapp.settings import WebSettings
from tests.conformance.streams import assert_told, history
from tests.integration.streaming_fixtures import (
    RawStream,
    Recording,
    Site,
    connect_as_listener,
    eventually,
    requested,
    restart_recording,
    running_site,
    stream_path,
)


@pytest.mark.behaviour("MD-19")
@pytest.mark.criterion("SH-3")
@pytest.mark.criterion("AC-1.1.4")
async def test_the_snapshot_then_every_event_then_the_end(site: Site) -> None:
    recording, headers = await site.recording()
    await recording.publish(progress=10)
    async with requested(site, stream_path(recording), headers) as stream:
        assert (await stream.block())["event"] == "hello"
        snapshot = await stream.block()
        assert list(snapshot) == ["id", "event", "data"]
        assert snapshot["event"] == "progress"
        assert snapshot["data"] == recording.published[-1].text
        assert snapshot.row == recording.published[-1].id
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as client:
            polled = await client.get(f"/api/v1/sessions/{recording.id}/status", headers=headers)
        assert snapshot.json == {key: polled.json()[key] for key in snapshot.json}
        for progress in (25, 50, 75, 90):
            sent = await recording.publish(progress=progress)
            block = await stream.block()
            assert (block["event"], block.row, block["data"]) == ("progress", sent.id, sent.text)
        last = await recording.publish(Status.COMPLETED)
        rest = await stream.rest()
        assert [(block["event"], block.row) for block in rest] == [("complete", last.id)]
        assert stream.ended


@pytest.mark.criterion("AC-1.1.7")
async def test_a_stream_opened_before_the_work_begins_waits_for_it(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers) as stream:
        await stream.block()
        assert (await stream.block()).json["status"] == "queued"
        await recording.publish(progress=0)
        assert (await stream.block()).json["status"] == "processing"
        await recording.publish(Status.FAILED, message="It cannot be read")
        failed = await stream.block()
        assert failed["event"] == "failed"
        assert failed.json["error"] == {"code": "engine_failed", "message": "It cannot be read"}


@pytest.mark.behaviour("MD-28")
@pytest.mark.criterion("AC-1.1.8")
@pytest.mark.parametrize(
    ("status", "event"),
    [(Status.COMPLETED, "complete"), (Status.FAILED, "failed"), (Status.CANCELLED, "cancelled")],
)
async def test_after_the_end_the_last_event_comes_at_once_and_then_204(
    site: Site, status: Status, event: str
) -> None:
    recording, headers = await site.recording()
    await recording.publish(progress=50)
    last = await recording.publish(status)
    async with requested(site, stream_path(recording), headers) as stream:
        blocks = await stream.rest(timeout_s=5)
        assert [block["event"] for block in blocks] == ["hello", event]
        assert blocks[-1].row == last.id
        assert stream.ended
    seen = {"Last-Event-ID": str(last.id)}
    for query, extra in (("", seen), (f"?last_event_id={last.id}", {})):
        for method in ("GET", "HEAD"):
            async with requested(
                site, stream_path(recording, query), headers | extra, method=method
            ) as stream:
                assert stream.status == 204
                assert stream.header("Content-Length") is None
                assert stream.header("Transfer-Encoding") is None
                assert stream.header("Content-Type") is None
                assert "no-store" in (stream.header("Cache-Control") or "")


@pytest.mark.criterion("SH-2")
async def test_the_stream_replayed_is_the_table(site: Site) -> None:
    recording, headers = await site.recording()
    for progress in range(1, 250):
        await recording.publish(progress=progress % 100)
    await recording.publish(Status.COMPLETED)
    async with requested(site, stream_path(recording, "?replay=all"), headers) as stream:
        blocks = await stream.rest()
    assert [block.row for block in blocks[1:]] == await history(site, recording)
    assert [block["event"] for block in blocks] == ["hello", *["progress"] * 250, "complete"]


@pytest.mark.criterion("AC-1.3.6")
async def test_a_failure_that_was_retried_is_not_the_end_when_replayed(site: Site) -> None:
    recording, headers = await site.recording()
    failed = await recording.publish(Status.FAILED)
    await restart_recording(site.services.pool, recording)
    await recording.publish(Status.COMPLETED)
    async with requested(site, stream_path(recording, "?replay=all"), headers) as stream:
        blocks = await stream.rest()
    assert [block["event"] for block in blocks] == ["hello", *["progress"] * 3, "complete"]
    assert blocks[2].json["status"] == "failed"
    seen = {"Last-Event-ID": str(failed.id)}
    async with requested(site, stream_path(recording), headers | seen) as stream:
        events = [block["event"] for block in await stream.rest()]
    assert events == ["hello", "progress", "complete"]


async def test_all_streams_of_a_session_get_the_same_bytes(site: Site) -> None:
    recording, headers = await site.recording()

    async def follow() -> list[str]:
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.block()
            opened.append(stream)
            return [block["data"] for block in await stream.rest()]

    opened: list[RawStream] = []
    async with asyncio.TaskGroup() as group:
        following = [group.create_task(follow()) for _ in range(50)]
        await eventually(lambda: len(opened) == 50)
        assert site.services.listener.health().watches == 1
        for progress in range(1, 50):
            await recording.publish(progress=progress)
        await recording.publish(Status.COMPLETED)
    texts = [message.text for message in recording.published]
    for task in following:
        assert task.result() == texts[texts.index(task.result()[0]) :]


@pytest.mark.behaviour("MD-29")
async def test_a_deleted_session_ends_its_streams(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"heartbeat_s": 0.3})) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.until("progress")
            await site.services.lifecycle.delete(recording.id)
            await assert_told(stream, "gone")
        async with requested(site, stream_path(recording), headers) as stream:
            assert stream.status == 404


@asynccontextmanager
async def writer(dsn: str) -> AsyncIterator[Pool]:
    """Somebody else's connection to the database."""
    async with asyncpg.create_pool(
        dsn, min_size=1, max_size=1, server_settings={"application_name": "writer"}
    ) as pool:
        yield pool


# For the server alone: a read stands still after it has looked, and before it tells what it saw.
GATE = """
ALTER FUNCTION status_message(processing_status) RENAME TO ungated_status_message;
CREATE FUNCTION status_message(event processing_status) RETURNS json
LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF current_setting('application_name') = 'quartapp' THEN
    PERFORM pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1);
  END IF;
  RETURN ungated_status_message(event);
END $$;
"""
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.mark.behaviour("MD-20")
@pytest.mark.parametrize("count", [10, 100], ids=["buffered", "more than is buffered"])
async def test_what_happens_while_the_snapshot_is_read_is_not_missed(
    quick: WebSettings, dsn: str, count: int
) -> None:
    settings = quick.model_copy(update={"read_timeout_s": 30.0})
    async with AsyncExitStack() as stack:
        gate = await connect_as_listener(dsn)
        stack.push_async_callback(gate.close)
        await gate.execute(GATE)
        site = await stack.enter_async_context(running_site(settings))
        elsewhere = await stack.enter_async_context(writer(dsn))
        recording, headers = await site.recording()
        recording.publisher = StatusPublisher(elsewhere)
        before = recording.ids[-1]
        await gate.execute("SELECT pg_advisory_lock(1)")
        stream = await stack.enter_async_context(requested(site, stream_path(recording), headers))
        assert (await stream.block())["event"] == "hello"
        async with asyncio.timeout(10):
            while not await gate.fetchval(WAITING):
                pass
        for progress in range(count):
            await recording.publish(progress=progress % 100)
        await gate.execute("SELECT pg_advisory_unlock(1)")
        seen = [(await stream.block()).row for _ in range(1 + count)]
        assert seen == [before, *recording.ids[-count:]]
        after = await recording.publish(progress=99)
        assert (await stream.block()).row == after.id


@pytest.mark.behaviour("MD-21")
@pytest.mark.behaviour("MD-30")
async def test_ids_rise_whoever_writes_and_wherever_one_reconnects(
    quick: WebSettings, dsn: str
) -> None:
    async with AsyncExitStack() as stack:
        sites = [await stack.enter_async_context(running_site(quick)) for _ in range(2)]
        recording, headers = await sites[0].recording()
        writers = [await stack.enter_async_context(writer(dsn)) for _ in range(4)]

        async def work(pool: Pool) -> None:
            mine = Recording(recording.id, recording.owner_id, StatusPublisher(pool))
            for progress in range(50):
                await mine.publish(progress=progress)
                await asyncio.sleep(random.uniform(0, 0.02))

        async def follow() -> list[int]:
            """All it was given, over many short connections to any server there is."""
            seen: list[int] = []
            while True:
                resume = {"Last-Event-ID": str(seen[-1])} if seen else {}
                site = random.choice(sites)
                with suppress(OSError, EOFError, asyncio.IncompleteReadError):
                    path = stream_path(recording, "?replay=all")
                    async with requested(site, path, headers | resume) as stream:
                        for _ in range(random.randint(1, 30)):
                            block = await stream.block()
                            if "id" in block:
                                seen.append(block.row)
                            if block["event"] == "complete":
                                return seen

        async with asyncio.TaskGroup() as group:
            following = [group.create_task(follow()) for _ in range(4)]
            async with asyncio.TaskGroup() as working:
                for pool in writers:
                    working.create_task(work(pool))
                async with running_site(quick) as brief:
                    sites.append(brief)
                    await asyncio.sleep(0.3)
                    sites.remove(brief)
            await recording.publish(Status.COMPLETED)
        ids = await history(sites[0], recording)
        assert len(ids) == 1 + 200 + 1
        for task in following:
            assert task.result() == ids
