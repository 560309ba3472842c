"""The status stream over a WebSocket: the same events, ids, limits and end as over SSE."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from uuid import UUID

import structlog
from quart import Blueprint, websocket

from jobs.sessions import Session
from quartapp.access import viewed_session
from quartapp.auth import require_allowed_origin
from quartapp.opening import admit, nothing_to_come, requested_start, script, wants_segments
from quartapp.streaming.encoder import EventName, ServerSentEvent
from quartapp.streaming.event_stream import EventStream
from quartapp.streaming.open_streams import OpenStream
from quartapp.streaming.slots import Transport
from quartapp.write_deadline import SlowReader

log = structlog.get_logger()

blueprint = Blueprint("websocket", __name__, url_prefix="/api/v1/sessions/<uuid:session_id>/status")

# RFC 6455, section 7.4.1, and the registry of close codes for 1012. Whatever is not here is over
# for now, or for good, in the ordinary way: 1000.
NORMAL = 1000
INTERNAL_ERROR = 1011
CLOSE_CODES: dict[str, int] = {
    EventName.RESTARTING: 1012,
    EventName.UNAUTHORIZED: 1008,
    "error": INTERNAL_ERROR,
}

AsFrame = Callable[[ServerSentEvent], str | None]


@blueprint.websocket("/ws")
async def status_socket(session_id: UUID) -> None:
    """`{"event", "id", "data"}` in each text frame; begins and resumes by the same query."""
    require_allowed_origin()
    session = await viewed_session(session_id, tickets=True)
    await carry(session, as_frame, segments=wants_segments())


def as_frame(event: ServerSentEvent) -> str:
    """An event as a text frame. What SSE says in `retry:` stands beside the data."""
    retry = "" if event.retry_ms is None else f',"retry_ms":{event.retry_ms:d}'
    return (
        f'{{"event":"{event.event.value}","id":{json.dumps(event.id)},"data":{event.data}{retry}}}'
    )


async def carry(session: Session, frame: AsFrame, *, segments: bool = False) -> None:
    """Accept the handshake and send the events of a session to their end. A client that has seen
    the end is only told that it is over, by a normal close."""
    start = await requested_start(session)
    if nothing_to_come(session, start):
        await websocket.accept()
        await websocket.close(NORMAL, "nothing_more")
        return
    with ExitStack() as closers:
        stream = await admit(session, Transport.WEBSOCKET, closers.callback)
        try:
            await websocket.accept()
            await _send_all(stream, script(stream, session.id, start, segments=segments), frame)
            await websocket.close(CLOSE_CODES.get(stream.ended, NORMAL), stream.ended)
        except SlowReader:
            return  # nothing more can be said to it


async def _send_all(stream: OpenStream, events: EventStream, frame: AsFrame) -> None:
    """Whatever breaks, the stream is told to be over, so that the client comes back."""
    async with aclosing(events.events()) as to_send:
        try:
            async for event in to_send:
                if (text := frame(event)) is not None:
                    await websocket.send(text)
        except SlowReader:
            raise
        except Exception:
            stream.ended = "error"
            log.exception(
                "stream_broke", session_id=str(stream.session_id), stream_id=str(stream.id)
            )
