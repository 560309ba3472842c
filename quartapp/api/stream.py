"""The status stream of one session, as Server-Sent Events."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import cast
from uuid import UUID

from quart import Blueprint, Response, current_app, request
from quart_schema import document_response, tag

from jobs.sessions import Session
from jobs.statuses import select_status_exists
from quartapp.access import sees, viewed_session
from quartapp.accounts import select_viewer
from quartapp.api.bodies import ProblemBody
from quartapp.auth import current_viewer
from quartapp.problems import Problem
from quartapp.services import services
from quartapp.streaming.event_stream import EventStream, Start
from quartapp.streaming.open_streams import OpenStreams

blueprint = Blueprint("stream", __name__, url_prefix="/api/v1/sessions/<uuid:session_id>/status")

MEDIA_TYPE = "text/event-stream"
EXTENSION = "quartapp-streams"

# Neither kept nor changed on the way, compression included; and not held back by nginx.
HEADERS = {
    "Cache-Control": "no-cache, no-store, no-transform",
    "X-Accel-Buffering": "no",
}

CURSOR = re.compile(r"[0-9]{1,19}")
MAX_ID = 2**63 - 1


@blueprint.get("/stream")
@tag(["status"])
@document_response(ProblemBody, 403)
@document_response(ProblemBody, 404)
@document_response(ProblemBody, 406)
async def get_status_stream(session_id: UUID) -> Response:
    """Status events as they happen (`text/event-stream`), from the latest on.

    With `Last-Event-ID`, or `?last_event_id=`, from the one after it; with `?replay=all` from the
    first. Ends after `complete`, `failed` or `cancelled`; a client that has seen that gets 204.
    """
    session = await viewed_session(session_id)
    if not accepts_events():
        raise Problem(406, "not_acceptable", f"The status stream is {MEDIA_TYPE} only.")
    start = await requested_start(session)
    if session.status.terminal and start.after == session.last_status_id:
        return nothing_more()
    if request.method == "HEAD":
        return stream_response(None)
    stream = EventStream(
        session_id,
        start,
        subscriber=services().subscriber,
        streams=open_streams(),
        settings=services().settings,
        has_access=await access_check(session),
    )
    return stream_response(stream.frames())


def accepts_events() -> bool:
    """Whether `Accept` leaves room for a stream (RFC 9110, section 12.5.1)."""
    accepted = request.accept_mimetypes
    return not accepted or accepted.quality(MEDIA_TYPE) > 0


async def requested_start(session: Session) -> Start:
    """Where the client wants to begin. Whatever it sends for a cursor, this is no error."""
    cursor = request.headers.get("Last-Event-ID") or request.args.get("last_event_id")
    if not cursor:
        return Start(after=0 if request.args.get("replay") == "all" else None)
    if not CURSOR.fullmatch(cursor) or int(cursor) > MAX_ID:
        return Start(reset=True)
    after = int(cursor)
    known = after == session.last_status_id or await select_status_exists(
        services().pool, session.id, after
    )
    return Start(after=after) if known else Start(reset=True)


async def access_check(session: Session) -> Callable[[], Awaitable[bool]]:
    """Asks later, outside the request, what was asked at its start."""
    viewer = await current_viewer()
    app = current_app._get_current_object()  # type: ignore[attr-defined]

    async def has_access() -> bool:
        async with app.app_context():
            now = await select_viewer(services().pool, viewer.login_id)
            return now is not None and await sees(now, session.owner_id)

    return has_access


def open_streams() -> OpenStreams:
    """Those of this app."""
    known = current_app.extensions.setdefault(EXTENSION, OpenStreams(services().drain))
    return cast(OpenStreams, known)


def stream_response(frames: AsyncGenerator[bytes, None] | None) -> Response:
    """The answer that carries a stream; for HEAD, with None, the same without it."""
    response = Response(frames if frames is not None else b"", content_type=MEDIA_TYPE)
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
