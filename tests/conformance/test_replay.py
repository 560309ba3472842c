"""Ten thousand events at once: a server in a process of its own, and who else asks it meanwhile."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest

from jobs.database import Pool
from jobs.model import Status
from quartapp.settings import WebSettings
from tests.conformance.streams import requested_slowly, reset
from tests.integration.streaming_fixtures import (
    Recording,
    eventually,
    make_recording,
    running_site,
    stream_path,
)
from tests.product import Product

EVENTS = 10_000
MIB = 1024 * 1024

# As many events as a transcription of days would bring.
LONG_HISTORY = """
WITH grown AS (
  UPDATE sessions SET
    last_status_id = last_status_id + $2, prev_status_id = last_status_id + $2 - 1,
    status = 'processing', stage = 'transcribing'
  WHERE id = $1
  RETURNING last_status_id - $2 AS first
)
INSERT INTO processing_status (session_id, id, prev_id, attempt, status, stage, progress,
  progress_kind, message, duration_processed, duration_total, processing_speed, segments,
  timestamp)
SELECT $1, first + number, first + number - 1, 1, 'processing', 'transcribing', number * 99 / $2,
  'measured', 'Transcribing… ' || number, number, $2, 2.0, 0, now()
FROM grown, generate_series(1, $2) AS number
"""


async def make_long_recording(pool: Pool, owner: Recording | None = None) -> Recording:
    recording = await make_recording(pool, owner_id=owner.owner_id if owner else None)
    await pool.execute(LONG_HISTORY, recording.id, EVENTS)
    return recording


@pytest.fixture
def apart(dsn: str, tmp_path: Path) -> Iterator[Product]:
    """A server in a process of its own, without limits in the way."""
    limits = {
        "QUARTAPP_ROLE": "web",
        "QUARTAPP_STREAMS_PER_USER": "100",
        "QUARTAPP_REQUEST_LIMIT": "1000000",
    }
    product = Product(dsn, tmp_path, limits).start()
    yield product
    product.stop()


@asynccontextmanager
async def client_of(product: Product) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who may see every session."""
    email = f"{uuid4().hex}@example.com"
    product.create_user(email, role="admin")
    bearer = {"Authorization": f"Bearer {product.sign_in(email)}"}
    async with httpx.AsyncClient(base_url=product.url, headers=bearer, timeout=30) as client:
        yield client


@pytest.mark.behaviour("MD-26")
async def test_others_are_answered_promptly_during_a_long_replay(
    apart: Product, pool: Pool
) -> None:
    recording = await make_long_recording(pool)
    await recording.publish(Status.COMPLETED)
    asked = await make_recording(pool)
    async with client_of(apart) as client:

        async def ask() -> float:
            began_at = time.perf_counter()
            answer = await client.get(f"/api/v1/sessions/{asked.id}/status")
            assert answer.status_code == 200
            return time.perf_counter() - began_at

        async def replay() -> int:
            """How many events came."""
            path = stream_path(recording, "?replay=all")
            async with client.stream("GET", path) as stream:
                body = b"".join([piece async for piece in stream.aiter_raw(65536)])
            return body.count(b"\nid: ")

        alone_s = [await ask() for _ in range(100)]
        began_at = time.perf_counter()
        replaying = asyncio.create_task(replay())
        beside_s = []
        while not replaying.done():
            beside_s.append(await ask())
        lasted_s = time.perf_counter() - began_at
    assert await replaying == EVENTS + 2
    alone_ms, beside_ms = (1000 * statistics.median(delays) for delays in (alone_s, beside_s))
    figures = (
        f"{EVENTS} events in {lasted_s:.2f} s; answers alone {alone_ms:.1f} ms, beside it"
        f" {beside_ms:.1f} ms, at most {1000 * max(beside_s):.1f} ms ({len(beside_s)} of them)"
    )
    print(figures)
    assert len(beside_s) > 10, figures
    assert beside_ms < 10 * alone_ms, figures


@pytest.mark.behaviour("MD-26")
async def test_a_replay_is_not_held_in_memory(apart: Product, pool: Pool) -> None:
    first = await make_long_recording(pool)
    recordings = [first, *[await make_long_recording(pool, first) for _ in range(9)]]
    process = psutil.Process(apart.process.pid)
    async with client_of(apart) as client, AsyncExitStack() as stack:
        path = stream_path(recordings[0], "?replay=all")
        async with client.stream("GET", path) as warming_up:
            await anext(warming_up.aiter_raw(4096))
        before = process.memory_info().rss
        paused = []
        for recording in recordings:
            path = stream_path(recording, "?replay=all")
            stream = await stack.enter_async_context(client.stream("GET", path))
            pieces = stream.aiter_raw(4096)
            assert b"event: hello" in await anext(pieces)
            paused.append(pieces)
        # Four megabytes each are on the way, and nobody takes them.
        for _ in range(20):
            grown = process.memory_info().rss - before
            assert grown < 16 * MIB
            await asyncio.sleep(0.05)


@pytest.mark.behaviour("MD-26")
async def test_a_client_killed_in_the_middle_of_a_replay_leaves_nothing(
    quick: WebSettings,
) -> None:
    async with running_site(quick.model_copy(update={"unlisten_delay_s": 0.0})) as site:
        recording, headers = await site.recording()
        await site.services.pool.execute(LONG_HISTORY, recording.id, EVENTS)
        before = len(asyncio.all_tasks())
        path = stream_path(recording, "?replay=all")
        for taken in (1, 50_000, 500_000):
            async with requested_slowly(site, path, headers, receive_bytes=65536) as stream:
                await stream.reader.readexactly(taken)
                reset(stream)
                await eventually(lambda: site.open_streams() == 0, within_s=10)
        await eventually(lambda: site.services.listener.health().watches == 0)
        await eventually(lambda: len(asyncio.all_tasks()) <= before)
