"""The bytes of a stream, as they came over the wire."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import httpx
import pytest
from httpx_sse import EventSource, aconnect_sse
from sseclient import SSEClient

from jobs.model import Role, Segment, Stage, Status, StatusUpdate, Word
from quartapp.settings import WebSettings
from quartapp.streaming.encoder import EventName
from tests.integration.streaming_fixtures import (
    Recording,
    Site,
    make_recording,
    requested,
    running_site,
    stream_path,
)

HOSTILE = [
    'a "quoted" name',
    "first\nsecond\rthird\r\nfourth",
    "x\n\nevent: complete\ndata: {}\n\n",
    "x\r\revent: evil\rid: 1\rretry: 1\rdata: x\r\r",
    "\ufeff: a mark of byte order",
    "\u2028\u2029\x85\x01\x1f\x7f",
    "😀 漢字 é " + "\\" * 9,
    "é" * 8000,
]
LINE = re.compile(
    r": heartbeat|retry: [0-9]+|id: [0-9]{1,19}(-[0-9]{1,9})?|event: [a-z]+|data: \{.*\}|"
)
LARGEST_BYTES = 64 * 1024


async def whole_life(settings: WebSettings, *, query: str = "") -> bytes:
    """The body of a stream with every kind of text and most kinds of event."""
    async with running_site(settings.model_copy(update={"heartbeat_s": 0.2})) as site:
        recording, headers = await site.recording()
        unknown = headers | {"Last-Event-ID": "5"}
        async with requested(site, stream_path(recording, query), unknown) as stream:
            await stream.until("progress")
            await stream.until("heartbeat")
            for text in HOSTILE:
                await recording.publish(progress=1, message=text)
            for _ in HOSTILE:
                await stream.until("progress")
            await stream.until("heartbeat")
            await publish_segments(recording, ["good morning\n\nevent: evil", "😀"])
            await recording.publish(Status.FAILED, message=HOSTILE[2])
            await stream.rest()
            assert stream.ended
            return stream.body


async def publish_segments(recording: Recording, texts: Sequence[str]) -> None:
    """Text recognised, with the event that tells of it."""
    await recording.publisher.publish(
        recording.id,
        recording.attempt,
        StatusUpdate(Status.PROCESSING, Stage.TRANSCRIBING, "Transcribing", progress=2),
        segments=[
            Segment(
                number,
                float(number),
                number + 1.0,
                text,
                (Word(text, float(number), number + 1.0, None),),
            )
            for number, text in enumerate(texts)
        ],
    )


@pytest.mark.behaviour("MD-11")
@pytest.mark.behaviour("MD-13")
@pytest.mark.behaviour("MD-14")
async def test_every_line_is_of_a_known_form_and_parsers_agree(quick: WebSettings) -> None:
    body = await whole_life(quick, query="?segments=true")
    text = body.decode("utf-8", "strict")
    assert not text.startswith("\ufeff")
    assert "\r" not in text
    assert text.endswith("\n\n")
    assert not [line for line in text.split("\n") if not LINE.fullmatch(line)]

    blocks = text.removesuffix("\n\n").split("\n\n")
    names = re.findall("^event: (.*)$", text, re.MULTILINE)
    assert len(names) == len(blocks)
    assert set(names) == {"hello", "reset", "progress", "heartbeat", "segment", "failed"}
    assert set(names) <= {name.value for name in EventName}
    assert not set(names) & {"error", "open", "message"}

    whole = by_httpx_sse([body])
    assert [name for name, _, _ in whole] == names
    bytewise = [bytes([byte]) for byte in body]
    assert by_httpx_sse(bytewise) == whole
    assert by_sseclient([body]) == whole
    assert by_sseclient(bytewise) == whole


def by_httpx_sse(pieces: Sequence[bytes]) -> list[tuple[str, str, str]]:
    """(event, data, cursor) of each event."""
    response = httpx.Response(
        200, headers={"Content-Type": "text/event-stream"}, content=iter(pieces)
    )
    return [(event.event, event.data, event.id) for event in EventSource(response).iter_sse()]


def by_sseclient(pieces: Sequence[bytes]) -> list[tuple[str, str, str]]:
    """The same; this parser says of each event only what it brings itself."""
    events = []
    cursor = ""
    for event in SSEClient(iter(pieces)).events():
        cursor = event.id or cursor
        events.append((event.event, event.data, cursor))
    return events


@pytest.mark.behaviour("MD-13")
@pytest.mark.behaviour("MD-16")
async def test_status_events_alone_carry_an_id_and_it_is_plain_digits(site: Site) -> None:
    recording, headers = await site.recording()
    async with requested(site, stream_path(recording), headers | {"Last-Event-ID": "x"}) as stream:
        await stream.until("progress")
        for text in HOSTILE:
            await recording.publish(progress=1, message=text)
        await recording.publish(Status.CANCELLED, message=HOSTILE[2])
        await stream.rest()
    assert by_httpx_sse([stream.body])[0][2] == ""
    ids = re.findall(rb"^id: ?(.*)$", stream.body, re.MULTILINE)
    assert [int(found) for found in ids] == recording.ids
    assert all(re.fullmatch(rb"[0-9]{1,19}", found) for found in ids)


@pytest.mark.behaviour("MD-15")
@pytest.mark.behaviour("MD-16")
async def test_a_heartbeat_is_an_event_with_data_and_without_id(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"heartbeat_s": 0.1})) as site:
        recording, headers = await site.recording()
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.until("progress")
            for _ in range(3):
                beat = await stream.block()
                assert list(beat) == ["", "event", "data"]
                assert (beat[""], beat["event"]) == ("heartbeat", "heartbeat")
        seen = by_httpx_sse([stream.body])
    assert {cursor for name, _, cursor in seen if name == "heartbeat"} == {str(recording.ids[-1])}


@pytest.mark.behaviour("MD-12")
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
    await recording.publish(Status.FAILED, message=HOSTILE[2])
    async with requested(site, stream_path(recording, "?replay=all"), headers) as stream:
        blocks = await stream.rest()
        replayed = stream.as_parsed_by_httpx_sse()[2:-1]
    assert live == replayed
    assert [json.loads(data)["message"] for _, data, _ in live] == HOSTILE
    assert blocks[-1].json["error"]["message"] == HOSTILE[2]


@pytest.mark.behaviour("MD-12")
async def test_what_the_database_cannot_hold_is_marked_and_the_event_is_not_lost(
    site: Site,
) -> None:
    recording, headers = await site.recording()
    path = stream_path(recording, "?segments=true")
    async with requested(site, path, headers) as stream:
        await stream.until("progress")
        await publish_segments(recording, ["one\0two \ud800 three"])
        await recording.publish(Status.FAILED, message="one\0two \ud800 three")
        segment, _, failed = await stream.rest()
    assert segment.json["text"] == "one\ufffdtwo \ufffd three"
    assert segment.json["words"][0]["text"] == "one\ufffdtwo \ufffd three"
    assert failed["event"] == "failed"
    assert failed.json["message"] == "one\ufffdtwo \ufffd three"
    assert failed.json["error"]["message"] == "one\ufffdtwo \ufffd three"


@pytest.mark.behaviour("MD-17")
async def test_no_event_is_longer_than_its_bound(site: Site) -> None:
    _, headers = await site.sign_in(Role.ADMIN)
    for letter in ("x", "é", "漢", "😀", '"', "\x01", "\\"):
        recording = await make_recording(site.services.pool)
        text = letter * 1_000_000
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.until("progress")
            await recording.publish(Status.FAILED, message=text)
            [failed] = await stream.rest()
        assert max(len(block) for block in stream.body.split(b"\n\n")) <= LARGEST_BYTES
        for said in (failed.json["message"], failed.json["error"]["message"]):
            assert len(said) > 1000
            assert text.startswith(said.removesuffix("…"))
            assert said.endswith("…")


@pytest.mark.behaviour("MD-17")
async def test_a_transcript_of_megabytes_comes_in_small_events(site: Site) -> None:
    recording, headers = await site.recording()
    texts = ["a long sentence " * 300] * 1000
    async with requested(
        site, stream_path(recording, "?replay=all&segments=true"), headers
    ) as stream:
        await stream.until("progress")
        await publish_segments(recording, texts)
        told = await stream.until("progress")
        assert told.json["segments"] == len(texts)
        assert len(told["data"]) < 1000
        await recording.publish(Status.COMPLETED)
        await stream.rest()
    blocks = stream.body.split(b"\n\n")
    assert sum(block.count(b"event: segment") for block in blocks) == len(texts)
    assert max(len(block) for block in blocks) < 16_384


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
