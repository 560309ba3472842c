"""A thousand streams at a time, over and over; and a hundred that all come back at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from jobs.database import Pool
from tests.faults import (
    Narrator,
    Viewer,
    make_viewers,
    now,
    requested,
    rows_of,
)
from tests.integration.streaming_fixtures import (
    PATIENCE_S,
    Block,
    eventually,
    listening_backends,
    stream_path,
)
from tests.net import free_port
from tests.product import Product

SECRET = "a secret for these tests and nothing else"

STREAMS = 1_000
ROUNDS = 20
OPENING_AT_A_TIME = 100
# Of the second round, which has touched every part of the code. An allocator never gives back all.
MOST_GROWTH = 0.05

HERD = 100
HERD_UPDATES_A_SECOND = 20.0
LEAST_SPREAD_S = 4.0
MOST_RETRY_S = 10.0  # default of `restart_retry_max_ms`


@pytest.fixture
def mine(dsn: str, tmp_path: Path) -> Iterator[Product]:
    """A product of one's own on a port that stays, with room for all."""
    product = Product(
        dsn,
        tmp_path,
        {
            "SECRET_KEY": SECRET,
            "QUARTAPP_ROLE": "web",
            "QUARTAPP_REQUEST_LIMIT": "1000000",
            "QUARTAPP_UNLISTEN_DELAY_S": "0.1",
            "QUARTAPP_LISTEN_PROBE_INTERVAL_S": "0.2",
        },
        ("serve", "--host", "127.0.0.1", "--port", str(free_port())),
    ).start()
    yield product
    if product.process.poll() is None:
        product.stop()


def port_of(product: Product) -> int:
    return int(product.url.rpartition(":")[2])


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    descriptors: int  # without the connections of its pool, which come and go
    slots: int
    channels: int
    tasks: int


async def held(product: Product, pool: Pool) -> Held:
    process = psutil.Process(product.process.pid)
    database_port = urlsplit(product.dsn).port
    pooled = sum(
        bool(link.raddr) and link.raddr.port == database_port
        for link in process.net_connections("tcp")
    )
    return Held(
        process.num_fds() - pooled,
        await pool.fetchval("SELECT count(*) FROM open_streams"),
        *await figures(product, "quartapp_listener_channels", "quartapp_tasks"),
    )


async def figures(product: Product, *names: str) -> list[int]:
    """What the process says of itself."""
    async with httpx.AsyncClient(headers={"Connection": "close"}) as client:
        answer = await client.get(f"{product.url}/metrics")
    found = dict(re.findall(r"^(\w+) (\S+)$", answer.text, re.MULTILINE))
    return [round(float(found[name])) for name in names]


async def settled(product: Product, pool: Pool, before: Held) -> None:
    """Wait until the process holds what it held before."""
    give_up_at = now() + PATIENCE_S
    while (found := await held(product, pool)) != before:
        assert now() < give_up_at, f"{found}, and before {before}"
        await asyncio.sleep(0.1)


class Caller(asyncio.Protocol):
    """One stream, seen to have begun; a reader of streams would cost more than their server."""

    def __init__(self, request: bytes) -> None:
        self.begun: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._request = request
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.begun.done():
            self._received += data
            if b"\nevent: progress\n" in self._received:
                self.begun.set_result(self._received)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_exception(AssertionError(f"ended: {self._received!r} {error!r}"))


async def open_and_drop(product: Product, viewers: Sequence[Viewer]) -> float:
    """Have every viewer's stream open at a time, then gone; how long the opening took."""
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(OPENING_AT_A_TIME)
    transports: list[asyncio.WriteTransport] = []

    async def call(viewer: Viewer) -> None:
        head = [f"GET {stream_path(viewer.recording)} HTTP/1.1", "Host: 127.0.0.1"]
        head += [f"{name}: {value}" for name, value in viewer.headers.items()]
        request = "\r\n".join((*head, "", "")).encode("ascii")
        async with gate:
            transport, caller = await loop.create_connection(
                lambda: Caller(request), "127.0.0.1", port_of(product)
            )
            transports.append(transport)
            assert (await caller.begun).startswith(b"HTTP/1.1 200 ")

    began_at = now()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for viewer in viewers:
            group.create_task(call(viewer))
    took_s = now() - began_at
    for number, transport in enumerate(transports):
        (transport.close if number % 2 else transport.abort)()
    return took_s


@pytest.mark.behaviour("MD-32")
@pytest.mark.criterion("AC-1.2.5")
@pytest.mark.criterion("AC-4.2.4")
async def test_a_thousand_streams_opened_and_dropped_leave_nothing_behind(
    mine: Product, pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    viewers = await make_viewers(pool, SECRET, STREAMS)
    process = psutil.Process(mine.process.pid)
    before = await held(mine, pool)
    sizes, times = [], []
    for _ in range(ROUNDS):
        times.append(await open_and_drop(mine, viewers))
        assert len(await listening_backends(pool)) == 1
        await settled(mine, pool, before)
        sizes.append(process.memory_info().rss)
    with capsys.disabled():
        print(f"\n{STREAMS} streams open in {min(times):.2f} to {max(times):.2f} s; MiB after each")
        print("round: " + " ".join(f"{size / 2**20:.1f}" for size in sizes) + f"; {before}")
    assert sizes[-1] <= sizes[1] * (1 + MOST_GROWTH)
    assert mine.stop() == 0


@dataclass
class Returner:
    """A client that does as an EventSource does: it waits as told, then goes on where it was."""

    viewer: Viewer
    port: int
    ids: list[int] = field(default_factory=list)
    hellos: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    told: list[tuple[str, int]] = field(default_factory=list)  # last words, and the wait in them
    broken: list[str] = field(default_factory=list)  # what ended otherwise than by a last chunk
    retry_ms: int = 0

    async def run(self) -> None:
        while True:
            try:
                await self._call()
            except ConnectionRefusedError:
                pass  # between two processes
            except (OSError, asyncio.IncompleteReadError) as error:
                self.broken.append(repr(error))
            await asyncio.sleep(self.retry_ms / 1000)

    async def _call(self) -> None:
        headers = dict(self.viewer.headers)
        if self.ids:
            headers["Last-Event-ID"] = str(self.ids[-1])
        async with requested(self.port, stream_path(self.viewer.recording), headers) as stream:
            self.statuses.append(stream.status)
            with suppress(EOFError):  # which is a last chunk
                while True:
                    self._heed(await stream.block(timeout_s=600))

    def _heed(self, block: Block) -> None:
        self.retry_ms = int(block.get("retry", self.retry_ms))
        match block["event"]:
            case "hello":
                self.hellos.append(now())
            case "restarting":
                self.told.append(("restarting", int(block["retry"])))
            case "progress":
                self.ids.append(block.row)


@pytest.mark.behaviour("MD-57")
async def test_a_hundred_streams_come_back_spread_after_a_restart(
    mine: Product, pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    viewers = await make_viewers(pool, SECRET, HERD)
    herd = [Returner(viewer, port_of(mine)) for viewer in viewers]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.run()) for each in herd]
        await eventually(lambda: all(each.ids for each in herd))
        recordings = [viewer.recording for viewer in viewers]
        async with Narrator(recordings, updates_a_second=HERD_UPDATES_A_SECOND):
            await asyncio.sleep(1)
            stop_at = now()
            assert await asyncio.to_thread(mine.stop) == 0
            stopped_at = now()
            await asyncio.to_thread(mine.start)
            ready_at = now()
            await eventually(
                lambda: all(len(each.hellos) > 1 for each in herd), 2 * MOST_RETRY_S, "all back"
            )
        rows = await rows_of(pool, [recording.id for recording in recordings])
        await eventually(
            lambda: all(each.ids[-1] == rows[each.viewer.recording.id][-1] for each in herd)
        )
        for task in tasks:
            task.cancel()
    back = sorted(each.hellos[1] - ready_at for each in herd)
    with capsys.disabled():
        print(f"\nstopped in {stopped_at - stop_at:.2f} s, ready in {ready_at - stopped_at:.2f} s,")
        print(f"{HERD} streams back {back[0]:.2f} to {back[-1]:.2f} s after that")
    for each in herd:
        assert [event for event, _ in each.told] == ["restarting"]
        assert each.broken == []
        assert each.statuses == [200, 200]
        assert each.ids == rows[each.viewer.recording.id]
    assert back[-1] - back[0] >= LEAST_SPREAD_S
    assert len({retry for each in herd for _, retry in each.told}) > HERD / 2
