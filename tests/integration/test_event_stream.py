"""The status stream as a client sees it, over bare sockets and a real server."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime
from uuid import uuid4

import httpx
import pytest
from httpx_sse import aconnect_sse

from jobs.database import Pool
from jobs.model import Role, Status
from quartapp.settings import WebSettings
from quartapp.streaming.encoder import EventName
from quartapp.streaming.event_stream import EventStream, Start
from quartapp.streaming.listener import Mode
from quartapp.streaming.open_streams import OpenStreams
from tests.integration.streaming_fixtures import (
    RawStream,
    Recording,
    Site,
    eventually,
    kill_listening,
    make_recording,
    requested,
    restart_recording,
    running_site,
    stream_path,
)


@pytest.fixture
def quick(settings: WebSettings) -> WebSettings:
    """No limit of requests in the way."""
    return settings.model_copy(update={"request_limit": 1_000_000})


@pytest.fixture
async def site(quick: WebSettings) -> AsyncIterator[Site]:
    async with running_site(quick) as running:
        yield running


async def history(site: Site, recording: Recording) -> list[int]:
    rows = await site.services.pool.fetch(
        "SELECT id FROM processing_status WHERE session_id = $1 ORDER BY id", recording.id
    )
    return [row["id"] for row in rows]


# Opening


@pytest.mark.criterion("AC-1.1.1")
@pytest.mark.criterion("AC-1.1.3")
async def test_headers_are_exactly_these(site: Site) -> None:
    recording, headers = await site.recording()
    wishes = {**headers, "Accept": "text/event-stream", "Accept-Encoding": "gzip, br, zstd"}
    async with requested(site, stream_path(recording), wishes) as stream:
        assert (stream.version, stream.status) == ("HTTP/1.1", 200)
        assert stream.header("Content-Type") == "text/event-stream"
        assert stream.header("Cache-Control") == "no-cache, no-store, no-transform"
        assert stream.header("X-Accel-Buffering") == "no"
        assert stream.header("Connection") == "keep-alive"
        assert stream.header("Transfer-Encoding") == "chunked"
        assert stream.header("Content-Length") is None
        assert stream.header("Content-Encoding") is None
        assert stream.header("Set-Cookie") is None
        await stream.block()
        assert stream.body.startswith(b"retry: ")


async def test_an_http_1_0_client_gets_the_bare_stream_ended_by_close(site: Site) -> None:
    recording, headers = await site.recording()
    await recording.publish(Status.COMPLETED)
    async with requested(site, stream_path(recording), headers, version="1.0") as stream:
        assert stream.status == 200
        assert stream.header("Transfer-Encoding") is None
        assert stream.header("Content-Length") is None
        assert (stream.header("Connection") or "close") == "close"
        assert [block["event"] for block in await stream.rest()] == ["hello", "complete"]
        assert await stream.reader.read() == b""


async def test_the_first_block_says_how_this_stream_works(site: Site) -> None:
    recording, headers = await site.recording()
    settings = site.services.settings
    waits, ids = set(), set()
    for _ in range(30):
        async with requested(site, stream_path(recording), headers) as stream:
            hello = await stream.block()
        assert list(hello) == ["retry", "event", "data"]
        assert hello["event"] == "hello"
        assert re.fullmatch("[0-9]+", hello["retry"])
        assert 1000 <= int(hello["retry"]) <= 5000
        waits.add(hello["retry"])
        ids.add(hello.json["stream_id"])
        assert abs(time.time() - _seconds(hello.json["server_time"])) < 60
        assert hello.json == {
            "stream_id": hello.json["stream_id"],
            "server_time": hello.json["server_time"],
            "heartbeat_s": settings.heartbeat_s,
            "idle_timeout_s": settings.idle_timeout_s,
            "max_lifetime_s": settings.max_lifetime_s,
            "transport": "push",
        }
    assert len(waits) >= 10
    assert len(ids) == 30


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


@pytest.mark.criterion("AC-1.1.6")
async def test_first_bytes_come_at_once(site: Site) -> None:
    recording, headers = await site.recording()
    delays_s = []
    for _ in range(60):
        began_at = time.perf_counter()
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.block()
            delays_s.append(time.perf_counter() - began_at)
    assert sorted(delays_s)[int(len(delays_s) * 0.95)] < 0.2


@pytest.mark.parametrize(
    "accept",
    ["text/event-stream", "*/*", "text/*", "text/event-stream;q=0.9", "text/html, */*;q=0.1", None],
)
async def test_a_client_that_takes_event_streams_gets_one(site: Site, accept: str | None) -> None:
    recording, headers = await site.recording()
    extra = {} if accept is None else {"Accept": accept}
    async with requested(site, stream_path(recording), headers | extra) as stream:
        assert stream.status == 200
        assert (await stream.block())["event"] == "hello"


@pytest.mark.parametrize(
    "accept",
    ["application/json", "text/html", "text/event-stream;q=0", "*/*, text/event-stream;q=0"],
)
async def test_a_client_that_takes_none_is_told_so(site: Site, accept: str) -> None:
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers | {"Accept": accept}) as stream:
        assert stream.status == 406
        assert stream.header("Content-Type") == "application/problem+json"
        assert json.loads(await stream.to_end())["code"] == "not_acceptable"


async def test_head_has_the_headers_ends_at_once_and_takes_nothing(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers, method="HEAD") as stream:
        assert stream.status == 200
        assert stream.header("Content-Type") == "text/event-stream"
        assert stream.header("Cache-Control") == "no-cache, no-store, no-transform"
        assert stream.header("Content-Length") is None
        # The connection is ready for the next request: this one is over.
        path = stream_path(recording)
        await _send(stream, f"GET {path}?replay=all HTTP/1.1\r\nHost: x\r\n", headers)
        await stream.read_head()
        assert (await stream.block())["event"] == "hello"
    assert site.services.listener.health().connects == 1


async def _send(stream: RawStream, start: str, headers: dict[str, str]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    stream.writer.write(f"{start}{lines}\r\n".encode())
    await stream.writer.drain()


async def test_head_listens_to_nothing(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers, method="HEAD"):
        assert site.services.listener.health().watches == 0
        assert site.services.listener.health().channels == 0


@pytest.mark.parametrize(
    ("method", "status"), [("OPTIONS", 200), ("POST", 405), ("PUT", 405), ("DELETE", 405)]
)
async def test_other_methods_never_stream(site: Site, method: str, status: int) -> None:
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers, method=method) as stream:
        assert stream.status == status
        assert set((stream.header("Allow") or "").split(", ")) == {"GET", "HEAD", "OPTIONS"}
        assert stream.header("Content-Type") != "text/event-stream"


# Who may


@pytest.mark.criterion("AC-1.1.2")
@pytest.mark.criterion("AC-1.1.5")
async def test_refusals_come_before_the_first_byte(site: Site) -> None:
    recording, owner = await site.recording()
    _, stranger = await site.sign_in()
    _, therapist = await site.sign_in(Role.THERAPIST)
    _, admin = await site.sign_in(Role.ADMIN)
    nowhere = f"/api/v1/sessions/{uuid4()}/status/stream"
    cases: list[tuple[str, dict[str, str], int, str | None]] = [
        (stream_path(recording), {}, 401, "unauthenticated"),
        (stream_path(recording), {"Authorization": "Bearer nonsense"}, 401, "unauthenticated"),
        (stream_path(recording), stranger, 403, "forbidden"),
        (stream_path(recording), therapist, 403, "forbidden"),
        (nowhere, owner, 404, "not_found"),
        ("/api/v1/sessions/not-a-uuid/status/stream", owner, 404, "not_found"),
        (stream_path(recording), owner, 200, None),
        (stream_path(recording), admin, 200, None),
    ]
    for path, headers, status, code in cases:
        async with requested(site, path, headers) as stream:
            assert stream.status == status
            if code is not None:
                assert stream.header("Content-Type") == "application/problem+json"
                assert json.loads(await stream.to_end())["code"] == code


# From the snapshot to the end


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


HOSTILE = [
    'a "quoted" name',
    "first\nsecond\rthird\r\nfourth",
    "x\n\nevent: complete\ndata: {}\n\n",
    "\u2028\u2029\x85\x01\x1f\x7f",
    "😀 漢字 é " + "\\" * 9,
    "é" * 8000,
]


@pytest.mark.criterion("SH-6")
async def test_text_of_users_arrives_intact_live_and_from_the_table(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers) as stream:
        await stream.block()
        await stream.block()
        for text in HOSTILE:
            await recording.publish(progress=1, message=text)
            assert (await stream.block()).json["message"] == text
        live = stream.as_parsed_by_httpx_sse()[2:]
    await recording.publish(Status.CANCELLED)
    async with requested(site, stream_path(recording, "?replay=all"), headers) as stream:
        await stream.rest()
        replayed = stream.as_parsed_by_httpx_sse()[2:-1]
    assert live == replayed
    assert [json.loads(data)["message"] for _, data, _ in live] == HOSTILE


@pytest.mark.criterion("SH-6")
async def test_an_event_source_client_follows_from_start_to_end(site: Site) -> None:
    recording, headers = await site.recording()
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as client,
        aconnect_sse(client, "GET", stream_path(recording), headers=headers) as source,
    ):
        seen = []
        async for event in source.aiter_sse():
            seen.append(event.event)
            if event.event == "progress":
                await recording.publish(Status.COMPLETED)
        assert seen == ["hello", "progress", "complete"]


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


# Resuming


async def test_a_reconnect_at_any_point_neither_repeats_nor_skips(site: Site) -> None:
    recording, headers = await site.recording()
    for progress in range(1, 8):
        await recording.publish(progress=progress)
    await recording.publish(Status.COMPLETED)
    ids = recording.ids
    for seen in range(len(ids) - 1):
        for query, extra in (
            ("", {"Last-Event-ID": str(ids[seen])}),
            (f"?last_event_id={ids[seen]}", {}),
            ("?last_event_id=5", {"Last-Event-ID": str(ids[seen])}),
            (f"?last_event_id={ids[-1]}&replay=all", {"Last-Event-ID": str(ids[seen])}),
            ("?replay=all", {"Last-Event-ID": str(ids[seen])}),
        ):
            async with requested(site, stream_path(recording, query), headers | extra) as stream:
                blocks = await stream.rest()
            assert blocks[0]["event"] == "hello"
            assert [block.row for block in blocks[1:]] == ids[seen + 1 :]


async def test_resuming_at_the_newest_event_sends_nothing_old(site: Site) -> None:
    recording, headers = await site.recording()
    seen = {"Last-Event-ID": str(recording.ids[-1])}
    async with requested(site, stream_path(recording), headers | seen) as stream:
        await stream.block()
        sent = await recording.publish(progress=10)
        assert (await stream.block()).row == sent.id


@pytest.mark.parametrize(
    "cursor",
    [
        "5",
        "0",
        "-1",
        "9999999999999999999",
        "9223372036854775807",
        "1795222584197110",
        "abc",
        "1.5",
        "1e3",
        "1 2",
        "0x10",
        "é",
        "\u00b2",
        "1" * 10_000,
        "null",
        "5-3",
        "'; DROP TABLE sessions; --",
    ],
    ids=lambda cursor: cursor[:20],
)
async def test_a_cursor_that_is_not_known_means_reset_and_snapshot(site: Site, cursor: str) -> None:
    recording, headers = await site.recording()
    latest = await recording.publish(progress=10)
    async with requested(
        site, stream_path(recording), headers | {"Last-Event-ID": cursor}
    ) as stream:
        assert stream.status == 200
        blocks = [await stream.block() for _ in range(3)]
    assert [block["event"] for block in blocks] == ["hello", "reset", "progress"]
    assert "id" not in blocks[1]
    assert blocks[2].row == latest.id
    assert cursor not in blocks[1]["data"]


async def test_a_cursor_of_another_session_is_not_known(site: Site) -> None:
    recording, headers = await site.recording()
    other = await make_recording(site.services.pool)
    seen = {"Last-Event-ID": str(other.ids[0])}
    async with requested(site, stream_path(recording), headers | seen) as stream:
        assert [(await stream.block())["event"] for _ in range(3)] == ["hello", "reset", "progress"]


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.COMPLETED])
async def test_a_pruned_cursor_means_reset_and_snapshot(site: Site, status: Status) -> None:
    recording, headers = await site.recording()
    await recording.publish(progress=10)
    await recording.publish(status, progress=20)
    await site.services.pool.execute(
        "DELETE FROM processing_status WHERE session_id = $1 AND id = $2",
        recording.id,
        recording.ids[1],
    )
    seen = {"Last-Event-ID": str(recording.ids[1])}
    async with requested(site, stream_path(recording), headers | seen) as stream:
        blocks = [await stream.block() for _ in range(3)]
    assert blocks[1]["event"] == "reset"
    assert blocks[2].row == recording.ids[2]


@pytest.mark.parametrize("query", ["?last_event_id=", "?replay=none", "?unknown=1"])
async def test_what_asks_for_nothing_gets_the_snapshot(site: Site, query: str) -> None:
    recording, headers = await site.recording()
    async with requested(
        site, stream_path(recording, query), headers | {"Last-Event-ID": ""}
    ) as stream:
        assert [(await stream.block())["event"] for _ in range(2)] == ["hello", "progress"]


# Time


async def test_heartbeats_fill_every_silence(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"heartbeat_s": 0.3})) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording), headers) as stream:
            hello = await stream.block()
            assert hello.json["heartbeat_s"] == 0.3
            await stream.block()
            began_at = time.monotonic()
            for _ in range(4):
                block = await stream.block()
                assert list(block) == ["", "event", "data"]
                assert (block[""], block["event"]) == ("heartbeat", "heartbeat")
                assert block.json["worker_seen_at"] is None
                assert block.json["transport"] == "push"
            assert 1.2 <= time.monotonic() - began_at < 5
            assert b": heartbeat\nevent: heartbeat\ndata: {" in stream.body
            await site.services.pool.execute(
                "UPDATE sessions SET worker_seen_at = '2026-01-15T10:30:00.1234Z' WHERE id = $1",
                recording.id,
            )
            # One may be under way already.
            beats = [(await stream.until("heartbeat")).json for _ in range(2)]
            assert beats[-1]["worker_seen_at"] == "2026-01-15T10:30:00.123Z"
            assert set(beats[-1]) == {"timestamp", "worker_seen_at", "transport"}


async def test_silence_is_measured_from_the_last_byte(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"heartbeat_s": 1.0})) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.block()
            seen = [(await stream.block())["event"]]
            for _ in range(10):
                await asyncio.sleep(0.2)
                await recording.publish(progress=1)
                seen.append((await stream.block())["event"])
            assert set(seen) == {"progress"}
            last_at = time.monotonic()
            assert (await stream.block())["event"] == "heartbeat"
            assert time.monotonic() - last_at > 0.9


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


async def test_a_stream_outlives_the_frameworks_own_timeout(site: Site) -> None:
    site.app.config["RESPONSE_TIMEOUT"] = 0.2
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers) as stream:
        await stream.block()
        await stream.block()
        await asyncio.sleep(0.6)
        sent = await recording.publish(progress=10)
        assert (await stream.block()).row == sent.id


# Endings that are told


async def assert_told(stream: RawStream, event: str, most_ms: int = 5000) -> None:
    blocks = [block for block in await stream.rest() if block["event"] != "progress"]
    assert [block["event"] for block in blocks[-1:]] == [event]
    assert "id" not in blocks[-1]
    assert 1000 <= int(blocks[-1]["retry"]) <= most_ms
    assert stream.ended


@pytest.mark.criterion("AC-4.2.2")
async def test_a_stream_without_status_events_is_ended_as_idle(quick: WebSettings) -> None:
    assert quick.idle_timeout_s == 5 * 60
    settings = quick.model_copy(update={"idle_timeout_s": 0.8, "heartbeat_s": 0.3})
    async with running_site(settings) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.until("progress")
            await asyncio.sleep(0.5)
            await recording.publish(progress=10)
            await stream.until("progress")
            began_at = time.monotonic()
            await assert_told(stream, "idle")
            assert time.monotonic() - began_at > 0.7
        await eventually(lambda: site.open_streams() == 0)


async def test_streams_opened_together_end_apart(quick: WebSettings) -> None:
    settings = quick.model_copy(update={"max_lifetime_s": 2.0, "heartbeat_s": 0.3})
    async with running_site(settings) as site:
        recording, headers = await site.recording()

        async def live() -> float:
            async with requested(site, stream_path(recording), headers) as stream:
                await stream.block()
                began_at = time.monotonic()
                await assert_told(stream, "lifetime")
                return time.monotonic() - began_at

        lives_s = await asyncio.gather(*(live() for _ in range(40)))
        assert max(lives_s) - min(lives_s) > 0.2
        assert min(lives_s) > 1.5


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
    assert time.monotonic() - began_at < 2
    async with requested(site, stream_path(recording), headers) as stream:
        await assert_told(stream, "restarting", most_ms=10_000)


@pytest.mark.parametrize("way", ["revoked", "expired", "disabled"])
async def test_access_withdrawn_ends_the_stream(quick: WebSettings, way: str) -> None:
    async with running_site(quick.model_copy(update={"access_check_s": 0.1})) as site:
        recording, headers = await site.recording()
        statement = {
            "revoked": "UPDATE logins SET revoked_at = now() WHERE user_id = $1",
            "expired": "UPDATE logins SET created_at = '-infinity', expires_at = now() "
            "WHERE user_id = $1",
            "disabled": "UPDATE users SET disabled_at = now() WHERE id = $1",
        }[way]
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.until("progress")
            await asyncio.sleep(0.3)
            await recording.publish(progress=10)
            await stream.until("progress")
            await site.services.pool.execute(statement, recording.owner_id)
            await assert_told(stream, "unauthorized")
        async with requested(site, stream_path(recording), headers) as stream:
            assert stream.status == 401


async def test_a_therapist_no_longer_assigned_loses_the_stream(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"access_check_s": 0.1})) as site:
        recording, _ = await site.recording()
        therapist_id, headers = await site.sign_in(Role.THERAPIST)
        pool = site.services.pool
        await pool.execute(
            "INSERT INTO care_assignments VALUES ($1, $2)", therapist_id, recording.owner_id
        )
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.until("progress")
            await pool.execute("DELETE FROM care_assignments WHERE therapist_id = $1", therapist_id)
            await assert_told(stream, "unauthorized")
        async with requested(site, stream_path(recording), headers) as stream:
            assert stream.status == 403


async def test_a_database_that_is_away_takes_nobodys_access(site: Site, quick: WebSettings) -> None:
    recording, _ = await site.recording()
    asked = 0

    async def has_access() -> bool:
        nonlocal asked
        asked += 1
        raise ConnectionRefusedError

    stream = EventStream(
        recording.id,
        Start(after=recording.ids[0]),
        subscriber=site.services.subscriber,
        streams=OpenStreams(asyncio.Event()),
        settings=quick.model_copy(update={"access_check_s": 0.01}),
        has_access=has_access,
    )
    async with aclosing(stream.events()) as events:
        assert (await anext(events)).event is EventName.HELLO
        await eventually(lambda: asked > 2)
        await recording.publish(progress=10)
        assert (await anext(events)).event is EventName.PROGRESS


async def test_a_deleted_session_ends_its_streams(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"heartbeat_s": 0.3})) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.until("progress")
            await site.services.lifecycle.delete(recording.id)
            await assert_told(stream, "gone")
        async with requested(site, stream_path(recording), headers) as stream:
            assert stream.status == 404


# Leaving nothing behind


def fin(stream: RawStream) -> None:
    stream.writer.close()


def reset(stream: RawStream) -> None:
    raw: socket.socket = stream.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.writer.transport.abort()


def half_close(stream: RawStream) -> None:
    stream.writer.write_eof()


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
                await eventually(lambda: site.open_streams() == 0, within_s=5)
        health = site.services.listener.health
        await eventually(lambda: health().watches == 0 and health().channels == 0)
        await eventually(lambda: len(asyncio.all_tasks()) <= before)
        assert site.services.subscriber._feeds == {}


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


async def test_a_stream_that_never_began_holds_nothing(site: Site, quick: WebSettings) -> None:
    recording, _ = await site.recording()
    streams = OpenStreams(asyncio.Event())
    before = asyncio.all_tasks()
    stream = EventStream(
        recording.id,
        Start(),
        subscriber=site.services.subscriber,
        streams=streams,
        settings=quick,
    )
    unbegun = stream.frames()
    await unbegun.aclose()
    assert (len(streams), site.services.listener.health().watches) == (0, 0)
    begun = stream.frames()
    assert (await anext(begun)).startswith(b"retry: ")
    assert (len(streams), site.services.listener.health().watches) == (1, 1)
    await begun.aclose()
    assert (len(streams), site.services.listener.health().watches) == (0, 0)
    await eventually(lambda: asyncio.all_tasks() == before)


async def test_a_stream_that_breaks_still_ends_cleanly(
    site: Site, quick: WebSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, headers = await site.recording()

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(EventStream, "_heartbeat", broken)
    short = quick.model_copy(update={"heartbeat_s": 0.1})
    object.__setattr__(site.services, "settings", short)
    async with requested(site, stream_path(recording), headers) as stream:
        blocks = await stream.rest()
        assert [block["event"] for block in blocks] == ["hello", "progress"]
        assert stream.ended
    assert site.open_streams() == 0


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


def test_every_ending_is_an_event() -> None:
    told = {"idle", "lifetime", "restarting", "unauthorized", "gone", "replaced"}
    assert told <= {name.value for name in EventName}
