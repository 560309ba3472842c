"""Clients that leave, vanish, or do not read: nothing of them stays, and nobody waits for them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import AsyncExitStack

import psutil
import pytest

from jobs.model import Status
from quartapp.settings import WebSettings
from tests.conformance.streams import (
    connections,
    fin,
    half_close,
    requested_slowly,
    reset,
    send,
)
from tests.integration.streaming_fixtures import (
    RawStream,
    Recording,
    Site,
    eventually,
    requested,
    running_site,
    stream_path,
)

MIB = 1024 * 1024


@pytest.mark.behaviour("MD-38")
@pytest.mark.criterion("AC-1.1.9")
@pytest.mark.criterion("AC-1.2.5")
@pytest.mark.parametrize("leave", [fin, reset, half_close], ids=lambda leave: leave.__name__)
async def test_a_client_that_leaves_leaves_nothing(
    quick: WebSettings, leave: Callable[[RawStream], None]
) -> None:
    settings = quick.model_copy(update={"unlisten_delay_s": 0.0, "listen_probe_interval_s": 0.1})
    async with running_site(settings) as site:
        recording, headers = await site.recording()
        before = len(asyncio.all_tasks())
        for blocks in (0, 1, 2):  # at the head, at hello, at the snapshot
            async with requested(site, stream_path(recording), headers) as stream:
                for _ in range(blocks):
                    await stream.block()
                leave(stream)
                await eventually(lambda: site.open_streams() == 0, within_s=10)
        health = site.services.listener.health
        await eventually(lambda: health().watches == 0 and health().channels == 0)
        await eventually(lambda: len(asyncio.all_tasks()) <= before)
        await eventually(lambda: connections(site) == 0)
        assert site.services.subscriber._feeds == {}


@pytest.mark.behaviour("MD-38")
async def test_a_hundred_streams_dropped_at_once_leave_nothing(site: Site) -> None:
    recordings = [await site.recording() for _ in range(10)]
    before = len(asyncio.all_tasks())
    for _ in range(3):
        streams: list[RawStream] = []

        async def hold(number: int, streams: list[RawStream] = streams) -> None:
            recording, headers = recordings[number % 10]
            async with requested(site, stream_path(recording), headers) as stream:
                await stream.block()
                streams.append(stream)
                await eventually(lambda: len(streams) == 100)

        await asyncio.gather(*(hold(number) for number in range(100)))
        await eventually(lambda: site.open_streams() == 0)
    await eventually(lambda: site.services.listener.health().watches == 0)
    await eventually(lambda: len(asyncio.all_tasks()) <= before)


@pytest.mark.behaviour("MD-40")
@pytest.mark.parametrize("leave", [fin, reset], ids=lambda leave: leave.__name__)
async def test_bytes_after_the_request_do_not_hide_that_the_client_left(
    quick: WebSettings, leave: Callable[[RawStream], None]
) -> None:
    async with running_site(quick.model_copy(update={"heartbeat_s": 0.4})) as site:
        recording, headers = await site.recording()
        path = stream_path(recording)
        before = len(asyncio.all_tasks())
        async with requested(site, path, headers) as stream:
            await stream.until("progress")
            for _ in range(20):
                await send(stream, f"GET {path} HTTP/1.1\r\nHost: x\r\n", headers)
            leave(stream)
            # The first writing tells the kernel, the second us.
            await eventually(lambda: site.open_streams() == 0)
        await eventually(lambda: connections(site) == 0)
        await eventually(lambda: len(asyncio.all_tasks()) <= before)


async def publish_much(recording: Recording, count: int) -> None:
    """Events of two kilobytes."""
    for progress in range(count):
        await recording.publish(progress=progress * 99 // count, message="lorem ipsum " * 160)


@pytest.mark.behaviour("MD-37")
async def test_the_clock_of_a_stream_does_not_stop_with_its_reader(quick: WebSettings) -> None:
    """Nor does a sign-in that expires wait for a client that does not read."""
    settings = quick.model_copy(
        update={"max_lifetime_s": 1.0, "stream_write_timeout_s": 2.0, "access_check_s": 0.5}
    )
    async with running_site(settings) as site:
        recording, headers = await site.recording()
        async with requested_slowly(site, stream_path(recording), headers):
            await publish_much(recording, 100)
            await eventually(lambda: site.open_streams() == 0, within_s=10)


@pytest.mark.behaviour("MD-41")
async def test_a_client_that_reads_slowly_takes_little_and_arrives_at_the_last_state(
    quick: WebSettings,
) -> None:
    settings = quick.model_copy(update={"stream_write_timeout_s": 30.0})
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(running_site(settings))
        recording, headers = await site.recording()
        await publish_much(recording, 50)
        process = psutil.Process(os.getpid())
        slow = [
            await stack.enter_async_context(
                requested_slowly(site, stream_path(recording, "?replay=all"), headers)
            )
            for _ in range(10)
        ]

        async def sip(stream: RawStream) -> None:
            while not done.is_set():
                stream.body += await stream.reader.readexactly(1)
                await asyncio.sleep(0.1)

        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for stream in slow:
                group.create_task(sip(stream))
            await publish_much(recording, 200)
            before = process.memory_info().rss
            await publish_much(recording, 1000)
            grown = process.memory_info().rss - before
            done.set()
        await recording.publish(Status.COMPLETED)
        assert site.open_streams() == 10
        # Two megabytes were said to each meanwhile.
        assert grown < 6 * MIB
        for stream in slow:
            raw, stream.body = stream.body, b""
            assert await ids_of_all(stream, raw) == recording.ids


async def ids_of_all(stream: RawStream, begun: bytes) -> list[int]:
    """The ids of a chunked body whose first bytes, framing included, were read already."""
    body = begun
    async with asyncio.timeout(30):
        while not body.endswith(b"0\r\n\r\n"):
            body += await stream.reader.read(65536)
    lines = dechunked(body).split(b"\n")
    return [json.loads(line[4:]) for line in lines if line.startswith(b"id: ")]


def dechunked(raw: bytes) -> bytes:
    parts = []
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        parts.append(raw[:length])
        raw = raw[length + 2 :]
    return b"".join(parts)
