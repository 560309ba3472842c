"""The event-stream codec, against the standard's own words and two parsers that are not ours."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st
from sseclient import SSEClient

from jobs.model import Status, StatusMessage
from quartapp.streaming.encoder import EventName, ServerSentEvent, json_line, status_event

SESSION_ID = UUID("11111111-2222-3333-4444-555555555555")

# Any text a database can hold: every code point but NUL and the surrogates.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
hostile_texts = texts | st.sampled_from(
    [
        "\n\nevent: complete\ndata: {}\n\n",
        "\r\revent: complete\rdata: x\r\r",
        "line\r\nline",
        "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e",
        "\ufeff: a mark of byte order",
        'a "quoted" \\n word',
        "😀 ñ 漢字 \u202e",
    ]
)


def parse(pieces: Sequence[bytes]) -> list[tuple[str, str, str, int | None]]:
    """(event, data, cursor, retry) of each event of a body that arrives in these pieces: what two
    parsers make of it, who must agree."""
    response = httpx.Response(
        200, headers={"Content-Type": "text/event-stream"}, content=iter(pieces)
    )
    one = [
        (event.event, event.data, event.id, event.retry)
        for event in EventSource(response).iter_sse()
    ]
    other = []
    cursor = ""
    for event in SSEClient(iter(pieces)).events():
        cursor = event.id or cursor  # this one says of each event what it brings itself
        retry = None if event.retry is None else int(event.retry)
        other.append((event.event, event.data, cursor, retry))
    assert one == other
    return one


def cut(body: bytes, places: Sequence[int]) -> list[bytes]:
    """The body in pieces, cut at these places, wherever in a line or a character they are."""
    bounds = sorted({0, len(body), *(place for place in places if place < len(body))})
    return [body[start:end] for start, end in pairwise(bounds)]


def message(**changes: Any) -> StatusMessage:
    fields = {
        "session_id": str(SESSION_ID),
        "id": 1795222584197110,
        "prev_id": 1795222584009001,
        "status": "processing",
        "progress": 75,
        "message": "Transcribing… 7:30 of 10:00",
    } | changes
    return StatusMessage.from_json(json.dumps(fields, ensure_ascii=False))


BLOCKS = {
    "event and data": (
        ServerSentEvent(EventName.PROGRESS, "{}"),
        b"event: progress\ndata: {}\n\n",
    ),
    "id": (
        ServerSentEvent(EventName.PROGRESS, '{"a":1}', id="1795222584197110"),
        b'id: 1795222584197110\nevent: progress\ndata: {"a":1}\n\n',
    ),
    "id of a place after an event": (
        ServerSentEvent(EventName.SEGMENT, "{}", id="1795222584197110-3"),
        b"id: 1795222584197110-3\nevent: segment\ndata: {}\n\n",
    ),
    "retry": (
        ServerSentEvent(EventName.HELLO, "{}", retry_ms=1500),
        b"retry: 1500\nevent: hello\ndata: {}\n\n",
    ),
    "comment": (
        ServerSentEvent(EventName.HEARTBEAT, "{}", comment="heartbeat"),
        b": heartbeat\nevent: heartbeat\ndata: {}\n\n",
    ),
    "everything": (
        ServerSentEvent(EventName.COMPLETE, "[]", id="1", retry_ms=0, comment="c"),
        b": c\nretry: 0\nid: 1\nevent: complete\ndata: []\n\n",
    ),
    "text beyond ASCII": (
        ServerSentEvent(EventName.PROGRESS, '"\u2028é😀"'),
        'event: progress\ndata: "\u2028é😀"\n\n'.encode(),
    ),
}


@pytest.mark.parametrize(("event", "expected"), BLOCKS.values(), ids=BLOCKS.keys())
def test_blocks_are_these_bytes(event: ServerSentEvent, expected: bytes) -> None:
    assert event.encoded == expected


@pytest.mark.behaviour("MD-13")
@pytest.mark.parametrize(
    "fields",
    [
        {"event": "progress\nid: 1"},
        {"event": "progress"},
        {"event": "error"},
        {"event": ""},
        {"data": ""},
        {"data": '{"a":\n1}'},
        {"data": '{"a":\r1}'},
        {"data": '"\0"'},
        {"id": ""},
        {"id": "-1"},
        {"id": "1\n"},
        {"id": "1\0"},
        {"id": "1 "},
        {"id": "١"},
        {"id": "1-"},
        {"id": "1-2-3"},
        {"id": "1" * 20},
        {"retry_ms": -1},
        {"comment": "two\nlines"},
        {"comment": "two\rlines"},
    ],
    ids=repr,
)
def test_anything_else_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ServerSentEvent(**({"event": EventName.PROGRESS, "data": "{}"} | fields))


@pytest.mark.parametrize("data", ['"\ud800"'])
def test_what_is_not_unicode_is_refused(data: str) -> None:
    with pytest.raises(ValueError):
        _ = ServerSentEvent(EventName.PROGRESS, data).encoded


@pytest.mark.behaviour("MD-14")
def test_no_event_is_named_like_one_of_the_browsers_own() -> None:
    assert not {"error", "open", "message"} & {name.value for name in EventName}


@pytest.mark.parametrize(
    ("status", "last", "name"),
    [
        ("queued", False, EventName.PROGRESS),
        ("processing", False, EventName.PROGRESS),
        ("completed", True, EventName.COMPLETE),
        ("failed", True, EventName.FAILED),
        ("cancelled", True, EventName.CANCELLED),
        ("failed", False, EventName.PROGRESS),
    ],
)
def test_the_name_of_a_status_event_says_whether_it_is_the_last(
    status: str, last: bool, name: EventName
) -> None:
    event = status_event(message(status=status), last=last)
    assert event.event is name
    assert event.id == "1795222584197110"


def test_every_terminal_status_has_its_event() -> None:
    for status in Status:
        if status.terminal:
            assert status_event(message(status=status), last=True).event != EventName.PROGRESS


def test_streams_of_one_session_share_the_bytes_of_an_event() -> None:
    first = status_event(message(), last=False)
    again = status_event(message(), last=False)
    assert first.encoded is again.encoded


@pytest.mark.criterion("SH-6")
@pytest.mark.behaviour("MD-12")
@given(hostile_texts)
def test_text_of_users_survives_and_changes_nothing_else(text: str) -> None:
    for payload in (
        json.dumps({"message": text}),
        json.dumps({"message": text}, ensure_ascii=False),
        json.dumps({"message": text}, indent="\t"),  # as somebody else might notify it
        json_line({"message": text}),
    ):
        event = status_event(
            StatusMessage(SESSION_ID, 7, 6, Status.PROCESSING, 10, payload), last=False
        )
        assert_one_event(event.encoded, {"message": text})


def assert_one_event(encoded: bytes, fields: dict[str, Any]) -> None:
    after = ServerSentEvent(EventName.HEARTBEAT, "{}").encoded
    for pieces in ([encoded + after], [bytes([byte]) for byte in encoded + after]):
        found = parse(pieces)
        assert [event for event, _, _, _ in found] == ["progress", "heartbeat"]
        _, data, cursor, _ = found[0]
        assert cursor == "7"
        assert json.loads(data) == fields
    # And by the standard's letter: what ends a line, and nothing that came in with the text.
    lines = re.split(rb"\r\n|\r|\n", encoded)
    assert [line.partition(b":")[0] for line in lines] == [b"id", b"event", b"data", b"", b""]


@pytest.mark.criterion("SH-6")
@given(st.lists(st.sampled_from(list(BLOCKS))), st.lists(st.integers(0, 2000)))
def test_parsers_read_any_sequence_whole_by_bytes_and_cut_anywhere(
    names: list[str], places: list[int]
) -> None:
    events = [BLOCKS[name][0] for name in names]
    body = b"".join(event.encoded for event in events)
    expected = []
    cursor = ""
    for event in events:
        cursor = event.id or cursor
        expected.append((event.event.value, event.data, cursor, event.retry_ms))
    for pieces in ([body], [bytes([byte]) for byte in body], cut(body, places)):
        assert parse(pieces) == expected


@given(hostile_texts, st.lists(st.integers(0, 200)))
def test_a_character_cut_in_two_is_put_together_again(text: str, places: list[int]) -> None:
    event = ServerSentEvent(EventName.PROGRESS, json_line({"message": text}), id="7")
    [(_, data, _, _)] = parse(cut(event.encoded, places))
    assert json.loads(data) == {"message": text}
