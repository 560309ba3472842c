"""What happens between the server and its database, as a client of a stream sees it."""

from __future__ import annotations

import asyncio
import time

import pytest
from pydantic import SecretStr

from jobs.database import Pool
from jobs.model import Status
from jobs.publisher import StatusPublisher
from quartapp.settings import WebSettings
from tests.integration.streaming_fixtures import (
    Site,
    Wire,
    eventually,
    kill_listening,
    listening_backends,
    requested,
    running_site,
    stream_path,
)


@pytest.mark.behaviour("MD-30")
async def test_listen_killed_again_and_again_costs_no_event(site: Site, pool: Pool) -> None:
    recordings = [await site.recording() for _ in range(10)]

    async def follow(number: int) -> list[int]:
        recording, headers = recordings[number]
        async with requested(site, stream_path(recording, "?replay=all"), headers) as stream:
            return [block.row for block in await stream.rest() if "id" in block]

    async def work(number: int) -> None:
        recording, _ = recordings[number]
        for progress in range(1, 60):
            await recording.publish(progress=progress)
            await asyncio.sleep(0.02)
        await recording.publish(Status.COMPLETED)

    async with asyncio.TaskGroup() as group:
        following = [group.create_task(follow(number)) for number in range(10)]
        working = [group.create_task(work(number)) for number in range(10)]
        while not all(task.done() for task in working):
            await kill_listening(pool)
            await asyncio.sleep(0.3)
    for (recording, _), task in zip(recordings, following, strict=True):
        assert task.result() == recording.ids
    assert site.services.listener.health().losses > 0


@pytest.mark.behaviour("MD-31")
async def test_a_database_that_is_away_ends_no_stream_and_takes_nobodys_access(
    quick: WebSettings, dsn: str, pool: Pool
) -> None:
    async with Wire(dsn) as wire:
        settings = quick.model_copy(
            update={
                "database_url": SecretStr(wire.dsn),
                "heartbeat_s": 0.2,
                "access_check_s": 0.1,
                "read_timeout_s": 0.5,
                "process_beat_s": 0.2,
                "database_pool_size": 2,
                "reconnect_max_s": 0.5,
            }
        )
        async with running_site(settings) as site:
            recording, headers = await site.recording()
            recording.publisher = StatusPublisher(pool)
            async with requested(site, stream_path(recording), headers) as stream:
                await stream.until("progress")
                wire.freeze()
                wire.cut()
                away_until = time.monotonic() + 3
                transports = set()
                while time.monotonic() < away_until:
                    beat = await stream.block()
                    assert beat["event"] == "heartbeat"
                    transports.add(beat.json["transport"])
                assert "poll" in transports
                for progress in (10, 20, 30):
                    await recording.publish(progress=progress)
                wire.thaw()
                seen = [(await stream.until("progress")).row for _ in range(3)]
                assert seen == recording.ids[1:]
                while (await stream.until("heartbeat")).json["transport"] != "push":
                    # Not one more than there may be: of the pool, and that of LISTEN.
                    assert await connected(pool) <= settings.database_pool_size + 1
                sent = await recording.publish(progress=40)
                assert (await stream.until("progress")).row == sent.id


async def connected(pool: Pool) -> int:
    """Connections of servers to this database, that of LISTEN included."""
    count: int = await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'quartapp%' "
        "AND datname = current_database() AND pid <> pg_backend_pid()"
    )
    return count


@pytest.mark.behaviour("MD-32")
async def test_many_streams_take_one_connection_and_leave_no_channel(
    quick: WebSettings, pool: Pool
) -> None:
    settings = quick.model_copy(update={"unlisten_delay_s": 0.0})
    async with running_site(settings) as site:
        recordings = [await site.recording() for _ in range(100)]
        opened: list[int] = []
        leave = asyncio.Event()

        async def hold(number: int) -> None:
            recording, headers = recordings[number % 100]
            async with requested(site, stream_path(recording), headers) as stream:
                await stream.until("progress")
                opened.append(number)
                await leave.wait()

        async with asyncio.TaskGroup() as group:
            for number in range(300):
                group.create_task(hold(number))
            await eventually(lambda: len(opened) == 300)
            assert len(await listening_backends(pool)) == 1
            assert await connected(pool) <= 10
            channels = site.services.listener.health().channels
            assert channels == 100
            leave.set()
        await eventually(lambda: site.services.listener.health().channels == 0)
        assert len(await listening_backends(pool)) == 1


async def test_whoever_comes_while_the_database_is_mute_is_told_so_and_not_left_waiting(
    dsn: str, quick: WebSettings
) -> None:
    async with Wire(dsn) as wire:
        settings = quick.model_copy(
            update={"database_url": SecretStr(wire.dsn), "database_timeout_s": 0.5}
        )
        async with running_site(settings) as site:
            recording, headers = await site.recording()
            wire.freeze()
            for _ in range(2):
                async with requested(site, stream_path(recording), headers) as answer:
                    assert answer.status == 503
                    assert answer.header("Retry-After") is not None
                    assert b'"unavailable"' in await answer.to_end()
            wire.thaw()
            async with requested(site, stream_path(recording), headers) as stream:
                assert (await stream.until("progress")).row == recording.ids[0]
