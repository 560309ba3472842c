"""Status by polling: the latest event, and the history."""

from __future__ import annotations

import json
from uuid import UUID

from quart import Blueprint, Response, current_app, request
from quart_schema import document_response, tag, validate_querystring

from jobs.model import Status
from jobs.statuses import select_latest_status, select_statuses_after
from jobs.turns import select_queue_position
from jobs.workers import select_worker_seen_at
from quartapp.access import viewed_session
from quartapp.api.bodies import ProblemBody
from quartapp.api.status_bodies import HistoryBody, HistoryQuery, LatestStatusBody
from quartapp.openapi import answers
from quartapp.problems import Problem
from quartapp.services import services

blueprint = Blueprint("status", __name__, url_prefix="/api/v1/sessions/<uuid:session_id>/status")


@blueprint.get("")
@tag(["status"])
@document_response(LatestStatusBody)
@answers(304, "Nothing new since `If-None-Match`")
@document_response(ProblemBody, 403)
@document_response(ProblemBody, 404)
async def get_status(session_id: UUID) -> Response:
    """The latest status event, the place in the queue, and when a worker was last heard of.

    Send the `ETag` back as `If-None-Match`, and 304 says that there is nothing new.
    """
    session = await viewed_session(session_id)
    latest = await select_latest_status(services().pool, session_id)
    if latest is None:
        raise Problem(404, "history_pruned", "The status history of this session has been pruned.")
    position, seen = None, session.worker_seen_at
    if session.status is Status.QUEUED:
        position = await select_queue_position(services().pool, session_id)
        seen = await select_worker_seen_at(services().pool, session_id)
    body = {
        **latest.fields(),
        "queue_position": position,
        "worker_seen_at": seen.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if seen
        else None,
    }
    response: Response = current_app.response_class(
        json.dumps(body, ensure_ascii=False), content_type="application/json"
    )
    # Weak: a worker's sign of life alone makes no new state.
    response.set_etag(f"{latest.id}-{position or 0}", weak=True)
    response.headers["Cache-Control"] = "private, no-cache"
    await response.make_conditional(request)
    return response


@blueprint.get("/history")
@tag(["status"])
@validate_querystring(HistoryQuery)
@document_response(HistoryBody)
@document_response(ProblemBody, 403)
@document_response(ProblemBody, 404)
async def get_history(session_id: UUID, query_args: HistoryQuery) -> Response:
    """Status events with an id above `after`, oldest first.

    `next_after` is where the next page begins, null when this one reaches the present.
    """
    await viewed_session(session_id)
    events = await select_statuses_after(
        services().pool, session_id, query_args.after, query_args.limit + 1
    )
    page = events[: query_args.limit]
    next_after = page[-1].id if len(events) > len(page) else None
    texts = ",".join(event.text for event in page)
    response: Response = current_app.response_class(
        f'{{"events":[{texts}],"next_after":{json.dumps(next_after)}}}',
        content_type="application/json",
    )
    response.headers["Cache-Control"] = "private, no-cache"
    return response
