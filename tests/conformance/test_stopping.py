"""A server that is about to stop, while it still answers."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.conformance.streams import assert_told
from tests.integration.streaming_fixtures import (
    RawStream,
    Site,
    eventually,
    requested,
    stream_path,
)


@pytest.mark.behaviour("MD-54")
async def test_a_drain_tells_every_stream_and_ends_it(site: Site) -> None:
    recording, headers = await site.recording()

    async def live() -> None:
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.until("progress")
            opened.append(stream)
            await assert_told(stream, "restarting", most_ms=10_000)

    opened: list[RawStream] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(live())
        await eventually(lambda: len(opened) == 30)
        began_at = time.monotonic()
        site.services.drain.set()
    assert time.monotonic() - began_at < site.services.settings.heartbeat_s
    async with requested(site, stream_path(recording), headers) as stream:
        await assert_told(stream, "restarting", most_ms=10_000)


@pytest.mark.behaviour("MD-56")
async def test_it_is_not_ready_before_any_stream_is_told(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, "/readyz") as answer:
        assert answer.status == 200
    async with requested(site, stream_path(recording), headers) as stream:
        await stream.until("progress")
        site.services.drain.set()
        async with requested(site, "/readyz") as answer:
            assert answer.status == 503
            assert json.loads(await answer.to_end())["draining"] is True
        await assert_told(stream, "restarting", most_ms=10_000)
    began_at = time.monotonic()
    async with requested(site, stream_path(recording), headers) as stream:
        assert [block["event"] for block in await stream.rest()][-1] == "restarting"
    assert time.monotonic() - began_at < site.services.settings.heartbeat_s
