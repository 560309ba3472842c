"""The status stream of one session, as Server-Sent Events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import cast
from uuid import UUID

from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_response, tag

from quartapp.access import viewed_session
from quartapp.api.bodies import ProblemBody
from quartapp.api.status_bodies import SESSION_EVENTS, StreamQuery
from quartapp.connection import LimitedRequest
from quartapp.openapi import EVENT_STREAM, answers, streams
from quartapp.opening import admit, nothing_to_come, requested_start, script, wants_segments
from quartapp.problems import Problem
from quartapp.streaming.event_stream import Encode, as_blocks, encoded
from quartapp.streaming.slots import Transport

blueprint = Blueprint("stream", __name__, url_prefix="/api/v1/sessions/<uuid:session_id>/status")

# Neither kept nor changed on the way, compression included; and not held back by nginx.
HEADERS = {
    "Cache-Control": "no-cache, no-store, no-transform",
    "X-Accel-Buffering": "no",
}


@blueprint.get("/stream")
@tag(["status"])
@document_querystring(StreamQuery)
@streams(SESSION_EVENTS)
@answers(204, "The client has seen the end")
@document_response(ProblemBody, 403)
@document_response(ProblemBody, 404)
@document_response(ProblemBody, 406)
@document_response(ProblemBody, 429)
@document_response(ProblemBody, 503)
async def get_status_stream(session_id: UUID) -> Response:
    """Status events as they happen (`text/event-stream`), from the latest on.

    With `Last-Event-ID`, or `?last_event_id=`, from the one after it; with `?replay=all` from the
    first. `?segments=true` adds pieces of the transcript as they appear. Ends after `complete`,
    `failed` or `cancelled`; a client that has seen that gets 204. A client that sends the same
    `?client_id=` again takes over its own slot, whether or not its old stream is known to be dead.
    """
    return await stream_of_session(session_id, segments=wants_segments())


async def stream_of_session(
    session_id: UUID, *, segments: bool = False, encode: Encode = encoded
) -> Response:
    """The answer to whoever asks for the stream of a session, refusals included."""
    session = await viewed_session(session_id, tickets=True)
    require_event_stream()
    start = await requested_start(session)
    if nothing_to_come(session, start):
        return nothing_more()
    if request.method == "HEAD":
        return stream_response(None)
    stream = await admit(session, Transport.SSE, current_request().on_close)
    events = script(stream, session_id, start, segments=segments).events()
    return stream_response(as_blocks(events, stream, encode))


def current_request() -> LimitedRequest:
    return cast(LimitedRequest, request)


def require_event_stream() -> None:
    """Raises Problem 406 when `Accept` leaves no room for one (RFC 9110, section 12.5.1)."""
    accepted = request.accept_mimetypes
    if accepted and not accepted.quality(EVENT_STREAM) > 0:
        raise Problem(406, "not_acceptable", f"The status stream is {EVENT_STREAM} only.")


def stream_response(blocks: AsyncGenerator[bytes, None] | None) -> Response:
    """The answer that carries a stream; for HEAD, with None, the same without it."""
    response = Response(blocks if blocks is not None else b"", content_type=EVENT_STREAM)
    response.headers.update(HEADERS)
    response.headers.pop("Content-Length", None)
    if request.http_version in {"1.0", "1.1"}:  # later versions forbid it
        response.headers["Connection"] = "keep-alive"
    response.timeout = None  # the stream ends itself; Quart would cut it after a minute
    return response


def nothing_more() -> Response:
    """204, on which an EventSource stops for good (WHATWG HTML, section 9.2.3)."""
    response = Response(b"", 204)
    response.headers.update(HEADERS)
    del response.headers["Content-Type"], response.headers["Content-Length"]
    return response
