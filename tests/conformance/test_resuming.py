"""Coming back with a cursor, known or not."""

from __future__ import annotations

import pytest

from jobs.model import Status
from quartapp.settings import WebSettings
from tests.integration.streaming_fixtures import (
    Site,
    make_recording,
    requested,
    running_site,
    stream_path,
)


@pytest.mark.behaviour("MD-22")
@pytest.mark.behaviour("MD-23")
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


@pytest.mark.behaviour("MD-23")
async def test_a_header_that_is_not_known_is_not_rescued_by_the_query(site: Site) -> None:
    recording, headers = await site.recording()
    await recording.publish(progress=10)
    path = stream_path(recording, f"?last_event_id={recording.ids[0]}")
    async with requested(site, path, headers | {"Last-Event-ID": "5"}) as stream:
        assert [(await stream.block())["event"] for _ in range(3)] == ["hello", "reset", "progress"]


@pytest.mark.behaviour("MD-27")
async def test_resuming_at_the_newest_event_repeats_nothing(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"heartbeat_s": 0.5})) as site:
        recording, headers = await site.recording()
        for progress in range(1, 5):
            await recording.publish(progress=progress)
        newest = str(recording.ids[-1])
        by_query = stream_path(recording, f"?last_event_id={newest}")
        by_header = headers | {"Last-Event-ID": newest}
        async with (
            requested(site, stream_path(recording), by_header) as one,
            requested(site, by_query, headers) as other,
        ):
            for stream in (one, other):
                # Two and a half seconds, and reads of the table with each heartbeat.
                seen = [(await stream.block())["event"] for _ in range(6)]
                assert seen == ["hello", *["heartbeat"] * 5]
            sent = await recording.publish(progress=10)
            for stream in (one, other):
                assert (await stream.until("progress")).row == sent.id


UNKNOWN = [
    "5",
    "0",
    "-1",
    "-9223372036854775808",
    "9223372036854775807",
    "9223372036854775808",
    "9999999999999999999",
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
    "%00",
]


@pytest.mark.behaviour("MD-24")
async def test_a_cursor_that_is_not_known_means_reset_and_snapshot(site: Site) -> None:
    recording, headers = await site.recording()
    latest = await recording.publish(progress=10)
    for cursor in UNKNOWN:
        wrong = headers | {"Last-Event-ID": cursor}
        async with requested(site, stream_path(recording), wrong) as stream:
            assert stream.status == 200, cursor
            blocks = [await stream.block() for _ in range(3)]
        assert [block["event"] for block in blocks] == ["hello", "reset", "progress"], cursor
        assert "id" not in blocks[1]
        assert blocks[2].row == latest.id
        assert blocks[2].json["session_id"] == str(recording.id)
        assert cursor not in blocks[1]["data"]


@pytest.mark.behaviour("MD-24")
async def test_so_it_is_in_the_query(site: Site) -> None:
    recording, headers = await site.recording()
    for cursor in ("5", "-1", "abc", "%C3%A9", "1" * 10_000, "%00", "%FF%FE"):
        path = stream_path(recording, f"?last_event_id={cursor}")
        async with requested(site, path, headers) as stream:
            assert stream.status == 200, cursor
            events = [(await stream.block())["event"] for _ in range(3)]
            assert events == ["hello", "reset", "progress"], cursor


@pytest.mark.behaviour("MD-24")
async def test_a_cursor_of_another_session_is_not_known(site: Site) -> None:
    recording, headers = await site.recording()
    other = await make_recording(site.services.pool)
    seen = {"Last-Event-ID": str(other.ids[0])}
    async with requested(site, stream_path(recording), headers | seen) as stream:
        blocks = [await stream.block() for _ in range(3)]
    assert [block["event"] for block in blocks] == ["hello", "reset", "progress"]
    assert str(other.id).encode() not in stream.body


@pytest.mark.behaviour("MD-25")
@pytest.mark.parametrize("status", [Status.PROCESSING, Status.COMPLETED])
async def test_a_pruned_cursor_means_reset_and_snapshot(site: Site, status: Status) -> None:
    recording, headers = await site.recording()
    await recording.publish(progress=10)
    await recording.publish(status, progress=20)
    await site.services.pool.execute(
        "DELETE FROM processing_status WHERE session_id = $1 AND id <= $2",
        recording.id,
        recording.ids[1],
    )
    for seen in recording.ids[:2]:
        extra = {"Last-Event-ID": str(seen)}
        async with requested(site, stream_path(recording), headers | extra) as stream:
            blocks = [await stream.block() for _ in range(3)]
        assert [block["event"] for block in blocks[:2]] == ["hello", "reset"]
        assert blocks[2].row == recording.ids[2]


@pytest.mark.parametrize("query", ["?last_event_id=", "?replay=none", "?unknown=1"])
async def test_what_asks_for_nothing_gets_the_snapshot(site: Site, query: str) -> None:
    recording, headers = await site.recording()
    async with requested(
        site, stream_path(recording, query), headers | {"Last-Event-ID": ""}
    ) as stream:
        assert [(await stream.block())["event"] for _ in range(2)] == ["hello", "progress"]
