"""Heartbeats, and streams that have lasted long enough."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from jobs.model import Status
from quartapp.settings import WebSettings
from quartapp.streaming.listener import Mode
from tests.conformance.streams import assert_told
from tests.integration.streaming_fixtures import (
    Site,
    eventually,
    kill_listening,
    requested,
    running_site,
    stream_path,
)


@pytest.mark.behaviour("MD-33")
async def test_heartbeats_fill_every_silence(quick: WebSettings) -> None:
    assert quick.heartbeat_s == 15
    async with running_site(quick.model_copy(update={"heartbeat_s": 0.3})) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording), headers) as stream:
            hello = await stream.block()
            assert hello.json["heartbeat_s"] == 0.3
            await stream.block()
            arrived_at = [time.monotonic()]
            for _ in range(7):
                block = await stream.block()
                assert list(block) == ["", "event", "data"]
                assert (block[""], block["event"]) == ("heartbeat", "heartbeat")
                assert block.json["worker_seen_at"] is None
                assert block.json["transport"] == "push"
                arrived_at.append(time.monotonic())
            gaps_s = sorted(after - before for before, after in pairwise(arrived_at))
            # Never early; late by no more than a busy machine is.
            assert gaps_s[0] > 0.3 * 13 / 15
            assert gaps_s[3] < 3 * 0.3
            assert b": heartbeat\nevent: heartbeat\ndata: {" in stream.body
            await site.services.pool.execute(
                "UPDATE sessions SET worker_seen_at = '2026-01-15T10:30:00.1234Z' WHERE id = $1",
                recording.id,
            )
            # One may be under way already.
            beats = [(await stream.until("heartbeat")).json for _ in range(2)]
            assert beats[-1]["worker_seen_at"] == "2026-01-15T10:30:00.123Z"
            assert set(beats[-1]) == {"timestamp", "worker_seen_at", "transport"}


@pytest.mark.behaviour("MD-33")
async def test_silence_is_measured_from_the_last_byte(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"heartbeat_s": 2.0})) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.block()
            seen = [(await stream.block())["event"]]
            for _ in range(12):
                await asyncio.sleep(0.25)
                await recording.publish(progress=1)
                seen.append((await stream.block())["event"])
            assert set(seen) == {"progress"}
            last_at = time.monotonic()
            assert (await stream.block())["event"] == "heartbeat"
            assert time.monotonic() - last_at > 1.8


async def test_a_heartbeat_says_when_events_come_by_polling(quick: WebSettings) -> None:
    settings = quick.model_copy(
        update={"heartbeat_s": 0.1, "reconnect_min_s": 2.0, "reconnect_max_s": 2.0}
    )
    async with running_site(settings) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording), headers) as stream:
            listener = site.services.listener
            while listener.mode is Mode.PUSH:  # a reconnect may happen to come at once
                await kill_listening(site.services.pool)
                await asyncio.sleep(0.1)
            said = {(await stream.until("heartbeat")).json["transport"] for _ in range(3)}
            assert "poll" in said
            await eventually(lambda: listener.mode is Mode.PUSH)
            while (await stream.until("heartbeat")).json["transport"] != "push":
                pass


async def test_heartbeats_go_on_while_the_database_does_not_answer(quick: WebSettings) -> None:
    settings = quick.model_copy(update={"heartbeat_s": 0.2, "database_pool_size": 2})
    async with running_site(settings) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.block()
            await stream.block()
            held = [await site.services.pool.acquire() for _ in range(2)]
            began_at = time.monotonic()
            for _ in range(3):
                assert (await stream.block())["event"] == "heartbeat"
            assert time.monotonic() - began_at < 6
            for connection in held:
                await site.services.pool.release(connection)
            sent = await recording.publish(progress=10)
            assert (await stream.until("progress")).row == sent.id


@pytest.mark.behaviour("MD-34")
async def test_a_stream_outlives_the_frameworks_own_timeout(site: Site) -> None:
    site.app.config["RESPONSE_TIMEOUT"] = 0.2
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers) as stream:
        await stream.block()
        await stream.block()
        await asyncio.sleep(0.6)
        sent = await recording.publish(progress=10)
        assert (await stream.block()).row == sent.id


@pytest.mark.behaviour("MD-35")
@pytest.mark.criterion("AC-4.2.2")
async def test_a_stream_without_status_events_is_ended_as_idle(quick: WebSettings) -> None:
    assert quick.idle_timeout_s == 5 * 60
    settings = quick.model_copy(update={"idle_timeout_s": 2.0, "heartbeat_s": 0.3})
    async with running_site(settings) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.until("progress")
            await asyncio.sleep(0.7)
            await recording.publish(progress=10)
            await stream.until("progress")
            began_at = time.monotonic()
            await assert_told(stream, "idle")
            assert time.monotonic() - began_at > 1.8
        await eventually(lambda: site.open_streams() == 0)


@pytest.mark.behaviour("MD-35")
async def test_whoever_comes_back_to_an_idle_session_stays_as_long_again(
    quick: WebSettings,
) -> None:
    async with running_site(quick.model_copy(update={"idle_timeout_s": 0.5})) as site:
        recording, headers = await site.recording()
        seen = headers | {"Last-Event-ID": str(recording.ids[-1])}
        began_at = time.monotonic()
        for _ in range(3):
            async with requested(site, stream_path(recording), seen) as stream:
                await assert_told(stream, "idle")
        assert time.monotonic() - began_at > 1.5


@pytest.mark.behaviour("MD-36")
async def test_streams_opened_together_end_apart_and_resume_without_loss(
    quick: WebSettings,
) -> None:
    cap_s = 2.0
    settings = quick.model_copy(update={"max_lifetime_s": cap_s, "heartbeat_s": 0.3})
    async with running_site(settings) as site:
        recording, headers = await site.recording()
        ended_at: list[float] = []

        async def follow() -> list[int]:
            seen: list[int] = []
            while True:
                extra = {"Last-Event-ID": str(seen[-1])} if seen else {}
                path = stream_path(recording, "?replay=all")
                async with requested(site, path, headers | extra) as stream:
                    blocks = await stream.rest()
                seen += [block.row for block in blocks if "id" in block]
                if blocks[-1]["event"] == "complete":
                    return seen
                assert blocks[-1]["event"] == "lifetime"
                assert 1000 <= int(blocks[-1]["retry"]) <= 5000
                assert stream.ended
                ended_at.append(time.monotonic())

        began_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(follow()) for _ in range(100)]
            last_at = began_at + cap_s * 1.2
            for progress in range(1, 99):
                await recording.publish(progress=progress)
                await asyncio.sleep(max(0, (last_at - time.monotonic()) / (99 - progress)))
            await recording.publish(Status.COMPLETED)
        for task in following:
            assert task.result() == recording.ids
        first_lives_s = sorted(moment - began_at for moment in ended_at)[:100]
        assert len(ended_at) >= 100
        assert first_lives_s[0] > cap_s * 0.79
        assert first_lives_s[-1] - first_lives_s[0] > cap_s * 0.1
