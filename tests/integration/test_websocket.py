"""The status stream over a WebSocket: the twin of the one over SSE, and no worse a guest."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import psutil
import pytest
from hypercorn.protocol import h2, h11

from jobs.database import Pool
from jobs.model import Role, Status
from quartapp import serve
from quartapp.hypercorn_wire import BoundedStream
from quartapp.settings import WebSettings
from tests.conformance.streams import connections, tokens
from tests.integration.streaming_fixtures import (
    Block,
    Recording,
    Site,
    eventually,
    requested,
    restart_recording,
    running_site,
    stream_path,
)
from tests.integration.websocket_client import (
    CLOSE,
    PING,
    TEXT,
    Client,
    assert_closed,
    bare_socket,
    connected,
    frame_head,
    handshake,
    message,
    refused,
    rest,
    socket_path,
    until,
)

KIB = 1024
MIB = 1024 * KIB
TOO_BIG = 1009
SILENT = {"hello", "heartbeat"}


@pytest.fixture
def quick(settings: WebSettings) -> WebSettings:
    """No limit in the way."""
    unlimited = {"streams_per_user": 1000, "stream_opens_per_minute": 1_000_000}
    return settings.model_copy(update=unlimited | {"request_limit": 1_000_000})


@pytest.fixture
async def site(quick: WebSettings) -> AsyncIterator[Site]:
    async with running_site(quick) as running:
        yield running


@pytest.fixture
async def own_limits(settings: WebSettings) -> AsyncIterator[Site]:
    """A site with the limits it has by default."""
    async with running_site(settings) as running:
        yield running


def told(blocks: list[Block]) -> list[tuple[str, str | None, Any]]:
    """What an SSE stream said of its session."""
    return [
        (block["event"], block.get("id"), block.json)
        for block in blocks
        if block["event"] not in SILENT
    ]


def said(messages: list[dict[str, Any]]) -> list[tuple[str, str | None, Any]]:
    """What a WebSocket said of its session."""
    return [
        (found["event"], found["id"], found["data"])
        for found in messages
        if found["event"] not in SILENT
    ]


async def nothing_left(site: Site) -> None:
    await eventually(lambda: site.open_streams() == 0, what="no stream")
    await eventually(lambda: site.services.listener.health().watches == 0, what="no watch")
    async with asyncio.timeout(10):
        while await site.services.pool.fetchval("SELECT count(*) FROM open_streams"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def reasons(pool: Pool, count: int) -> list[str]:
    """Why the streams closed, once so many have."""
    async with asyncio.timeout(10):
        while True:
            rows = await pool.fetch(
                "SELECT reason FROM stream_events "
                "WHERE kind = 'disconnect' AND transport = 'websocket' ORDER BY id"
            )
            if len(rows) >= count:
                return [row["reason"] for row in rows]
            await asyncio.sleep(0.01)


# The same script


async def begin(recording: Recording) -> None:
    """A first attempt that failed, and a second on its way."""
    await recording.publish(progress=10, pieces=2)
    await recording.publish(Status.FAILED, progress=10, message="The engine broke")
    await restart_recording(recording.publisher._pool, recording)
    await recording.publish(progress=25, pieces=1)


async def finish(recording: Recording) -> None:
    await recording.publish(progress=50, message='Half way: "so far", ünd no further', pieces=3)
    await recording.publish(progress=75)
    await recording.publish(Status.COMPLETED)


STARTS = [
    "",
    "replay=all",
    "last_event_id={0}",
    "last_event_id={3}",
    "last_event_id=17",
    "last_event_id=0-0",
    "last_event_id={1}-2",
    "last_event_id=nonsense",
]
UNKNOWN = {STARTS[4], STARTS[7]}


@pytest.mark.behaviour("MD-52")
@pytest.mark.parametrize("segments", [False, True])
async def test_the_same_query_gives_the_same_events_on_both(site: Site, segments: bool) -> None:
    for start in STARTS:
        recording, headers = await site.recording()
        await begin(recording)
        query = f"?{start.format(*recording.ids)}&segments={'true' if segments else 'false'}"
        async with (
            requested(site, stream_path(recording, query), headers) as stream,
            connected(site, socket_path(recording, query), headers) as client,
        ):
            blocks, messages = [await stream.block()], [await message(client)]
            assert blocks[0].json.keys() == messages[0]["data"].keys()
            while blocks[-1]["event"] != "progress":
                blocks.append(await stream.block())
            while messages[-1]["event"] != "progress":
                messages.append(await message(client))
            await finish(recording)
            on_sse = told(blocks + await stream.rest())
            assert said(messages + await rest(client)) == on_sse
            assert (client.close_code, client.close_reason) == (1000, "complete")
            names = [name for name, _, _ in on_sse]
            assert (names[0] == "reset") == (start in UNKNOWN)
            assert ("segment" in names) == segments
            assert names[-1] == "complete"


@pytest.mark.behaviour("MD-52")
async def test_the_header_names_the_last_event_too(site: Site) -> None:
    recording, headers = await site.recording()
    await begin(recording)
    resumed = headers | {"Last-Event-ID": str(recording.ids[1])}
    async with connected(site, socket_path(recording), resumed) as client:
        await recording.publish(Status.CANCELLED)
        ids = [int(event_id or 0) for _, event_id, _ in said(await rest(client))]
    assert ids == recording.ids[2:]


async def test_an_event_is_one_text_frame_with_its_name_its_id_and_its_data(site: Site) -> None:
    recording, headers = await site.recording()
    async with connected(site, socket_path(recording), headers) as client:
        hello, first = await message(client), await message(client)
        assert hello.keys() == {"event", "id", "data", "retry_ms"}
        assert 1000 <= hello["retry_ms"] <= 5000
        assert hello["id"] is None
        assert first.keys() == {"event", "id", "data"}
        assert first["id"] == str(recording.ids[0])
        assert first["data"]["id"] == recording.ids[0]
        assert set(client.opcodes) == {PING, TEXT}


async def test_who_has_seen_the_end_is_told_by_a_normal_close_that_there_is_no_more(
    site: Site,
) -> None:
    recording, headers = await site.recording()
    await recording.publish(Status.COMPLETED)
    for query in ("?last_event_id={}", "?last_event_id={}&segments=true"):
        path = socket_path(recording, query.format(recording.ids[-1]))
        async with connected(site, path, headers) as client:
            await assert_closed(client, 1000, "nothing_more")
    assert site.open_streams() == 0


async def test_who_comes_after_the_end_gets_it_at_once(site: Site) -> None:
    recording, headers = await site.recording()
    await recording.publish(Status.FAILED, message="The engine broke")
    async with connected(site, socket_path(recording), headers) as client:
        (last,) = said(await rest(client))
        assert last[0] == "failed"
        assert last[2]["error"] == {"code": "engine_failed", "message": "The engine broke"}
        assert (client.close_code, client.close_reason) == (1000, "failed")


# Who may


async def test_without_good_credentials_there_is_no_handshake(site: Site) -> None:
    recording, headers = await site.recording()
    cookie, _ = await tokens(site, recording.owner_id)
    spoiled = {"Authorization": headers["Authorization"] + "x"}
    for brought in ({}, spoiled, spoiled | {"Cookie": cookie}):
        status, code, answered = await refused(site, socket_path(recording), brought)
        assert (status, code) == (401, "unauthenticated")
        assert answered["WWW-Authenticate"].startswith("Bearer")
    assert site.open_streams() == 0


async def test_the_cookie_opens_one_as_well(site: Site) -> None:
    recording, headers = await site.recording()
    cookie, _ = await tokens(site, recording.owner_id)
    stranger, _ = await tokens(site, (await site.sign_in())[0])
    for brought in ({"Cookie": cookie}, headers | {"Cookie": stranger}):
        async with connected(site, socket_path(recording), brought) as client:
            await until(client, "progress")
    assert (await refused(site, socket_path(recording), {"Cookie": stranger}))[0] == 403


async def test_another_session_is_refused_and_none_is_not_found(site: Site) -> None:
    recording, _ = await site.recording()
    _, patient = await site.sign_in()
    _, therapist = await site.sign_in(Role.THERAPIST)
    for stranger in (patient, therapist):
        status, code, _ = await refused(site, socket_path(recording), stranger)
        assert (status, code) == (403, "forbidden")
    for nowhere in (f"/api/v1/sessions/{uuid4()}/status/ws", "/api/v1/sessions/1/status/ws"):
        assert (await refused(site, nowhere, therapist))[0] == 404
    _, admin = await site.sign_in(Role.ADMIN)
    async with connected(site, socket_path(recording), admin) as client:
        await until(client, "progress")


@pytest.mark.parametrize("root", ["/api/v1", "/api"])
@pytest.mark.behaviour("MD-52")
async def test_a_page_of_another_origin_is_refused(site: Site, root: str) -> None:
    recording, headers = await site.recording()
    path = f"{root}/sessions/{recording.id}/status/ws"
    cookie, _ = await tokens(site, recording.owner_id)
    elsewhere = ["https://elsewhere.example", "null", "http://127.0.0.1:1", "http://[", "file://"]
    for origin in elsewhere:
        for brought in (headers, {"Cookie": cookie}, {}):
            status, code, _ = await refused(site, path, brought, origin)
            assert (status, code) == (403, "origin")


@pytest.mark.behaviour("MD-52")
async def test_a_page_of_our_own_is_not(site: Site) -> None:
    recording, _ = await site.recording()
    cookie, _ = await tokens(site, recording.owner_id)
    own = f"http://127.0.0.1:{site.port}"
    async with connected(site, socket_path(recording), {"Cookie": cookie}, origin=own) as client:
        await until(client, "progress")


async def test_a_client_id_that_is_none_is_refused(site: Site) -> None:
    recording, headers = await site.recording()
    for client_id in ("a" * 65, "tab%201", "%3Cscript%3E"):
        path = socket_path(recording, f"?client_id={client_id}")
        assert (await refused(site, path, headers))[:2] == (422, "invalid_client_id")


@pytest.mark.criterion("AC-4.2.1")
@pytest.mark.behaviour("MD-52")
async def test_the_slots_are_those_of_sse(own_limits: Site) -> None:
    site = own_limits
    recording, headers = await site.recording()
    async with (
        requested(site, stream_path(recording), headers) as stream,
        connected(site, socket_path(recording), headers) as client,
    ):
        await stream.until("progress")
        async with connected(site, socket_path(recording), headers):
            status, code, answered = await refused(site, socket_path(recording), headers)
            assert (status, code) == (429, "too_many_streams")
            assert 5 <= int(answered["Retry-After"]) <= 16
            async with requested(site, stream_path(recording), headers) as fourth:
                assert fourth.status == 429
        await eventually(lambda: site.open_streams() == 2)
        async with connected(site, socket_path(recording), headers):
            await until(client, "progress")


async def test_too_many_opens_in_a_minute_are_refused(settings: WebSettings) -> None:
    async with running_site(settings.model_copy(update={"stream_opens_per_minute": 2})) as site:
        recording, headers = await site.recording()
        for _ in range(2):
            async with connected(site, socket_path(recording), headers):
                pass
        status, code, answered = await refused(site, socket_path(recording), headers)
        assert (status, code) == (429, "rate_limited")
        assert 1 <= int(answered["Retry-After"]) <= 61


async def test_handshakes_are_limited_by_address_before_anybody_is_known(
    settings: WebSettings,
) -> None:
    async with running_site(settings.model_copy(update={"request_limit": 5})) as site:
        recording, _ = await site.recording()
        statuses = [(await refused(site, socket_path(recording)))[0] for _ in range(8)]
        assert statuses == [401] * 5 + [429] * 3


async def test_a_full_process_refuses(settings: WebSettings) -> None:
    async with running_site(settings.model_copy(update={"max_streams": 1})) as site:
        recording, headers = await site.recording()
        another, others = await site.recording()
        async with connected(site, socket_path(recording), headers):
            status, code, answered = await refused(site, socket_path(another), others)
            assert (status, code) == (503, "at_capacity")
            assert 1 <= int(answered["Retry-After"]) <= 16
        await eventually(lambda: site.open_streams() == 0)
        async with connected(site, socket_path(another), others):
            pass


async def test_an_ordinary_request_for_it_is_no_handshake(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, socket_path(recording), headers) as answer:
        assert answer.status == 400
        assert answer.header("Content-Type") == "application/problem+json"
    broken = headers | {"Upgrade": "websocket", "Connection": "Upgrade"}
    async with requested(site, socket_path(recording), broken) as answer:
        assert answer.status == 400
        assert await answer.reader.read() == b""  # and the connection is closed
    assert site.open_streams() == 0


# How it ends


async def test_it_closes_after_the_last_event(site: Site, pool: Pool) -> None:
    names = {
        Status.COMPLETED: "complete",
        Status.FAILED: "failed",
        Status.CANCELLED: "cancelled",
    }
    for status, name in names.items():
        recording, headers = await site.recording()
        async with connected(site, socket_path(recording), headers) as client:
            await until(client, "progress")
            await recording.publish(status)
            assert (await message(client))["event"] == name
            await assert_closed(client, 1000, name)
    assert await reasons(pool, 3) == list(names.values())
    await nothing_left(site)


@pytest.mark.parametrize(
    ("ending", "setting"), [("idle", "idle_timeout_s"), ("lifetime", "max_lifetime_s")]
)
async def test_it_says_that_its_time_is_over(quick: WebSettings, ending: str, setting: str) -> None:
    async with running_site(quick.model_copy(update={setting: 0.3})) as site:
        recording, headers = await site.recording()
        async with connected(site, socket_path(recording), headers) as client:
            last = await until(client, ending)
            assert last["id"] is None
            assert 1000 <= last["retry_ms"] <= 5000
            await assert_closed(client, 1000, ending)


async def test_who_signs_out_is_told_and_cut_off(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"access_check_s": 0.1})) as site:
        recording, headers = await site.recording()
        async with connected(site, socket_path(recording), headers) as client:
            await until(client, "progress")
            await site.services.pool.execute(
                "UPDATE logins SET revoked_at = now() WHERE user_id = $1", recording.owner_id
            )
            await until(client, "unauthorized")
            await assert_closed(client, 1008, "unauthorized")
        assert (await refused(site, socket_path(recording), headers))[0] == 401


async def test_the_same_tab_replaces_its_own_even_one_over_sse(own_limits: Site) -> None:
    site = own_limits
    recording, headers = await site.recording()
    query = "?client_id=tab"
    async with (
        requested(site, stream_path(recording, query), headers) as first,
        connected(site, socket_path(recording, query), headers) as second,
        connected(site, socket_path(recording, query), headers) as third,
    ):
        await first.until("replaced")
        await until(second, "replaced")
        await assert_closed(second, 1000, "replaced")
        await recording.publish(progress=10)
        assert (await until(third, "progress"))["id"] is not None


async def test_a_deleted_session_is_gone(site: Site) -> None:
    recording, headers = await site.recording()
    async with connected(site, socket_path(recording), headers) as client:
        await until(client, "progress")
        await site.services.pool.execute("DELETE FROM sessions WHERE id = $1", recording.id)
        await site.services.pool.execute(
            "SELECT pg_notify('transcription:status:' || $1, json_build_object('session_id', $1)::text)",  # noqa: E501
            str(recording.id),
        )
        await until(client, "gone")
        await assert_closed(client, 1000, "gone")
    await nothing_left(site)


@pytest.mark.behaviour("MD-54")
async def test_a_server_that_stops_says_so_at_once_and_to_those_who_come_then(
    site: Site,
) -> None:
    recording, headers = await site.recording()
    async with connected(site, socket_path(recording), headers) as client:
        await until(client, "progress")
        site.services.drain.set()
        last = await until(client, "restarting")
        assert 1000 <= last["retry_ms"] <= 10_000
        await assert_closed(client, 1012, "restarting")
        async with connected(site, socket_path(recording), headers) as late:
            assert [found["event"] for found in await rest(late)] == ["hello", "restarting"]
            assert late.close_code == 1012


async def test_one_that_breaks_is_closed_as_an_error(
    quick: WebSettings, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_site(quick.model_copy(update={"heartbeat_s": 0.1})) as site:
        recording, headers = await site.recording()

        def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("quartapp.streaming.event_stream.heartbeat", broken)
        async with connected(site, socket_path(recording), headers) as client:
            await until(client, "progress")
            await assert_closed(client, 1011, "error")
        assert await reasons(pool, 1) == ["error"]
        await nothing_left(site)


# Clients that leave, talk, or do not read


async def close(client: Client) -> None:
    await client.close()


async def abort(client: Client) -> None:
    client.transport.abort()


async def half_close(client: Client) -> None:
    client.transport.write_eof()


@pytest.mark.behaviour("MD-38")
@pytest.mark.criterion("AC-1.1.9")
async def test_a_client_that_leaves_leaves_nothing(site: Site, pool: Pool) -> None:
    recording, headers = await site.recording()
    before = len(asyncio.all_tasks())
    for leave in (close, abort, half_close):
        for messages in range(3):
            async with connected(site, socket_path(recording), headers) as client:
                for _ in range(messages):
                    await message(client)
                await leave(client)
                await eventually(lambda: site.open_streams() == 0, within_s=10)
    await nothing_left(site)
    assert await reasons(pool, 9) == ["client"] * 9
    # What sends pings would otherwise hold on to it for one interval more.
    await eventually(lambda: connections(site) == 0, within_s=10, what="the end of the connections")
    await eventually(lambda: len(asyncio.all_tasks()) <= before, within_s=10, what="no task")


async def test_what_a_client_says_is_dropped(site: Site) -> None:
    recording, headers = await site.recording()
    async with connected(site, socket_path(recording), headers) as client:
        await until(client, "progress")
        await client.send("")
        for _ in range(1000):
            await client.send("tell me more")
            await client.send(b"\0" * 4 * KIB)
        await client.send(["many ", "small ", "pieces"] * 100)
        await (await client.ping())
        sent = await recording.publish(progress=10)
        assert (await until(client, "progress"))["id"] == str(sent.id)


async def bare(site: Site, stack: AsyncExitStack, **options: Any) -> tuple[Recording, Any, bytes]:
    recording, headers = await site.recording()
    client, head = await stack.enter_async_context(
        bare_socket(site, socket_path(recording), headers, **options)
    )
    return recording, client, head


@pytest.mark.parametrize("pieces", [False, True], ids=["one frame", "many frames"])
async def test_a_message_without_end_is_cut_and_never_kept(site: Site, pieces: bool) -> None:
    process = psutil.Process(os.getpid())
    async with AsyncExitStack() as stack:
        _, client, _ = await bare(site, stack)
        before = process.memory_info().rss
        sent = 0
        if not pieces:
            client.writer.write(frame_head(TEXT, 1024 * MIB))
        try:
            while sent < 64 * MIB and site.open_streams():
                if pieces:
                    client.send(TEXT if sent == 0 else 0, b"x" * 64 * KIB, fin=False)
                else:
                    client.writer.write(b"x" * 64 * KIB)
                await client.writer.drain()
                sent += 64 * KIB
        except ConnectionError:
            pass
        assert sent < 16 * MIB  # what fits the buffers on the way
        assert process.memory_info().rss - before < 16 * MIB
        await nothing_left(site)
        ended = await client.ended()
        if TOO_BIG.to_bytes(2) in ended:  # a reset may have overtaken it
            assert ended.index(bytes([0x80 | CLOSE])) < ended.index(TOO_BIG.to_bytes(2))


async def test_a_message_too_big_is_called_so(site: Site) -> None:
    recording, headers = await site.recording()
    async with connected(site, socket_path(recording), headers) as client:
        await until(client, "progress")
        await client.send("x" * 5000)
        await rest(client)
        assert client.close_code == TOO_BIG
    await nothing_left(site)


NONSENSE = {
    "noise": b"\xff" * 100,
    "unmasked": b"\x81\x05hello",
    "no text": b"\x81\xfe\0\x02\0\0\0\0\xff\xff",
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "half a close code": bytes([0x80 | CLOSE, 0x81, 0, 0, 0, 0, 1]),
    "a close in pieces": bytes([CLOSE, 0x80, 0, 0, 0, 0]) * 3,
    "closed twice": bytes([0x80 | CLOSE, 0x80, 0, 0, 0, 0]) * 2 + b"\x81\x80\0\0\0\0",
}


async def test_nonsense_ends_the_stream_of_its_sender_alone(site: Site) -> None:
    other, others = await site.recording()
    async with connected(site, socket_path(other), others) as bystander, AsyncExitStack() as stack:
        await until(bystander, "progress")
        for name, nonsense in NONSENSE.items():
            _, client, _ = await bare(site, stack)
            await eventually(lambda: site.open_streams() == 2)
            client.writer.write(nonsense)
            await eventually(lambda: site.open_streams() == 1, what=f"the end of {name}")
            await client.ended()
            sent = await other.publish(progress=10)
            assert (await until(bystander, "progress"))["id"] == str(sent.id)


async def test_one_who_speaks_before_it_is_accepted_holds_nothing(site: Site) -> None:
    async with AsyncExitStack() as stack:
        _, client, head = await bare(site, stack, early=frame_head(TEXT, 2) + b"hi")
        assert head.startswith(b"HTTP/1.1 400")
        await client.ended()
        await nothing_left(site)
        assert connections(site) == 0


async def test_one_who_goes_before_it_is_accepted_holds_nothing(site: Site) -> None:
    recording, headers = await site.recording()
    for early in (b"", b"\x88\x80\0\0\0\0") * 10:
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(handshake(site, socket_path(recording), headers) + early)
        await writer.drain()
        writer.close()
    await eventually(lambda: connections(site) == 0, within_s=10)
    await nothing_left(site)


@pytest.mark.behaviour("MD-37")
@pytest.mark.criterion("AC-4.2.5")
async def test_one_who_does_not_read_is_cut_delays_nobody_and_may_resume(
    quick: WebSettings, pool: Pool
) -> None:
    settings = quick.model_copy(update={"stream_write_timeout_s": 2.0})
    async with running_site(settings) as site:
        recording, headers = await site.recording()
        path = socket_path(recording)
        async with (
            connected(site, path, headers) as reader,
            bare_socket(site, path, headers, receive_bytes=4096),
        ):
            await until(reader, "progress")
            await eventually(lambda: site.open_streams() == 2)
            for number in range(400):
                sent = await recording.publish(progress=number // 5, message="x" * 2000)
                assert (await until(reader, "progress"))["id"] == str(sent.id)
            await eventually(lambda: site.open_streams() == 1, what="the cut")
            assert await reasons(pool, 1) == ["slow"]
            await eventually(lambda: connections(site) == 1, what="the end of the connection")
        await nothing_left(site)
        query = f"?last_event_id={recording.ids[3]}"
        async with connected(site, socket_path(recording, query), headers) as client:
            for event_id in recording.ids[4:]:
                assert (await until(client, "progress"))["id"] == str(event_id)


async def test_one_who_pings_and_reads_no_answer_is_cut_too(quick: WebSettings) -> None:
    settings = quick.model_copy(update={"stream_write_timeout_s": 1.0, "heartbeat_s": 0.2})
    async with running_site(settings) as site, AsyncExitStack() as stack:
        _, client, _ = await bare(site, stack, receive_bytes=4096)
        flood = (frame_head(PING, 125) + b"x" * 125) * 100
        with pytest.raises((ConnectionError, TimeoutError)):
            async with asyncio.timeout(10):
                while site.open_streams():
                    client.writer.write(flood)
                    await client.writer.drain()
                raise ConnectionResetError
        await nothing_left(site)


# The wire


async def test_the_server_pings_while_there_is_nothing_to_say(
    quick: WebSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serve.WEBSOCKET_PING_S == 20
    monkeypatch.setattr(serve, "WEBSOCKET_PING_S", 0.1)
    async with running_site(quick) as site:
        recording, headers = await site.recording()
        async with connected(site, socket_path(recording), headers) as client:
            await until(client, "progress")
            await eventually(lambda: client.opcodes.count(PING) >= 4, what="pings")
            assert client.opcodes.count(TEXT) == 2
            assert site.open_streams() == 1


async def test_it_is_not_compressed_though_the_client_offers_it(site: Site) -> None:
    recording, headers = await site.recording()
    async with connected(site, socket_path(recording), headers, compression="deflate") as client:
        await until(client, "progress")
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


def test_the_server_uses_our_sockets_on_every_version_of_http() -> None:
    assert h11.WSStream is BoundedStream  # type: ignore[attr-defined]
    assert h2.WSStream is BoundedStream  # type: ignore[attr-defined]


async def test_a_hundred_sockets_get_every_event(site: Site) -> None:
    recording, headers = await site.recording()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connected(site, socket_path(recording), headers))
            for _ in range(100)
        ]
        for client in clients:
            await until(client, "progress")
        await finish(recording)
        for client in clients:
            assert [int(i or 0) for _, i, _ in said(await rest(client))] == recording.ids[1:]
    await nothing_left(site)
