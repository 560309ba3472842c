"""Reading `processing_status`: always whole messages in the one wire format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from jobs.database import Connection, Pool
from jobs.model import Status, StatusMessage
from jobs.workers import WORKER_SEEN_AT


@dataclass(frozen=True, slots=True)
class StatusPage:
    """What a session has to say after some event, as of one moment."""

    exists: bool  # whether there is such a session
    messages: tuple[StatusMessage, ...]  # oldest first
    more: bool  # whether there are events after these
    worker_seen_at: datetime | None


NO_SESSION = StatusPage(exists=False, messages=(), more=False, worker_seen_at=None)


async def select_latest_status(db: Connection | Pool, session_id: UUID) -> StatusMessage | None:
    """The newest event of a session; None when there is none (or no such session)."""
    text = await db.fetchval(
        "SELECT status_message(event)::text FROM processing_status AS event "
        "WHERE session_id = $1 ORDER BY id DESC LIMIT 1",
        session_id,
    )
    return None if text is None else StatusMessage.from_json(text)


async def select_statuses_after(
    db: Connection | Pool, session_id: UUID, after: int, limit: int
) -> list[StatusMessage]:
    """Events with an id above `after`, oldest first, at most `limit`."""
    rows = await db.fetch(
        "SELECT status_message(event)::text FROM processing_status AS event "
        "WHERE session_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        session_id,
        after,
        limit,
    )
    return [StatusMessage.from_json(row[0]) for row in rows]


async def select_segments_at(db: Connection | Pool, session_id: UUID, event_id: int) -> int | None:
    """How many segments there were at this event; None when it is not (or no longer) there."""
    found: int | None = await db.fetchval(
        "SELECT segments FROM processing_status WHERE session_id = $1 AND id = $2",
        session_id,
        event_id,
    )
    return found


async def select_latest_ids(db: Connection | Pool, session_ids: Iterable[UUID]) -> dict[UUID, int]:
    """The newest event id of each of these sessions, in one query; unknown ones are left out."""
    rows = await db.fetch(
        "SELECT id, last_status_id FROM sessions WHERE id = ANY($1::uuid[])", list(session_ids)
    )
    return {row["id"]: row["last_status_id"] for row in rows}


async def select_status_pages(
    db: Connection | Pool, wanted: Sequence[tuple[UUID, int | None]], limit: int
) -> list[StatusPage]:
    """For each (session, event id) the events after it, at most `limit`; for each (session, None)
    the newest event alone. One query for all of them, answered in their order."""
    rows = await db.fetch(
        f"""
        SELECT wanted.position, {WORKER_SEEN_AT},
               event.id, event.prev_id, event.status, event.progress, event.segments, event.text
        FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY
             AS wanted (session_id, after, position)
        JOIN sessions AS session ON session.id = wanted.session_id
        LEFT JOIN LATERAL (
          (SELECT id, prev_id, status, progress, segments, status_message(row)::text AS text
           FROM processing_status AS row
           WHERE row.session_id = wanted.session_id AND row.id > wanted.after
           ORDER BY row.id LIMIT $3)
          UNION ALL
          (SELECT id, prev_id, status, progress, segments, status_message(row)::text AS text
           FROM processing_status AS row
           WHERE row.session_id = wanted.session_id AND wanted.after IS NULL
           ORDER BY row.id DESC LIMIT 1)
        ) AS event ON true
        ORDER BY wanted.position, event.id
        """,  # noqa: S608
        [session_id for session_id, _ in wanted],
        [after for _, after in wanted],
        limit + 1,
    )
    found: dict[int, list[StatusMessage]] = {}
    seen: dict[int, datetime | None] = {}
    for position, worker_seen_at, event_id, prev_id, status, progress, segments, text in rows:
        messages = found.setdefault(position, [])
        seen[position] = worker_seen_at
        if event_id is not None:
            session_id = wanted[position - 1][0]
            messages.append(
                StatusMessage(
                    session_id, event_id, prev_id, Status(status), progress, text, segments
                )
            )
    return [
        StatusPage(
            True, tuple(found[position][:limit]), len(found[position]) > limit, seen[position]
        )
        if position in found
        else NO_SESSION
        for position in range(1, len(wanted) + 1)
    ]
