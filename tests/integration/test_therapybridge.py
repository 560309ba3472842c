"""The TherapyBridge dialect: its three events and their bodies, over SSE and WebSocket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from jobs.model import Role, Status, StatusMessage
from quartapp.accounts import delete_assignment, insert_assignment
from quartapp.settings import WebSettings
from quartapp.streaming.encoder import EventName
from quartapp.streaming.therapybridge import NAMES, STATUSES
from tests.conformance.streams import tokens
from tests.integration.streaming_fixtures import (
    Block,
    RawStream,
    Recording,
    Site,
    eventually,
    requested,
    restart_recording,
    running_site,
    stream_path,
)
from tests.integration.websocket_client import (
    assert_closed,
    connected,
    message,
    refused,
    rest,
    socket_path,
)

WORDS = {
    "queued": "queued",
    "processing": "transcribing",
    "completed": "processed",
    "failed": "failed",
    "cancelled": "failed",
}


@pytest.fixture
def quick(settings: WebSettings) -> WebSettings:
    """No limit in the way."""
    unlimited = {"streams_per_user": 1000, "stream_opens_per_minute": 1_000_000}
    return settings.model_copy(update=unlimited | {"request_limit": 1_000_000})


@pytest.fixture
async def site(quick: WebSettings) -> AsyncIterator[Site]:
    async with running_site(quick) as running:
        yield running


def dialect_path(recording: Recording, query: str = "", kind: str = "stream") -> str:
    return f"/api/sessions/{recording.id}/status/{kind}{query}"


async def event(stream: RawStream) -> Block:
    """The next block that is an event; the others are comments."""
    while "event" not in (block := await stream.block()):
        assert "data" not in block
        assert "id" not in block
    return block


async def events(stream: RawStream) -> list[Block]:
    """All events to the end of the stream."""
    return [block for block in await stream.rest() if "event" in block]


def parsed(stream: RawStream) -> list[tuple[str, str]]:
    """Names and ids as another parser sees them. It makes an event without data even of a comment;
    by the standard (WHATWG HTML, section 9.2.6) that is none."""
    return [(name, event_id) for name, data, event_id in stream.as_parsed_by_httpx_sse() if data]


def told(blocks: list[Block]) -> list[tuple[str, str | None, Any]]:
    return [(block["event"], block.get("id"), block.json) for block in blocks]


def said(messages: list[dict[str, Any]]) -> list[tuple[str, str | None, Any]]:
    return [(found["event"], found["id"], found["data"]) for found in messages]


def body(message: StatusMessage) -> dict[str, Any]:
    """What the dialect says of an event, by hand."""
    fields = message.fields()
    expected = {
        "session_id": fields["session_id"],
        "status": WORDS[fields["status"]],
        "progress": fields["progress"],
        "message": fields["message"],
        "updated_at": fields["timestamp"],
    }
    if fields["status"] == "failed":
        expected["error"] = fields["error"]["message"]
    if fields["status"] == "cancelled":
        expected["error"] = fields["message"]
    return expected


# What it says


@pytest.mark.criterion("TB-1")
async def test_a_success_is_progress_and_then_complete(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, dialect_path(recording), headers) as stream:
        first = await event(stream)
        assert first.json == {
            "session_id": str(recording.id),
            "status": "queued",
            "progress": 0,
            "message": "Waiting for its turn",
            "updated_at": recording.published[0].fields()["timestamp"],
        }
        await recording.publish(progress=25, message='Ünïcode, "quotes"\nand lines')
        await recording.publish(Status.COMPLETED, message="Done")
        blocks = [first, *await events(stream)]
        assert stream.ended
    names = ["progress", "progress", "complete"]
    expected = zip(names, recording.published, strict=True)
    assert told(blocks) == [(name, str(sent.id), body(sent)) for name, sent in expected]
    assert [block.json["status"] for block in blocks] == ["queued", "transcribing", "processed"]
    assert [list(block.json) for block in blocks] == [list(first.json)] * 3
    assert parsed(stream) == [(block["event"], block["id"]) for block in blocks]


@pytest.mark.criterion("TB-1")
async def test_a_failure_and_a_cancelling_are_an_error(site: Site) -> None:
    for status in (Status.FAILED, Status.CANCELLED):
        recording, headers = await site.recording()
        await recording.publish(progress=25)
        async with requested(site, dialect_path(recording), headers) as stream:
            await event(stream)
            sent = await recording.publish(status, progress=25, message="It is no speech")
            (block,) = await events(stream)
            assert (block["event"], block.row) == ("error", sent.id)
            assert block.json == body(sent)
            assert block.json["status"] == "failed"
            assert block.json["error"] == "It is no speech"
            assert stream.ended


@pytest.mark.criterion("TB-1")
def test_there_are_three_names_and_four_statuses() -> None:
    assert set(NAMES.values()) == {"progress", "complete", "error"}
    assert {status.value: STATUSES[status] for status in Status} == WORDS
    silent = set(EventName) - NAMES.keys()
    assert {name.value for name in silent} == {
        "hello",
        "segment",
        "reset",
        "heartbeat",
        "idle",
        "lifetime",
        "restarting",
        "replaced",
    }


@pytest.mark.criterion("TB-2")
async def test_silence_is_filled_with_comments(quick: WebSettings) -> None:
    assert WebSettings.model_fields["heartbeat_s"].default == 15
    async with running_site(quick.model_copy(update={"heartbeat_s": 0.2})) as site:
        recording, headers = await site.recording()
        async with requested(site, dialect_path(recording), headers) as stream:
            await event(stream)
            for _ in range(3):
                assert await stream.block() == {"": "heartbeat"}
            assert stream.body.endswith(b"\n\n: heartbeat\n\n: heartbeat\n\n: heartbeat\n\n")
            await recording.publish(progress=10)
            assert (await event(stream)).row == recording.ids[-1]
        assert [name for name, _ in parsed(stream)] == ["progress"] * 2


async def test_segments_are_not_of_the_dialect(site: Site) -> None:
    recording, headers = await site.recording()
    query = "?segments=true&replay=all"
    async with (
        requested(site, dialect_path(recording, query), headers) as stream,
        connected(site, dialect_path(recording, query, "ws"), headers) as client,
    ):
        await recording.publish(progress=10, pieces=3)
        await recording.publish(Status.COMPLETED)
        for found in (told(await events(stream)), said(await rest(client))):
            assert [name for name, *_ in found] == ["progress", "progress", "complete"]


@pytest.mark.parametrize(
    ("ending", "setting"), [("idle", "idle_timeout_s"), ("lifetime", "max_lifetime_s")]
)
async def test_other_ends_are_comments_with_the_time_to_come_back(
    quick: WebSettings, ending: str, setting: str
) -> None:
    async with running_site(quick.model_copy(update={setting: 0.3})) as site:
        recording, headers = await site.recording()
        async with (
            requested(site, dialect_path(recording), headers) as stream,
            connected(site, dialect_path(recording, kind="ws"), headers) as client,
        ):
            blocks = await stream.rest()
            assert (blocks[0][""], blocks[-1][""]) == ("hello", ending)
            for block in (blocks[0], blocks[-1]):
                assert block.keys() == {"", "retry"}
                assert 1000 <= int(block["retry"]) <= 5000
            assert [block["event"] for block in blocks[1:-1]] == ["progress"]
            assert (await message(client))["event"] == "progress"
            await assert_closed(client, 1000, ending)


async def test_a_stop_of_the_server_is_told(site: Site) -> None:
    recording, headers = await site.recording()
    async with (
        requested(site, dialect_path(recording), headers) as stream,
        connected(site, dialect_path(recording, kind="ws"), headers) as client,
    ):
        await event(stream)
        await message(client)
        site.services.drain.set()
        (block,) = await stream.rest()
        assert block.keys() == {"", "retry"}
        assert block[""] == "restarting"
        await assert_closed(client, 1012, "restarting")


async def test_a_deleted_session_is_an_error(site: Site) -> None:
    recording, headers = await site.recording()
    async with (
        requested(site, dialect_path(recording), headers) as stream,
        connected(site, dialect_path(recording, kind="ws"), headers) as client,
    ):
        await recording.publish(progress=40)
        async with requested(site, stream_path(recording), headers) as watching:
            await watching.until("progress")
        while (await event(stream)).json["progress"] != 40:
            pass
        while (await message(client))["data"]["progress"] != 40:
            pass
        await site.services.lifecycle.delete(recording.id)
        ((name, event_id, data),) = told(await events(stream))
        assert (name, event_id) == ("error", None)
        assert data == {
            "session_id": str(recording.id),
            "status": "failed",
            "progress": 40,
            "message": "This session has been deleted.",
            "updated_at": data["updated_at"],
            "error": "This session has been deleted.",
        }
        ((name, event_id, same),) = said(await rest(client))
        assert (name, event_id) == ("error", None)
        assert same == data | {"updated_at": same["updated_at"]}
        assert (client.close_code, client.close_reason) == (1000, "gone")
    async with requested(site, dialect_path(recording), headers) as answer:
        assert answer.status == 404


# From where on


async def test_it_resumes_after_the_last_event_and_ends_with_204(site: Site) -> None:
    recording, headers = await site.recording()
    for progress in (10, 20, 30):
        await recording.publish(progress=progress)
    await recording.publish(Status.COMPLETED)
    for number, last in enumerate(recording.ids[:-1]):
        resumed = headers | {"Last-Event-ID": str(last)}
        async with requested(site, dialect_path(recording), resumed) as stream:
            assert [block.row for block in await events(stream)] == recording.ids[number + 1 :]
    seen = headers | {"Last-Event-ID": str(recording.ids[-1])}
    async with requested(site, dialect_path(recording), seen) as answer:
        assert answer.status == 204
    path = dialect_path(recording, f"?last_event_id={recording.ids[-1]}", "ws")
    async with connected(site, path, headers) as client:
        await assert_closed(client, 1000, "nothing_more")
    unknown = headers | {"Last-Event-ID": "17"}
    async with requested(site, dialect_path(recording), unknown) as stream:
        assert told(await events(stream)) == [
            ("complete", str(recording.ids[-1]), body(recording.published[-1]))
        ]


async def test_a_failure_that_was_tried_again_is_progress(site: Site) -> None:
    recording, headers = await site.recording()
    await recording.publish(progress=10)
    failed = await recording.publish(Status.FAILED, progress=10, message="The engine broke")
    await restart_recording(site.services.pool, recording)
    path = dialect_path(recording, "?replay=all")
    async with requested(site, path, headers) as stream:
        blocks = [await event(stream) for _ in range(4)]
        await recording.publish(Status.COMPLETED)
        blocks += await events(stream)
    assert [block["event"] for block in blocks] == ["progress"] * 4 + ["complete"]
    assert told(blocks)[2] == ("progress", str(failed.id), body(failed))
    assert blocks[2].json["error"] == "The engine broke"
    assert "error" not in blocks[3].json


# Who may


@pytest.mark.criterion("TB-3")
async def test_each_role_opens_what_it_may_see(site: Site) -> None:
    recording, owner = await site.recording()
    _, patient = await site.sign_in()
    therapist_id, therapist = await site.sign_in(Role.THERAPIST)
    _, admin = await site.sign_in(Role.ADMIN)
    spoiled = {"Authorization": owner["Authorization"] + "x"}
    pool = site.services.pool

    async def status(headers: dict[str, str], path: str = dialect_path(recording)) -> int:
        """Of the stream, and the same of the WebSocket."""
        async with requested(site, path, headers) as answer:
            if answer.status == 200:
                assert (await event(answer))["event"] == "progress"
                async with connected(site, path.replace("/stream", "/ws"), headers) as client:
                    assert (await message(client))["event"] == "progress"
            else:
                assert answer.header("Content-Type") == "application/problem+json"
                assert b"event:" not in await answer.to_end()
                on_socket = await refused(site, path.replace("/stream", "/ws"), headers)
                assert on_socket[0] == answer.status
            return answer.status

    assert await status(owner) == 200
    assert await status({}) == 401
    assert await status(spoiled) == 401
    assert await status(patient) == 403
    assert await status(therapist) == 403
    await insert_assignment(pool, therapist_id, recording.owner_id)
    assert await status(therapist) == 200
    await delete_assignment(pool, therapist_id, recording.owner_id)
    assert await status(therapist) == 403
    assert await status(admin) == 200
    for headers in (owner, therapist, admin):
        assert await status(headers, f"/api/sessions/{uuid4()}/status/stream") == 404
        assert await status(headers, "/api/sessions/1/status/stream") == 404
    assert await status({}, f"/api/sessions/{uuid4()}/status/stream") == 401


@pytest.mark.criterion("TB-3")
async def test_access_that_is_withdrawn_is_an_error_and_the_end(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"access_check_s": 0.1})) as site:
        recording, _ = await site.recording()
        therapist_id, headers = await site.sign_in(Role.THERAPIST)
        await insert_assignment(site.services.pool, therapist_id, recording.owner_id)
        async with (
            requested(site, dialect_path(recording), headers) as stream,
            connected(site, dialect_path(recording, kind="ws"), headers) as client,
        ):
            await event(stream)
            await message(client)
            await delete_assignment(site.services.pool, therapist_id, recording.owner_id)
            (block,) = await events(stream)
            assert block["event"] == "error"
            assert block.json["error"].startswith("You are signed out, or may not see")
            assert (await message(client))["event"] == "error"
            await assert_closed(client, 1008, "unauthorized")


async def test_the_cookie_of_a_page_opens_it_too_unless_it_is_a_foreign_one(site: Site) -> None:
    recording, _ = await site.recording()
    cookie, _ = await tokens(site, recording.owner_id)
    async with requested(site, dialect_path(recording), {"Cookie": cookie}) as stream:
        assert (await event(stream)).row == recording.ids[0]
    path = dialect_path(recording, kind="ws")
    async with connected(site, path, {"Cookie": cookie}) as client:
        assert (await message(client))["id"] == str(recording.ids[0])
    foreign = await refused(site, path, {"Cookie": cookie}, "https://elsewhere.example")
    assert foreign[:2] == (403, "origin")


@pytest.mark.criterion("TB-4")
async def test_the_headers_keep_proxies_from_holding_it_back(site: Site) -> None:
    recording, headers = await site.recording()
    for method in ("GET", "HEAD"):
        async with requested(site, dialect_path(recording), headers, method=method) as answer:
            assert answer.status == 200
            assert answer.header("Content-Type") == "text/event-stream"
            assert answer.header("Cache-Control") == "no-cache, no-store, no-transform"
            assert answer.header("Connection") == "keep-alive"
            assert answer.header("X-Accel-Buffering") == "no"
            assert answer.header("Content-Encoding") is None
            assert answer.header("Content-Length") is None
    asked = headers | {"Accept": "application/json"}
    async with requested(site, dialect_path(recording), asked) as answer:
        assert answer.status == 406
    packed = headers | {"Accept-Encoding": "gzip, br, zstd"}
    async with requested(site, dialect_path(recording), packed) as stream:
        assert stream.header("Content-Encoding") is None
        assert (await event(stream)).row == recording.ids[0]


@pytest.mark.criterion("AC-4.2.1")
async def test_its_slots_are_those_of_all_streams(settings: WebSettings) -> None:
    async with running_site(settings) as site:
        recording, headers = await site.recording()
        async with (
            requested(site, dialect_path(recording), headers) as stream,
            connected(site, dialect_path(recording, kind="ws"), headers) as client,
            connected(site, socket_path(recording), headers),
        ):
            await event(stream)
            await message(client)
            for path in (dialect_path(recording), stream_path(recording)):
                async with requested(site, path, headers) as fourth:
                    assert fourth.status == 429
            assert (await refused(site, dialect_path(recording, kind="ws"), headers))[0] == 429
        await eventually(lambda: site.open_streams() == 0)


# Beside each other


@pytest.mark.criterion("TB-6")
@pytest.mark.behaviour("MD-52")
async def test_the_websocket_tells_the_same(site: Site) -> None:
    for query in ("", "?replay=all", "?last_event_id={1}", "?last_event_id=17"):
        recording, headers = await site.recording()
        await recording.publish(progress=10)
        await recording.publish(Status.FAILED, message="The engine broke")
        await restart_recording(site.services.pool, recording)
        asked = query.format(*recording.ids)
        async with (
            requested(site, dialect_path(recording, asked), headers) as stream,
            connected(site, dialect_path(recording, asked, "ws"), headers) as client,
        ):
            blocks, messages = [await event(stream)], [await message(client)]
            await recording.publish(progress=25)
            await recording.publish(Status.COMPLETED)
            on_sse = told(blocks + await events(stream))
            assert said(messages + await rest(client)) == on_sse
            assert on_sse[-1] == ("complete", str(recording.ids[-1]), body(recording.published[-1]))
            assert (client.close_code, client.close_reason) == (1000, "complete")


@pytest.mark.criterion("TB-7")
async def test_instances_tell_the_same_and_count_together(settings: WebSettings) -> None:
    async with running_site(settings) as here, running_site(settings) as there:
        recording, headers = await here.recording()
        async with (
            requested(here, dialect_path(recording), headers) as one,
            requested(there, dialect_path(recording), headers) as other,
            connected(there, dialect_path(recording, kind="ws"), headers) as client,
        ):
            blocks, others = [await event(one)], [await event(other)]
            messages = [await message(client)]
            for site in (here, there):
                async with requested(site, dialect_path(recording), headers) as fourth:
                    assert fourth.status == 429
            for progress in range(10, 100, 10):
                await recording.publish(progress=progress)
            await recording.publish(Status.COMPLETED)
            blocks += await events(one)
            assert told(blocks) == told(others + await events(other))
            assert told(blocks) == said(messages + await rest(client))
            assert [block.row for block in blocks] == recording.ids
        # What one has told, the other goes on from.
        resumed = headers | {"Last-Event-ID": str(recording.ids[4])}
        async with requested(there, dialect_path(recording), resumed) as stream:
            assert [block.row for block in await events(stream)] == recording.ids[5:]
