"""Pieces of the transcript between the status events that brought them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator

import pytest

from jobs.database import Pool, open_pool
from jobs.model import Status
from jobs.segments import select_segments
from quartapp.settings import WebSettings
from quartapp.streaming.segments import PAGE_SIZE, SegmentFeed, SegmentReader
from tests.integration.streaming_fixtures import (
    Block,
    Recording,
    Site,
    Wire,
    eventually,
    kill_listening,
    make_recording,
    requested,
    running_site,
    stream_path,
)

SEGMENTS = "?segments=true"


@pytest.fixture
def quick(settings: WebSettings) -> WebSettings:
    unlimited = {"request_limit": 1_000_000, "stream_opens_per_minute": 1_000_000}
    return settings.model_copy(update=unlimited | {"streams_per_user": 1000})


@pytest.fixture
async def site(quick: WebSettings) -> AsyncIterator[Site]:
    async with running_site(quick) as running:
        yield running


def summary(blocks: list[Block]) -> list[str | int]:
    """Segments by their numbers, status events by their names."""
    return [
        block.json["idx"] if block["event"] == "segment" else block["event"]
        for block in blocks
        if block["event"] not in {"hello", "heartbeat"}
    ]


async def work(recording: Recording) -> None:
    """A small transcription: segments come with some of its events."""
    await recording.publish(progress=10)
    await recording.publish(progress=25, pieces=3)
    await recording.publish(progress=30)
    await recording.publish(progress=50, pieces=1)
    await recording.publish(progress=75, pieces=2)
    await recording.publish(Status.COMPLETED)


WORK = [0, 1, 2, "progress", "progress", 3, "progress", 4, 5, "progress", "complete"]


async def test_without_asking_there_are_none(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers) as stream:
        await stream.until("progress")
        await work(recording)
        blocks = await stream.rest()
    assert "segment" not in {block["event"] for block in blocks}


async def test_live_each_stands_before_the_event_that_brought_it(site: Site, pool: Pool) -> None:
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording, SEGMENTS), headers) as stream:
        await stream.until("progress")
        await work(recording)
        blocks = await stream.rest()
    assert summary(blocks) == ["progress", *WORK]
    told = [block.json for block in blocks if block["event"] == "segment"]
    stored = await select_segments(pool, recording.id)
    assert told == json.loads(json.dumps([segment.fields() for segment in stored]))


async def test_a_new_stream_gets_the_text_so_far_and_then_the_snapshot(site: Site) -> None:
    recording, headers = await site.recording()
    await recording.publish(progress=25, pieces=3)
    await recording.publish(progress=30)
    async with requested(site, stream_path(recording, SEGMENTS), headers) as stream:
        blocks = [await stream.block() for _ in range(5)]
        assert summary(blocks) == [0, 1, 2, "progress"]
        assert blocks[-1].row == recording.ids[-1]
        await recording.publish(progress=50, pieces=1)
        assert summary([await stream.block() for _ in range(2)]) == [3, "progress"]


async def test_the_whole_history_is_interleaved_as_it_happened(site: Site) -> None:
    recording, headers = await site.recording()
    await work(recording)
    path = stream_path(recording, "?segments=true&replay=all")
    async with requested(site, path, headers) as stream:
        assert summary(await stream.rest()) == ["progress", "progress", *WORK]


@pytest.mark.parametrize("query", [SEGMENTS, "?segments=true&replay=all"])
async def test_a_reconnect_at_any_point_neither_repeats_nor_skips(site: Site, query: str) -> None:
    recording, headers = await site.recording()
    await work(recording)
    async with requested(site, stream_path(recording, query), headers) as stream:
        whole = [block for block in await stream.rest() if "id" in block]
    for cut in range(len(whole) - 1):
        resumed = {**headers, "Last-Event-ID": whole[cut]["id"]}
        async with requested(site, stream_path(recording, query), resumed) as stream:
            assert [block for block in await stream.rest() if "id" in block] == whole[cut + 1 :]
    resumed = {**headers, "Last-Event-ID": whole[-1]["id"]}
    async with requested(site, stream_path(recording, query), resumed) as stream:
        assert stream.status == 204


async def test_one_who_keeps_losing_the_connection_has_every_piece_once(
    site: Site, pool: Pool
) -> None:
    recording, headers = await site.recording()

    async def write() -> None:
        for number in range(60):
            pieces = random.choice([0, 0, 1, 2, 5])
            await recording.publish(progress=number, pieces=pieces)
            await asyncio.sleep(random.uniform(0, 0.01))
            if number % 20 == 10:
                await kill_listening(pool)
        await recording.publish(Status.COMPLETED)

    writing = asyncio.create_task(write())
    seen: list[Block] = []
    status = 200
    async with asyncio.timeout(60):
        while status == 200:
            cursor = {"Last-Event-ID": seen[-1]["id"]} if seen else {}
            path = stream_path(recording, SEGMENTS)
            async with requested(site, path, headers | cursor) as stream:
                status = stream.status
                for _ in range(random.randint(1, 12) if status == 200 else 0):
                    try:
                        block = await stream.block()
                    except EOFError:
                        break
                    if "id" in block:
                        seen.append(block)
    await writing
    assert [block.json["idx"] for block in seen if block["event"] == "segment"] == list(
        range(recording.pieces)
    )
    rows = [block.row for block in seen if block["event"] != "segment"]
    assert rows == recording.ids[-len(rows) :]
    # At any point a reader has exactly the text its newest event speaks of.
    pieces = 0
    for block in seen:
        if block["event"] == "segment":
            pieces += 1
        else:
            assert block.json["segments"] == pieces


@pytest.mark.parametrize(
    "cursor", ["{last}-99", "{last}-0", "0-99", "{first}-2-2", "{first}-", "-1"]
)
async def test_a_place_that_never_was_means_reset_and_everything_again(
    site: Site, cursor: str
) -> None:
    recording, headers = await site.recording()
    await recording.publish(progress=25, pieces=2)
    place = cursor.format(first=recording.ids[0], last=recording.ids[-1])
    resumed = {**headers, "Last-Event-ID": place}
    async with requested(site, stream_path(recording, SEGMENTS), resumed) as stream:
        blocks = [await stream.block() for _ in range(5)]
    assert summary(blocks) == ["reset", 0, 1, "progress"]


async def test_a_place_among_segments_is_known_to_a_stream_without_them(site: Site) -> None:
    recording, headers = await site.recording()
    await recording.publish(progress=25, pieces=2)
    resumed = {**headers, "Last-Event-ID": f"{recording.ids[0]}-1"}
    async with requested(site, stream_path(recording), resumed) as stream:
        blocks = [await stream.block() for _ in range(2)]
    assert summary(blocks) == ["progress"]
    assert blocks[-1].row == recording.ids[-1]


async def test_an_hour_of_text_comes_page_by_page(site: Site) -> None:
    recording, headers = await site.recording()
    for _ in range(5):
        await recording.publish(progress=50, pieces=PAGE_SIZE // 2 + 10)
    await recording.publish(Status.COMPLETED)
    async with requested(site, stream_path(recording, SEGMENTS), headers) as stream:
        assert summary(await stream.rest()) == [*range(recording.pieces), "complete"]


async def test_heartbeats_go_on_while_segments_cannot_be_read(dsn: str, quick: WebSettings) -> None:
    settings = quick.model_copy(update={"heartbeat_s": 0.2})
    async with running_site(settings) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording, SEGMENTS), headers) as stream:
            await stream.until("progress")
            async with (
                open_pool(dsn, settings) as locking,
                locking.acquire() as locker,
            ):
                lock = locker.transaction()
                # The event itself comes by notification; its text has to be read.
                await recording.publish(progress=50, pieces=2)
                await stream.until("progress")
                await lock.start()
                await locker.execute("LOCK TABLE transcript_segments IN ACCESS EXCLUSIVE MODE")
                writing = asyncio.create_task(recording.publish(progress=75, pieces=1))
                for _ in range(3):
                    assert (await stream.block())["event"] == "heartbeat"
                await lock.rollback()
            await writing
            assert summary([await stream.until("segment")]) == [2]


async def test_streams_of_one_session_share_the_reading(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    recording = await make_recording(pool)
    await recording.publish(progress=50, pieces=4)
    async with open_pool(dsn, settings) as counted:
        reader = SegmentReader(counted, 2.0)
        pages = await asyncio.gather(*(reader.read(recording.id, 0, 4) for _ in range(50)))
        assert all(page is pages[0] for page in pages)
        assert counted.get_size() == 1
        assert [segment.idx for segment in pages[0]] == [0, 1, 2, 3]
        # One that came up short is asked for again.
        assert len(await reader.read(recording.id, 4, 6)) == 0
        await recording.publish(progress=60, pieces=2)
        assert len(await reader.read(recording.id, 4, 6)) == 2


async def test_a_reading_waits_for_a_database_that_is_away(
    dsn: str, pool: Pool, settings: WebSettings
) -> None:
    recording = await make_recording(pool)
    await recording.publish(progress=50, pieces=2)
    async with Wire(dsn) as wire, open_pool(wire.dsn, settings) as wired:
        ready = asyncio.Event()
        feed = SegmentFeed(SegmentReader(wired, 0.3), recording.id, 0, ready.set)
        wire.freeze()
        feed.begin(2)
        await asyncio.sleep(0.8)
        assert feed.pending
        assert not ready.is_set()
        wire.thaw()
        async with asyncio.timeout(20):
            await ready.wait()
        assert [segment.idx for segment in feed.take()] == [0, 1]
        assert not feed.pending
        feed.close()


async def test_a_session_deleted_while_its_text_is_read_is_gone(site: Site) -> None:
    recording, headers = await site.recording()
    await recording.publish(progress=50, pieces=2)
    async with requested(site, stream_path(recording, SEGMENTS), headers) as stream:
        await stream.until("progress")
        await site.services.lifecycle.delete(recording.id)
        assert (await stream.until("gone"))["event"] == "gone"
        assert await stream.rest() == []
    await eventually(lambda: site.open_streams() == 0)
