"""SIGTERM with streams open: every one is told, ends properly, and nothing is left hanging."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import websockets

from jobs.database import Pool
from tests.integration.streaming_fixtures import (
    RawStream,
    eventually,
    make_recording,
    requested_at,
    stream_path,
)
from tests.product import Product

STREAMS = 60
UNLIMITED = {"QUARTAPP_STREAMS_PER_USER": "1000", "QUARTAPP_STREAM_OPENS_PER_MINUTE": "100000"}


@pytest.fixture
def served(dsn: str, tmp_path: Path) -> Iterator[Product]:
    started = Product(dsn, tmp_path, UNLIMITED).start()
    yield started
    started.stop()


@pytest.mark.parametrize("to", ["process", "group"])
@pytest.mark.behaviour("MD-54")
@pytest.mark.behaviour("MD-55")
async def test_every_stream_is_told_and_ends_and_the_process_is_gone(
    served: Product, pool: Pool, to: str
) -> None:
    with served.client("owner@example.com") as client:
        headers = {"Authorization": client.headers["Authorization"]}
    owner_id = served.rows("SELECT id FROM users")[0][0]
    recording = await make_recording(pool, owner_id=owner_id)
    port = int(served.url.rpartition(":")[2])
    socket_url = f"ws://127.0.0.1:{port}/api/v1/sessions/{recording.id}/status/ws"
    async with AsyncExitStack() as stack:
        streams: list[RawStream] = []
        for _ in range(STREAMS):
            stream = await stack.enter_async_context(
                requested_at(port, stream_path(recording), headers)
            )
            assert (await stream.block())["event"] == "hello"
            assert (await stream.block())["event"] == "progress"
            streams.append(stream)
        socket = await stack.enter_async_context(
            websockets.connect(socket_url, additional_headers=headers)
        )
        began_at = time.monotonic()
        if to == "process":
            served.process.send_signal(signal.SIGTERM)
        else:
            os.killpg(served.process.pid, signal.SIGTERM)
        retries = set()
        for stream in streams:
            last = (await stream.rest())[-1]
            assert last["event"] == "restarting"
            assert 1000 <= int(last["retry"]) <= 10_000
            retries.add(last["retry"])
            assert stream.ended, "without its last chunk"
        told_s = time.monotonic() - began_at
        messages = []
        with pytest.raises(websockets.ConnectionClosedError):  # 1012 is no normal end
            while True:
                messages.append(str(await socket.recv()))
        assert '"event":"restarting"' in messages[-1]
        assert socket.close_code == 1012
    assert len(retries) > STREAMS // 2
    code = await asyncio.to_thread(served.process.wait, 10)
    gone_s = time.monotonic() - began_at
    print(f"\n{STREAMS} streams told after {told_s:.2f} s, the process gone after {gone_s:.2f} s")
    assert code == 0
    assert served.rows("SELECT FROM open_streams") == []
    assert "Traceback" not in served.log, served.log
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.behaviour("MD-56")
async def test_whoever_comes_while_it_stops_is_answered_or_refused_and_never_left_waiting(
    served: Product, pool: Pool
) -> None:
    with served.client("owner@example.com") as client:
        headers = {"Authorization": client.headers["Authorization"]}
    owner_id = served.rows("SELECT id FROM users")[0][0]
    recording = await make_recording(pool, owner_id=owner_id)
    port = int(served.url.rpartition(":")[2])
    outcomes: list[str] = []

    async def knock() -> None:
        while not outcomes or outcomes[-1] != "refused":
            try:
                async with (
                    asyncio.timeout(5),
                    requested_at(port, stream_path(recording), headers) as stream,
                ):
                    outcomes.append("stream" if stream.status == 200 else str(stream.status))
                    if stream.status == 200:
                        await stream.block()
            except (ConnectionRefusedError, ConnectionResetError, asyncio.IncompleteReadError):
                outcomes.append("refused")

    knocking = asyncio.create_task(knock())
    await eventually(lambda: len(outcomes) >= 5)
    served.process.send_signal(signal.SIGTERM)
    await knocking
    assert set(outcomes) <= {"stream", "503", "refused"}
    assert await asyncio.to_thread(served.process.wait, 10) == 0
