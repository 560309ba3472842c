"""Sessions: upload, list, read, delete, cancel, retry."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from quart import Blueprint, Response, current_app, request
from quart_rate_limiter import RateLimit, rate_limit
from quart_schema import (
    DataSource,
    document_request,
    document_response,
    tag,
    validate_querystring,
    validate_response,
)

from jobs.errors import StorageError
from jobs.lifecycle import Outcome
from jobs.model import Role, Status
from jobs.sessions import Session, SessionFilter, select_session, select_sessions
from jobs.settings import MIB
from jobs.waiting import ExpectedTurn, select_outlook
from quartapp.access import require_sight, viewed_session
from quartapp.accounts import select_addresses
from quartapp.api.bodies import ProblemBody, SessionBody, SessionList, SessionQuery, UploadForm
from quartapp.auth import current_viewer
from quartapp.idempotency import parse_key
from quartapp.intake import take_in, too_large
from quartapp.openapi import answers
from quartapp.problems import Problem
from quartapp.services import services
from quartapp.uploads import form_of_request

log = structlog.get_logger()

# What a form may weigh beyond its file.
FORM_OVERHEAD_BYTES = 1 * MIB


def sessions_blueprint(uploads_per_minute: int) -> Blueprint:
    """The routes, with their limit on uploads."""
    blueprint = Blueprint("sessions", __name__, url_prefix="/api/v1/sessions")

    @blueprint.post("")
    @rate_limit(limits=[RateLimit(uploads_per_minute, timedelta(minutes=1))])
    @tag(["sessions"])
    @document_request(UploadForm, source=DataSource.FORM_MULTIPART)
    @document_response(SessionBody, 201)
    @document_response(ProblemBody, 413)
    @document_response(ProblemBody, 415)
    @document_response(ProblemBody, 422)
    async def post_session() -> Response:
        """Upload a recording.

        `multipart/form-data` with the recording in `file`, and optionally `title`, `language` (a
        tag such as `en`) and `patient_id` (a therapist uploads for an assigned patient). Answers
        once it is stored, opened and queued. With an `Idempotency-Key` a repeated upload gets the
        first answer again.
        """
        viewer = await current_viewer()
        settings = services().settings
        announced = request.content_length
        if announced is not None and announced > settings.max_upload_bytes + FORM_OVERHEAD_BYTES:
            raise too_large(settings.max_upload_bytes)
        key = parse_key(request.headers.get("Idempotency-Key"))
        form = form_of_request(settings.upload_idle_timeout_s)
        accepted = await take_in(services(), viewer, form, key)
        response: Response = current_app.response_class(
            accepted.answer, 201, content_type="application/json"
        )
        response.headers["Location"] = f"/api/v1/sessions/{accepted.session_id}"
        return response

    @blueprint.get("")
    @tag(["sessions"])
    @validate_querystring(SessionQuery)
    @validate_response(SessionList)
    @document_response(ProblemBody, 403)
    @document_response(ProblemBody, 422)
    async def get_sessions(query_args: SessionQuery) -> SessionList:
        """The sessions the caller may see, newest first.

        Of these the ones that are asked for by `q`, `status` and `owner_id`. 403 for an owner whose
        sessions the caller may not see.
        """
        viewer = await current_viewer()
        if query_args.owner_id is not None:
            await require_sight(viewer, query_args.owner_id)
        found = await select_sessions(
            services().pool,
            viewer_id=viewer.id,
            everything=viewer.is_admin,
            assigned=viewer.user.role is Role.THERAPIST,
            before=_parse_cursor(query_args.cursor),
            limit=query_args.limit + 1,
            wanted=SessionFilter(
                text=(query_args.q or "").strip(),
                status=query_args.status,
                owner_id=query_args.owner_id,
            ),
        )
        page = found[: query_args.limit]
        return SessionList(
            sessions=await _bodies(page),
            next_cursor=_cursor(page[-1]) if len(found) > len(page) else None,
        )

    @blueprint.get("/<uuid:session_id>")
    @tag(["sessions"])
    @validate_response(SessionBody)
    @document_response(ProblemBody, 403)
    @document_response(ProblemBody, 404)
    async def get_session(session_id: UUID) -> SessionBody:
        """One session."""
        return await _body(await viewed_session(session_id))

    @blueprint.delete("/<uuid:session_id>")
    @tag(["sessions"])
    @document_response(ProblemBody, 403)
    @document_response(ProblemBody, 404)
    @answers(204, "Done")
    async def delete_session(session_id: UUID) -> Response:
        """Delete a session in any state.

        Its recording, events and transcript go with it; running work stops.
        """
        await viewed_session(session_id)
        deleted = await services().lifecycle.delete(session_id)
        if deleted is not None and deleted.audio_key is not None:
            try:
                await services().store.delete(deleted.audio_key)
            except StorageError as error:  # the sweep will find it
                log.warning("audio_not_deleted", session_id=str(session_id), error=str(error))
        return current_app.response_class(b"", 204)

    @blueprint.post("/<uuid:session_id>/cancel")
    @tag(["sessions"])
    @validate_response(SessionBody)
    @document_response(ProblemBody, 409)
    async def post_cancel(session_id: UUID) -> SessionBody:
        """Stop a queued or running session.

        The text so far is kept. Cancelling twice is the same as once; a completed or failed session
        answers 409.
        """
        await viewed_session(session_id)
        outcome = await services().lifecycle.cancel(session_id)
        return await _answer(session_id, outcome, "It is over already and cannot be cancelled.")

    @blueprint.post("/<uuid:session_id>/retry")
    @tag(["sessions"])
    @validate_response(SessionBody)
    @document_response(ProblemBody, 409)
    async def post_retry(session_id: UUID) -> SessionBody:
        """Queue a failed or cancelled session again.

        It keeps its options and goes on after the text it has. Any other state answers 409.
        """
        session = await viewed_session(session_id)
        outcome = await services().lifecycle.restart(session_id)
        why = "Only a failed or cancelled session can be retried."
        if session.status in {Status.FAILED, Status.CANCELLED} and session.audio_key is None:
            why = "Its recording is no longer stored, so it cannot be retried."
        return await _answer(session_id, outcome, why)

    return blueprint


async def _answer(session_id: UUID, outcome: Outcome, wrong_state: str) -> SessionBody:
    if outcome is Outcome.WRONG_STATE:
        raise Problem(409, "wrong_state", wrong_state)
    session = await select_session(services().pool, session_id)
    if outcome is Outcome.NOT_FOUND or session is None:
        raise _not_found()
    return await _body(session)


async def _body(session: Session) -> SessionBody:
    bodies = await _bodies([session])
    if not bodies:
        raise _not_found()
    return bodies[0]


def _not_found() -> Problem:
    return Problem(404, "not_found", "There is no such session.")


async def _bodies(sessions: Sequence[Session]) -> list[SessionBody]:
    """With whose they are, and what those that wait can expect."""
    addresses = await _addresses({session.owner_id for session in sessions})
    turns: dict[UUID, ExpectedTurn] = {}
    if any(session.status is Status.QUEUED for session in sessions):
        alive_s = services().settings.lease_s
        outlook = await select_outlook(services().pool, alive_s=alive_s, limit=None)
        turns = {each.turn.session_id: each for each in outlook.turns}
    return [
        SessionBody.of(session, addresses[session.owner_id], turns.get(session.id))
        for session in sessions
        if session.owner_id in addresses  # else it went with its owner just now
    ]


async def _addresses(owners: set[UUID]) -> dict[UUID, str]:
    viewer = await current_viewer()
    own = {viewer.id: viewer.user.email}
    others = owners - own.keys()
    return own | await select_addresses(services().pool, others) if others else own


def _cursor(last: Session) -> str:
    plain = f"{last.created_at.isoformat()} {last.id}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _parse_cursor(cursor: str | None) -> tuple[datetime, UUID] | None:
    if cursor is None:
        return None
    try:
        plain = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        created_at, _, session_id = plain.partition(" ")
        parsed = datetime.fromisoformat(created_at).astimezone(UTC), UUID(session_id)
    except (ValueError, OverflowError, binascii.Error, UnicodeError):
        raise Problem(422, "invalid_cursor", "cursor: not one that was given out") from None
    return parsed
