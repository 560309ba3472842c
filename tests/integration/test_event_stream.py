"""The script of a stream by itself, without a client. What clients see: tests/conformance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from quartapp.settings import WebSettings
from quartapp.streaming.encoder import EventName
from quartapp.streaming.event_stream import EventStream, Start, as_blocks
from quartapp.streaming.open_streams import OpenStream
from quartapp.streaming.slots import Transport
from tests.integration.streaming_fixtures import (
    Recording,
    Site,
    eventually,
    make_recording,
    requested,
    running_site,
    stream_path,
)


@pytest.fixture
async def site(settings: WebSettings) -> AsyncIterator[Site]:
    async with running_site(settings) as running:
        yield running


@pytest.fixture
async def recording(site: Site) -> Recording:
    return await make_recording(site.services.pool)


def open_stream(recording: Recording) -> OpenStream:
    return OpenStream(
        user_id=recording.owner_id,
        login_id=uuid4(),
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        session_id=recording.id,
        owner_id=recording.owner_id,
        transport=Transport.SSE,
    )


def script(site: Site, stream: OpenStream, start: Start, **changes: Any) -> EventStream:
    assert stream.session_id is not None
    return EventStream(
        stream,
        stream.session_id,
        start,
        subscriber=site.services.subscriber,
        settings=site.services.settings.model_copy(update=changes),
    )


async def test_a_stream_that_never_began_holds_nothing(site: Site, recording: Recording) -> None:
    before = asyncio.all_tasks()
    stream = open_stream(recording)
    health = site.services.listener.health
    unbegun = as_blocks(script(site, stream, Start()).events(), stream)
    await unbegun.aclose()
    assert health().watches == 0
    begun = as_blocks(script(site, stream, Start()).events(), stream)
    assert (await anext(begun)).startswith(b"retry: ")
    assert health().watches == 1
    await begun.aclose()
    assert health().watches == 0
    await eventually(lambda: asyncio.all_tasks() == before)


@pytest.mark.parametrize(
    "ending", [EventName.RESTARTING, EventName.UNAUTHORIZED, EventName.REPLACED]
)
async def test_a_stream_asked_to_end_says_why_and_ends(
    site: Site, recording: Recording, ending: EventName
) -> None:
    stream = open_stream(recording)
    async with aclosing(script(site, stream, Start(after=recording.ids[0])).events()) as events:
        assert (await anext(events)).event is EventName.HELLO
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        stream.end(ending)
        stream.end(EventName.LIFETIME)  # too late to be said
        last = await waiting
        assert last.event is ending
        assert last.retry_ms is not None
        assert [event async for event in events] == []
    assert stream.ended == ending.value


async def test_a_stream_asked_to_end_before_it_begins_says_no_more_than_that(
    site: Site, recording: Recording
) -> None:
    stream = open_stream(recording)
    stream.end(EventName.RESTARTING)
    async with aclosing(script(site, stream, Start()).events()) as events:
        assert [event.event async for event in events] == [EventName.HELLO, EventName.RESTARTING]


async def test_a_sign_in_that_expires_ends_the_stream_then(
    site: Site, recording: Recording
) -> None:
    stream = open_stream(recording)
    stream.expires_at = datetime.now(UTC) + timedelta(seconds=0.3)
    async with aclosing(script(site, stream, Start()).events()) as events:
        names = [event.event async for event in events]
    assert names == [EventName.HELLO, EventName.PROGRESS, EventName.UNAUTHORIZED]
    assert datetime.now(UTC) >= stream.expires_at


async def test_a_stream_that_breaks_still_ends_cleanly(
    settings: WebSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_site(settings.model_copy(update={"heartbeat_s": 0.1})) as site:
        recording, headers = await site.recording()

        def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr("quartapp.streaming.event_stream.heartbeat", broken)
        async with requested(site, stream_path(recording), headers) as stream:
            blocks = await stream.rest()
            assert [block["event"] for block in blocks] == ["hello", "progress"]
            assert stream.ended
        await eventually(lambda: site.open_streams() == 0)


def test_every_ending_is_an_event() -> None:
    told = {"idle", "lifetime", "restarting", "unauthorized", "gone", "replaced"}
    assert told <= {name.value for name in EventName}


async def test_while_draining_what_is_no_stream_is_refused_and_readiness_is_red(site: Site) -> None:
    recording, headers = await site.recording()
    site.services.drain.set()
    async with requested(site, f"/api/v1/sessions/{recording.id}", headers) as answer:
        assert answer.status == 503
        assert answer.header("Retry-After") is not None
        assert b'"restarting"' in await answer.to_end()
    for path, status in (("/readyz", 503), ("/healthz", 200)):
        async with requested(site, path) as answer:
            assert answer.status == status
