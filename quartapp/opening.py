"""What all streams have in common before their first byte: who asks, from where on, and a slot."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from uuid import UUID

from jobs.sessions import Session
from jobs.statuses import select_segments_at
from quartapp.auth import asked, current_viewer
from quartapp.problems import Problem
from quartapp.services import services
from quartapp.streaming.event_stream import EventStream, Start
from quartapp.streaming.open_streams import AtCapacity, OpenStream
from quartapp.streaming.slots import Refusal, SlotRefused, Transport
from quartapp.write_deadline import ON_SLOW

CURSOR = re.compile(r"(?P<after>[0-9]{1,19})(-(?P<segments>[0-9]{1,9}))?")
CLIENT_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")
MAX_ID = 2**63 - 1
# Ids read as times by the database's clock, which may go a little ahead of ours.
CLOCKS_APART_S = 60
# After a refusal for want of room; spread, so that those refused together do not return together.
RETRY_AFTER_S = (5, 15)


def _cursor() -> str | None:
    """What the client says it had last. The header wins: browsers send it by themselves."""
    return asked().headers.get("Last-Event-ID") or asked().args.get("last_event_id") or None


def requested_event() -> tuple[int | None, bool]:
    """The event a client of all sessions had last, and whether it named one that cannot be."""
    cursor = _cursor()
    if cursor is None:
        return None, False
    found = CURSOR.fullmatch(cursor)
    if found is None or not 0 < int(found["after"]) <= (time.time() + CLOCKS_APART_S) * 1_000_000:
        return None, True
    return int(found["after"]), False


async def requested_start(session: Session) -> Start:
    """Where the client wants to begin. Whatever it sends for a cursor, this is no error."""
    cursor = _cursor()
    if cursor is None:
        return Start(after=0 if asked().args.get("replay") == "all" else None)
    return await _after_cursor(session, cursor) or Start(reset=True)


async def _after_cursor(session: Session, cursor: str) -> Start | None:
    """The place a cursor names: a status event, or so many segments after one. 0 is where a
    snapshot with segments begins. None for what this session never gave out, or has forgotten."""
    found = CURSOR.fullmatch(cursor)
    if found is None or int(found["after"]) > MAX_ID:
        return None
    after = int(found["after"])
    if after == session.last_status_id:
        segments: int | None = session.segment_count
    elif after == 0:
        segments = 0 if found["segments"] else None
    else:
        segments = await select_segments_at(services().pool, session.id, after)
    if segments is None:
        return None
    if found["segments"]:
        if not segments <= int(found["segments"]) <= session.segment_count:
            return None
        segments = int(found["segments"])
    return Start(after=after or None, segments=segments)


def wants_segments() -> bool:
    """Whether pieces of the transcript are to come with the events."""
    return asked().args.get("segments") == "true"


def nothing_to_come(session: Session, start: Start) -> bool:
    """Whether the client has seen the end already."""
    return session.status.terminal and start.after == session.last_status_id


async def admit(
    session: Session | None,
    transport: Transport,
    on_close: Callable[[Callable[[], None]], object],
) -> OpenStream:
    """A stream for the viewer; `on_close` is given what gives it back. For None it is one of all
    sessions. Raises Problem 404, 422, 429, 503, and what the database raises."""
    viewer = await current_viewer()
    stream = OpenStream(
        user_id=viewer.id,
        login_id=viewer.login_id,
        expires_at=viewer.expires_at,
        session_id=None if session is None else session.id,
        owner_id=None if session is None else session.owner_id,
        transport=transport,
    )
    try:
        await services().streams.open(stream, _client_id())
    except AtCapacity as error:
        raise Problem(
            503,
            "at_capacity",
            "This server has as many streams open as it can. Please try again.",
            headers=_retry_after(random.randint(*RETRY_AFTER_S)),  # noqa: S311
        ) from error
    except SlotRefused as refused:
        raise _refusal(refused) from refused
    on_close(partial(services().streams.close, stream))
    cast(dict[str, Any], asked().scope)[ON_SLOW] = partial(_cut, stream)
    return stream


def script(stream: OpenStream, session_id: UUID, start: Start, *, segments: bool) -> EventStream:
    """What is to be said on it."""
    return EventStream(
        stream,
        session_id,
        start,
        subscriber=services().subscriber,
        settings=services().settings,
        segments=services().segments if segments else None,
    )


def _client_id() -> str | None:
    client_id = asked().args.get("client_id")
    if client_id and not CLIENT_ID.fullmatch(client_id):
        raise Problem(422, "invalid_client_id", "client_id: at most 64 letters, digits and . _ ~ -")
    return client_id or None


def _refusal(refused: SlotRefused) -> Problem:
    limits = services().settings
    match refused.refusal:
        case Refusal.GONE:
            return Problem(404, "not_found", "There is no such session.")
        case Refusal.OPENS:
            return Problem(
                429,
                "rate_limited",
                f"More than {limits.stream_opens_per_minute} streams opened in a minute.",
                headers=_retry_after(refused.retry_after_s or RETRY_AFTER_S[0]),
            )
        case Refusal.STREAMS:
            return Problem(
                429,
                "too_many_streams",
                f"At most {limits.streams_per_user} streams may be open at a time; close another "
                "one, or poll the status.",
                headers=_retry_after(random.randint(*RETRY_AFTER_S)),  # noqa: S311
            )


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, round(seconds + 0.5)))}


def _cut(stream: OpenStream) -> None:
    stream.ended = "slow"
