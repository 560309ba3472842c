"""Clients that do not read, or are not there any more."""

from __future__ import annotations

import asyncio
import ctypes
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psutil
import pytest

from jobs.database import Pool
from quartapp.settings import WebSettings
from tests.integration.streaming_fixtures import (
    Recording,
    Site,
    eventually,
    make_recording,
    requested,
    running_site,
    stream_path,
)
from tests.product import Product

SO_ATTACH_FILTER = 26
TINY_WINDOW = 4096
UPDATES = 1000
MUTE_CLIENTS = 20
KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
def impatient(settings: WebSettings) -> WebSettings:
    """A deadline that is over soon, and nothing else that could end a stream."""
    return settings.model_copy(update={"stream_write_timeout_s": 2.0, "streams_per_user": 100})


@contextmanager
def mute_client(port: int, path: str, headers: dict[str, str]) -> Iterator[socket.socket]:
    """A client that asks for a stream and never reads, with the smallest window there is."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY_WINDOW)
    client.connect(("127.0.0.1", port))
    lines = [f"GET {path} HTTP/1.1", "Host: here"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    client.sendall("\r\n".join((*lines, "", "")).encode())
    with closing(client):
        yield client


def black_hole(client: socket.socket) -> None:
    """From now on the kernel drops every packet for this socket, before it is acknowledged."""
    drop_everything = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0
    program = ctypes.create_string_buffer(drop_everything)
    client.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program))
    )


def connections(site: Site) -> int:
    """Connections to the site's port that this process still holds a descriptor of, as server."""
    return sum(
        connection.laddr.port == site.port and connection.status != psutil.CONN_LISTEN
        for connection in psutil.Process().net_connections("tcp")
    )


async def publish_many(recording: Recording, count: int) -> None:
    for number in range(count):
        await recording.publish(progress=number * 99 // count, message=f"{number} " + "x" * 300)


@pytest.mark.behaviour("MD-37")
@pytest.mark.behaviour("MD-41")
@pytest.mark.criterion("AC-4.2.5")
async def test_one_who_does_not_read_delays_nobody_holds_little_and_is_cut(
    impatient: WebSettings, pool: Pool
) -> None:
    async with running_site(impatient) as site:
        recording, headers = await site.recording()
        path = stream_path(recording)
        async with requested(site, path, headers) as reader:
            await reader.until("progress")
            await publish_many(recording, 50)
            with mute_client(site.port, path, headers):
                await eventually(lambda: site.open_streams() == 2)
                await publish_many(recording, UPDATES)
                newest = recording.ids[-1]
                seen = [block.row for block in [await reader.until("progress")]]
                while seen[-1] != newest:
                    seen.append((await reader.until("progress")).row)
                assert seen == recording.ids[1:]
                await eventually(lambda: site.open_streams() == 1, what="the cut")
                # Its descriptor goes too, though it still holds its end.
                await eventually(lambda: connections(site) == 1, what="the end of the connection")
            await recording.publish(progress=99)
            await reader.until("progress")
        async with asyncio.timeout(10):
            while True:
                rows = await pool.fetch(
                    "SELECT reason FROM stream_events WHERE kind = 'disconnect' ORDER BY id"
                )
                if len(rows) == 2:
                    break
                await asyncio.sleep(0.01)
        assert {row["reason"] for row in rows} == {"slow", "client"}
        async with requested(site, "/metrics") as answer:
            figures = (await answer.to_end()).decode()
        cut = re.search(r'streams_closed_total\{reason="slow",transport="sse"\} (\d+)', figures)
        assert cut is not None


@pytest.mark.criterion("AC-4.2.4")
async def test_those_who_do_not_read_hold_what_fits_the_buffers_and_no_more(
    dsn: str, pool: Pool, tmp_path: Path
) -> None:
    started = Product(dsn, tmp_path, {"QUARTAPP_STREAMS_PER_USER": "100"}).start()
    try:
        with started.client("owner@example.com") as client:
            headers = {"Authorization": client.headers["Authorization"]}
            owner_id = started.rows("SELECT id FROM users")[0][0]
        recording = await make_recording(pool, owner_id=owner_id)
        process = psutil.Process(started.process.pid)
        port = int(started.url.rpartition(":")[2])
        await publish_many(recording, UPDATES)  # what is kept for all streams is kept by now
        with ExitStack() as clients:
            for _ in range(MUTE_CLIENTS):
                clients.enter_context(mute_client(port, stream_path(recording), headers))
            await eventually(lambda: len(started.rows("SELECT FROM open_streams")) == MUTE_CLIENTS)
            before = process.memory_info().rss
            await publish_many(recording, 2 * UPDATES)
            each = (process.memory_info().rss - before) / MUTE_CLIENTS
            print(f"\n{2 * UPDATES} updates, {each / KIB:.0f} KiB for each who does not read")
            # A megabyte of updates went by each of them.
            assert each < 300 * KIB
    finally:
        assert started.stop() == 0


async def test_one_who_was_cut_resumes_from_the_table(impatient: WebSettings) -> None:
    async with running_site(impatient) as site:
        recording, headers = await site.recording()
        with mute_client(site.port, stream_path(recording), headers):
            await eventually(lambda: site.open_streams() == 1)
            await publish_many(recording, 400)
            await eventually(lambda: site.open_streams() == 0, what="the cut")
        resumed = {**headers, "Last-Event-ID": str(recording.ids[0])}
        async with requested(site, stream_path(recording), resumed) as stream:
            for event_id in recording.ids[1:]:
                assert (await stream.until("progress")).row == event_id


@pytest.mark.behaviour("MD-39")
async def test_one_who_vanished_without_a_word_is_let_go(impatient: WebSettings) -> None:
    settings = impatient.model_copy(update={"heartbeat_s": 0.5})
    async with running_site(settings) as site:
        recording, headers = await site.recording()
        with mute_client(site.port, stream_path(recording), headers) as client:
            await eventually(lambda: site.open_streams() == 1)
            black_hole(client)
            # Nothing fills a buffer here: the kernel misses the acknowledgement of a heartbeat.
            await eventually(lambda: site.open_streams() == 0, what="the end of the stream")
            await eventually(lambda: connections(site) == 0, what="the end of the connection")


async def test_an_ordinary_answer_may_take_its_time(impatient: WebSettings) -> None:
    """The deadline is for streams; a slow download goes on as long as it moves."""
    settings = impatient.model_copy(update={"stream_write_timeout_s": 0.2})
    async with running_site(settings) as site:

        @site.app.get("/large")
        async def large() -> bytes:
            return b"x" * (4 * MIB)

        site.app.config["QUART_RATE_LIMITER_ENABLED"] = False
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        client.setblocking(False)
        with closing(client):
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", site.port))
            await loop.sock_sendall(client, b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n")
            taken = 0
            async with asyncio.timeout(60):
                while taken < 4 * MIB:
                    taken += len(await loop.sock_recv(client, 256 * 1024))
                    await asyncio.sleep(0.01)
