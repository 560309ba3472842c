"""One stream for all sessions of the caller, for lists."""

from __future__ import annotations

from quart import Blueprint, Response, request
from quart_schema import document_querystring, document_response, tag

from quartapp.api.bodies import ProblemBody
from quartapp.api.status_bodies import ROSTER_EVENTS, RosterQuery
from quartapp.api.stream import current_request, require_event_stream, stream_response
from quartapp.auth import current_viewer
from quartapp.openapi import streams
from quartapp.opening import admit, requested_event
from quartapp.services import services
from quartapp.streaming.event_stream import as_blocks
from quartapp.streaming.roster import RosterStream
from quartapp.streaming.slots import Transport

blueprint = Blueprint("roster", __name__, url_prefix="/api/v1/status")


@blueprint.get("/stream")
@tag(["status"])
@document_querystring(RosterQuery)
@streams(ROSTER_EVENTS)
@document_response(ProblemBody, 406)
@document_response(ProblemBody, 429)
@document_response(ProblemBody, 503)
async def get_roster_stream() -> Response:
    """The status of every session the caller may see, as it changes (`text/event-stream`).

    Begins with the latest event of each session that is not over, and of those that changed in the
    last minute, or since `Last-Event-ID`; goes on with what happens, new sessions included. Events
    are those of a session's own stream, which `session_id` in their data tells apart; `complete`,
    `failed`, `cancelled` and `gone` end one session and not this stream. It carries states: to have
    every event of a session, follow that session.
    """
    await current_viewer()
    require_event_stream()
    since, reset = requested_event()
    if request.method == "HEAD":
        return stream_response(None)
    stream = await admit(None, Transport.SSE, current_request().on_close)
    roster = RosterStream(
        stream,
        since,
        reset=reset,
        pool=services().pool,
        listener=services().listener,
        subscriber=services().subscriber,
        settings=services().settings,
    )
    return stream_response(as_blocks(roster.events(), stream))
