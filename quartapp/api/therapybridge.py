"""The status of one session in the TherapyBridge dialect, as SSE and as WebSocket."""

from __future__ import annotations

from uuid import UUID

from quart import Blueprint, Response
from quart_schema import document_querystring, document_response, tag

from quartapp.access import viewed_session
from quartapp.api.bodies import ProblemBody
from quartapp.api.status_bodies import DialectQuery
from quartapp.api.stream import stream_of_session
from quartapp.api.websocket import carry
from quartapp.auth import require_allowed_origin
from quartapp.openapi import EVENT_STREAM, answers
from quartapp.streaming.therapybridge import Dialect

blueprint = Blueprint(
    "therapybridge", __name__, url_prefix="/api/sessions/<uuid:session_id>/status"
)


@blueprint.get("/stream")
@tag(["status"])
@document_querystring(DialectQuery)
@answers(200, "The stream", EVENT_STREAM)
@answers(204, "The client has seen the end")
@document_response(ProblemBody, 403)
@document_response(ProblemBody, 404)
@document_response(ProblemBody, 406)
@document_response(ProblemBody, 429)
@document_response(ProblemBody, 503)
async def get_dialect_stream(session_id: UUID) -> Response:
    """The status stream in the TherapyBridge dialect (`text/event-stream`).

    Events `progress`, `complete` and `error`, and `: heartbeat` comments. Cursors, limits and the
    end are those of `/api/v1/sessions/{id}/status/stream`.
    """
    return await stream_of_session(session_id, encode=Dialect(session_id).block)


@blueprint.websocket("/ws")
async def dialect_socket(session_id: UUID) -> None:
    """The same over a WebSocket: `{"event", "id", "data"}` in each text frame."""
    require_allowed_origin()
    session = await viewed_session(session_id, tickets=True)
    await carry(session, Dialect(session_id).frame)
