"""Tickets for the streams of one session."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from quart import Blueprint
from quart_rate_limiter import RateLimit, rate_limit
from quart_schema import document_response, tag, validate_response

from quartapp.access import viewed_session
from quartapp.api.bodies import ProblemBody
from quartapp.api.status_bodies import TicketBody
from quartapp.auth import current_viewer
from quartapp.cors import is_preflight
from quartapp.problems import Problem
from quartapp.services import services
from quartapp.tickets import insert_ticket


def tickets_blueprint(tickets_per_minute: int) -> Blueprint:
    """The route, with its limit."""
    blueprint = Blueprint(
        "tickets", __name__, url_prefix="/api/v1/sessions/<uuid:session_id>/status"
    )
    limit = RateLimit(tickets_per_minute, timedelta(minutes=1), skip_function=is_preflight)

    @blueprint.post("/ticket")
    @rate_limit(limits=[limit])
    @tag(["status"])
    @validate_response(TicketBody, 201)
    @document_response(ProblemBody, 403)
    @document_response(ProblemBody, 404)
    @document_response(ProblemBody, 429)
    async def post_ticket(session_id: UUID) -> tuple[TicketBody, int]:
        """A ticket, to open one stream of this session as `?ticket=`, once and soon.

        For `EventSource` and `WebSocket` of browsers, which can send no header: over any of its
        streams, instead of token or cookie. The stream ends with the sign-in that asked for it.
        """
        await viewed_session(session_id)
        viewer = await current_viewer()
        duration_s = services().settings.ticket_duration_s
        ticket = await insert_ticket(services().pool, viewer.login_id, session_id, duration_s)
        if ticket is None:
            raise Problem(404, "not_found", "There is no such session.")
        return TicketBody(
            ticket=ticket.text, expires_at=ticket.expires_at, expires_in_s=duration_s
        ), 201

    return blueprint
