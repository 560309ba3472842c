"""From the request to the first event."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import pytest
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived

from jobs.model import Status
from tests.conformance.streams import send
from tests.integration.streaming_fixtures import (
    PATIENCE_S,
    Site,
    connect_as_listener,
    eventually,
    requested,
    stream_path,
)

CACHE_CONTROL = "no-cache, no-store, no-transform"


@pytest.mark.behaviour("MD-3")
@pytest.mark.criterion("AC-1.1.1")
@pytest.mark.criterion("AC-1.1.3")
async def test_headers_are_exactly_these(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers) as stream:
        assert (stream.version, stream.status) == ("HTTP/1.1", 200)
        assert stream.header("Content-Type") == "text/event-stream"
        assert stream.header("Cache-Control") == CACHE_CONTROL
        assert stream.header("X-Accel-Buffering") == "no"
        assert stream.header("Connection") == "keep-alive"
        assert stream.header("Transfer-Encoding") == "chunked"
        assert stream.header("Content-Length") is None
        assert stream.header("Content-Encoding") is None
        assert stream.header("Set-Cookie") is None
        await stream.block()
        assert stream.body.startswith(b"retry: ")


@pytest.mark.behaviour("MD-3")
async def test_http_2_gets_no_header_that_it_forbids(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested_by_http_2(site, stream_path(recording), headers) as (answer, body):
        assert answer[":status"] == "200"
        assert answer["content-type"] == "text/event-stream"
        assert answer["cache-control"] == CACHE_CONTROL
        assert answer["x-accel-buffering"] == "no"
        forbidden = {"connection", "transfer-encoding", "keep-alive", "upgrade"}
        assert not forbidden & set(answer)
        assert not {"content-length", "content-encoding"} & set(answer)
        assert body.startswith(b"retry: ")


@asynccontextmanager
async def requested_by_http_2(
    site: Site, path: str, headers: dict[str, str]
) -> AsyncIterator[tuple[dict[str, str], bytes]]:
    """The head of an answer, and the first of its body, to a client that knows beforehand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    connection = H2Connection()
    connection.initiate_connection()
    connection.send_headers(
        1,
        [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", f"127.0.0.1:{site.port}"),
            (":path", path),
            *((name.lower(), value) for name, value in headers.items()),
        ],
        end_stream=True,
    )
    writer.write(connection.data_to_send())
    heads: list[ResponseReceived] = []
    bodies: list[DataReceived] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not bodies:
                received: list[Event] = connection.receive_data(await reader.read(65536))
                heads += [event for event in received if isinstance(event, ResponseReceived)]
                bodies += [event for event in received if isinstance(event, DataReceived)]
        answer = {_text(name): _text(value) for name, value in heads[0].headers or []}
        yield answer, bodies[0].data or b""
    finally:
        writer.close()
        await writer.wait_closed()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.behaviour("MD-4")
async def test_a_stream_is_never_compressed(site: Site) -> None:
    recording, headers = await site.recording()
    for accepted in ("gzip, br, zstd", "gzip;q=1.0, identity;q=0.1", "*", "identity;q=0, gzip"):
        wishes = headers | {"Accept-Encoding": accepted}
        async with requested(site, stream_path(recording), wishes) as stream:
            assert stream.status == 200, accepted
            assert stream.header("Content-Encoding") is None, accepted
            assert (await stream.block())["event"] == "hello"
            assert (await stream.block())["data"] == recording.published[-1].text


@pytest.mark.behaviour("MD-5")
async def test_an_http_1_0_client_gets_the_bare_stream_ended_by_close(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers, version="1.0") as stream:
        assert stream.status == 200
        assert stream.header("Transfer-Encoding") is None
        assert stream.header("Content-Length") is None
        assert (stream.header("Connection") or "close") == "close"
        assert [(await stream.block())["event"] for _ in range(2)] == ["hello", "progress"]
        sent = await recording.publish(progress=10)
        assert (await stream.block()).row == sent.id
        await recording.publish(Status.COMPLETED)
        assert [block["event"] for block in await stream.rest()] == ["complete"]
        assert await stream.reader.read() == b""


@pytest.mark.behaviour("MD-9")
async def test_the_first_event_says_how_this_stream_works(site: Site) -> None:
    recording, headers = await site.recording()
    settings = site.services.settings
    stream_ids = set()
    for _ in range(3):
        async with requested(site, stream_path(recording), headers) as stream:
            hello = await stream.block()
        assert list(hello) == ["retry", "event", "data"]
        assert hello["event"] == "hello"
        stream_ids.add(hello.json["stream_id"])
        assert abs(time.time() - _seconds(hello.json["server_time"])) < 5
        assert hello.json == {
            "stream_id": hello.json["stream_id"],
            "server_time": hello.json["server_time"],
            "heartbeat_s": settings.heartbeat_s,
            "idle_timeout_s": settings.idle_timeout_s,
            "max_lifetime_s": settings.max_lifetime_s,
            "transport": "push",
        }
    assert len(stream_ids) == 3
    # A heartbeat comes before anything on the way, or the stream itself, gives it up.
    assert 5 <= settings.heartbeat_s < 30 < settings.idle_timeout_s < settings.max_lifetime_s


def _seconds(timestamp: str) -> float:
    assert timestamp.endswith("Z")
    return datetime.fromisoformat(timestamp).timestamp()


@pytest.mark.behaviour("MD-10")
async def test_each_stream_says_another_wait_before_reconnecting(site: Site) -> None:
    recording, headers = await site.recording()
    waits = []
    for _ in range(50):
        async with requested(site, stream_path(recording), headers) as stream:
            waits.append((await stream.block())["retry"])
    assert all(re.fullmatch("[0-9]+", wait) for wait in waits)
    assert all(1000 <= int(wait) <= 5000 for wait in waits)
    assert len(set(waits)) >= 10


@pytest.mark.behaviour("MD-1")
@pytest.mark.behaviour("MD-2")
@pytest.mark.criterion("AC-1.1.6")
async def test_headers_and_first_event_come_at_once(site: Site) -> None:
    recording, headers = await site.recording()
    heads_s, hellos_s = [], []
    for _ in range(60):
        began_at = time.perf_counter()
        async with requested(site, stream_path(recording), headers) as stream:
            heads_s.append(time.perf_counter() - began_at)
            assert (await stream.block())["event"] == "hello"
            hellos_s.append(time.perf_counter() - began_at)
    assert _p95(heads_s) < 0.2
    assert _p95(hellos_s) < 0.2


def _p95(delays_s: list[float]) -> float:
    return sorted(delays_s)[int(len(delays_s) * 0.95)]


@pytest.mark.behaviour("MD-2")
async def test_the_first_event_does_not_wait_for_the_table(site: Site, dsn: str) -> None:
    recording, headers = await site.recording()
    holder = await connect_as_listener(dsn)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE processing_status IN ACCESS EXCLUSIVE MODE")
            async with requested(site, stream_path(recording), headers) as stream:
                assert (await stream.block(timeout_s=1))["event"] == "hello"
    finally:
        await holder.close()


@pytest.mark.behaviour("MD-8")
async def test_a_client_that_takes_event_streams_gets_one(site: Site) -> None:
    recording, headers = await site.recording()
    for accept in (
        None,
        "*/*",
        "text/*",
        "text/event-stream",
        "text/event-stream;q=0.9",
        "text/event-stream;q=0.001, application/json",
        "text/html, */*;q=0.1",
    ):
        extra = {} if accept is None else {"Accept": accept}
        async with requested(site, stream_path(recording), headers | extra) as stream:
            assert stream.status == 200, accept
            assert (await stream.block())["event"] == "hello"


@pytest.mark.behaviour("MD-8")
async def test_a_client_that_takes_none_is_told_so(site: Site) -> None:
    recording, headers = await site.recording()
    for accept in (
        "application/json",
        "text/html",
        "text/event-stream;q=0",
        "text/event-stream;q=0.000, */*",
        "*/*, text/event-stream;q=0",
        "text/*;q=0, */*",
    ):
        async with requested(site, stream_path(recording), headers | {"Accept": accept}) as answer:
            assert answer.status == 406, accept
            assert answer.header("Content-Type") == "application/problem+json"
            assert json.loads(await answer.to_end())["code"] == "not_acceptable"
    assert site.open_streams() == 0


@pytest.mark.behaviour("MD-6")
async def test_head_has_the_headers_ends_at_once_and_takes_nothing(site: Site) -> None:
    recording, headers = await site.recording()
    began_at = time.monotonic()
    async with requested(site, stream_path(recording), headers, method="HEAD") as stream:
        assert stream.status == 200
        assert stream.header("Content-Type") == "text/event-stream"
        assert stream.header("Cache-Control") == CACHE_CONTROL
        assert stream.header("Content-Length") is None
        assert site.open_streams() == 0
        assert site.services.listener.health().watches == 0
        assert site.services.listener.health().channels == 0
        # The connection is ready for the next request: this one is over.
        path = stream_path(recording)
        await send(stream, f"GET {path}?replay=all HTTP/1.1\r\nHost: x\r\n", headers)
        await stream.read_head()
        assert (await stream.block())["event"] == "hello"
        assert time.monotonic() - began_at < site.services.settings.heartbeat_s
        assert site.open_streams() == 1
    await eventually(lambda: site.open_streams() == 0)


@pytest.mark.behaviour("MD-7")
async def test_other_methods_never_stream(site: Site) -> None:
    recording, headers = await site.recording()
    accepting = headers | {"Accept": "text/event-stream"}
    for method, status in (
        ("OPTIONS", 200),
        ("POST", 405),
        ("PUT", 405),
        ("DELETE", 405),
        ("PATCH", 405),
    ):
        async with requested(site, stream_path(recording), accepting, method=method) as answer:
            assert answer.status == status, method
            allowed = set((answer.header("Allow") or "").split(", "))
            assert allowed == {"GET", "HEAD", "OPTIONS"}
            assert answer.header("Content-Type") != "text/event-stream"
            await answer.to_end()
    assert site.open_streams() == 0
