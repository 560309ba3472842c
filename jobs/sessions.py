"""The `sessions` table: rows in, rows out. Who may see what is decided by the caller."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from jobs.database import Connection, Pool
from jobs.model import ErrorDetail, Stage, Status


@dataclass(frozen=True, slots=True)
class NewSession:
    """What an accepted upload brings."""

    id: UUID
    owner_id: UUID
    title: str
    file_name: str
    language: str | None
    audio_key: str
    audio_type: str
    size_bytes: int
    sha256: str
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class Session:
    """One recording and where its transcription stands."""

    id: UUID
    owner_id: UUID
    title: str
    file_name: str
    language: str | None  # as given
    detected_language: str | None  # as heard, when none was given
    audio_key: str | None
    audio_type: str
    size_bytes: int
    duration_s: float | None
    engine: str | None
    status: Status
    stage: Stage
    progress: int
    error: ErrorDetail | None
    attempt: int
    failures: int
    interruptions: int
    lease_owner: str | None
    worker_seen_at: datetime | None
    committed_s: float
    segment_count: int
    last_status_id: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


COLUMNS = ", ".join(Session.__dataclass_fields__)


def _session(row: asyncpg.Record | None) -> Session | None:
    if row is None:
        return None
    fields: dict[str, Any] = dict(row)
    fields["status"] = Status(fields["status"])
    fields["stage"] = Stage(fields["stage"])
    fields["error"] = ErrorDetail(**json.loads(fields["error"])) if fields["error"] else None
    return Session(**fields)


def _sessions(rows: list[asyncpg.Record]) -> list[Session]:
    return [session for row in rows if (session := _session(row)) is not None]


async def insert_session(db: Connection, new: NewSession) -> None:
    """Raises asyncpg.UniqueViolationError when the id or the audio is taken."""
    await db.execute(
        "INSERT INTO sessions (id, owner_id, title, file_name, language, audio_key, audio_type, "
        "size_bytes, sha256, duration_s) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        new.id,
        new.owner_id,
        new.title,
        new.file_name,
        new.language,
        new.audio_key,
        new.audio_type,
        new.size_bytes,
        new.sha256,
        new.duration_s,
    )


async def select_session(db: Connection | Pool, session_id: UUID) -> Session | None:
    return _session(
        await db.fetchrow(f"SELECT {COLUMNS} FROM sessions WHERE id = $1", session_id)  # noqa: S608
    )


async def select_session_for_update(db: Connection, session_id: UUID) -> Session | None:
    """The row, locked to the end of the caller's transaction."""
    return _session(
        await db.fetchrow(
            f"SELECT {COLUMNS} FROM sessions WHERE id = $1 FOR UPDATE",  # noqa: S608
            session_id,
        )
    )


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions are wanted; unset, all."""

    text: str = ""  # part of the title or the file name, in either case
    status: Status | None = None
    owner_id: UUID | None = None


async def select_sessions(
    db: Connection | Pool,
    *,
    viewer_id: UUID,
    everything: bool,
    assigned: bool,
    before: tuple[datetime, UUID] | None,
    limit: int,
    wanted: SessionFilter = SessionFilter(),
) -> list[Session]:
    """Newest first, of those wanted: the viewer's own, with `assigned` those of patients assigned
    to the viewer, with `everything` all.

    `before` is the (created_at, id) of the last row of the page before.
    """
    rows = await db.fetch(
        f"SELECT {COLUMNS} FROM sessions "  # noqa: S608
        "WHERE ($1 OR owner_id = $2 OR $6 AND owner_id IN "
        "  (SELECT patient_id FROM care_assignments WHERE therapist_id = $2)) "
        "AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4::uuid)) "
        "AND ($7 = '' OR title ILIKE $7 OR file_name ILIKE $7) "
        "AND ($8::text IS NULL OR status = $8) AND ($9::uuid IS NULL OR owner_id = $9) "
        "ORDER BY created_at DESC, id DESC LIMIT $5",
        everything,
        viewer_id,
        before[0] if before else None,
        before[1] if before else None,
        limit,
        assigned,
        _containing(wanted.text),
        wanted.status and wanted.status.value,
        wanted.owner_id,
    )
    return _sessions(rows)


def _containing(text: str) -> str:
    """The pattern of LIKE for what contains this; none for no text."""
    literal = re.sub(r"([\\%_])", r"\\\1", text)
    return f"%{literal}%" if literal else ""


@dataclass(frozen=True, slots=True)
class Changed:
    """What one viewer may follow, as of one moment."""

    newest: dict[UUID, int]  # the newest event of each session that has news
    followed: dict[UUID, int]  # the same, of those followed that the viewer may still see
    owners: frozenset[UUID]  # whose sessions these are
    everything: bool  # the viewer sees those of everybody
    as_of: int  # that moment, as event ids are: microseconds of the database's clock


async def select_changed(
    db: Connection | Pool,
    viewer_id: UUID,
    since: int | None,
    *,
    margin_us: int,
    limit: int,
    told: Mapping[UUID, int],
    followed: Collection[UUID],
) -> Changed | None:
    """The sessions a viewer may see that have news: they are not over, or changed after the event
    `since` (None: now), and are neither `followed` nor `told` of up to their newest event. At most
    `limit`, those that changed last; and all that are followed. None when there is no such account,
    or it is disabled.

    So many microseconds before `since` are covered as well, since events are not committed in the
    order of their ids across sessions.
    """
    row = await db.fetchrow(
        # One branch for those who see everything and one for the others: in one condition they
        # would have everybody read the whole table.
        """
        WITH viewer AS (
          SELECT id, role, role = 'admin' AS everything,
                 (extract(epoch FROM statement_timestamp()) * 1000000)::bigint AS as_of
          FROM users WHERE id = $1 AND disabled_at IS NULL
        ), owners AS (
          SELECT id FROM viewer
          UNION
          SELECT patient_id FROM care_assignments JOIN viewer ON therapist_id = viewer.id
          WHERE viewer.role = 'therapist'
        ), told AS (
          SELECT * FROM unnest($5::uuid[], $6::bigint[]) AS told (id, event_id)
        ), newest AS (
          SELECT session.id, last_status_id FROM (
            SELECT id, status, last_status_id FROM sessions
            WHERE owner_id IN (SELECT id FROM owners) AND NOT (SELECT everything FROM viewer)
            UNION ALL
            SELECT id, status, last_status_id FROM sessions WHERE (SELECT everything FROM viewer)
          ) AS session
          WHERE (status IN ('queued', 'processing')
                 OR last_status_id > coalesce($2, (SELECT as_of FROM viewer)) - $3)
            AND (id, last_status_id) NOT IN (SELECT id, event_id FROM told)
            AND id <> ALL ($7::uuid[])
          ORDER BY last_status_id DESC LIMIT $4
        ), followed AS (
          SELECT id, last_status_id FROM sessions
          WHERE id = ANY ($7::uuid[])
            AND ((SELECT everything FROM viewer) OR owner_id IN (SELECT id FROM owners))
        )
        SELECT as_of, everything, ARRAY(SELECT id FROM owners) AS owners,
               (SELECT json_object_agg(id, last_status_id) FROM newest)::text AS newest,
               (SELECT json_object_agg(id, last_status_id) FROM followed)::text AS followed
        FROM viewer
        """,
        viewer_id,
        since,
        margin_us,
        limit,
        list(told),
        list(told.values()),
        list(followed),
    )
    if row is None:
        return None
    return Changed(
        newest=_event_ids(row["newest"]),
        followed=_event_ids(row["followed"]),
        owners=frozenset(row["owners"]),
        everything=row["everything"],
        as_of=row["as_of"],
    )


def _event_ids(text: str | None) -> dict[UUID, int]:
    return {UUID(key): event_id for key, event_id in json.loads(text or "{}").items()}


async def delete_session(db: Connection, session_id: UUID) -> bool:
    """Remove the row and, by cascade, its events and segments. False when there was none."""
    return await db.execute("DELETE FROM sessions WHERE id = $1", session_id) == "DELETE 1"


async def update_claimed(
    db: Connection, session_id: UUID, attempt: int, owner: str, lease_s: float, engine: str
) -> Session | None:
    """Take the lease of a queued session for this attempt; None when it is not to be had."""
    return _session(
        await db.fetchrow(
            "UPDATE sessions SET status = 'processing', lease_owner = $3, "  # noqa: S608
            "lease_until = now() + make_interval(secs => $4), worker_seen_at = now(), "
            "started_at = coalesce(started_at, now()), engine = $5 "
            f"WHERE id = $1 AND attempt = $2 AND status = 'queued' RETURNING {COLUMNS}",
            session_id,
            attempt,
            owner,
            lease_s,
            engine,
        )
    )


async def update_lease(
    db: Connection | Pool, session_id: UUID, attempt: int, owner: str, lease_s: float
) -> bool:
    """Extend the lease. False when it is no longer ours: stop at once."""
    done: str = await db.execute(
        "UPDATE sessions SET lease_until = now() + make_interval(secs => $4), "
        "worker_seen_at = now() "
        "WHERE id = $1 AND attempt = $2 AND lease_owner = $3 AND status = 'processing'",
        session_id,
        attempt,
        owner,
        lease_s,
    )
    return done == "UPDATE 1"


async def select_lease_held(
    db: Connection | Pool, session_id: UUID, attempt: int, owner: str
) -> bool:
    """Whether this attempt still has the session: false after a cancel, a delete or a take-over."""
    held: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM sessions WHERE id = $1 AND attempt = $2 "
        "AND lease_owner = $3 AND status = 'processing')",
        session_id,
        attempt,
        owner,
    )
    return held


async def update_requeued(
    db: Connection, session_id: UUID, *, failed: bool, interrupted: bool
) -> int:
    """Back to the queue under a new attempt, whose number is returned. Fences the old one."""
    attempt: int = await db.fetchval(
        "UPDATE sessions SET status = 'queued', attempt = attempt + 1, lease_owner = NULL, "
        "lease_until = NULL, queued_at = now(), finished_at = NULL, error = NULL, "
        "told_position = NULL, "
        "failures = failures + $2::int, interruptions = interruptions + $3::int "
        "WHERE id = $1 RETURNING attempt",
        session_id,
        int(failed),
        int(interrupted),
    )
    return attempt


async def update_told_position(
    db: Connection, session_id: UUID, attempt: int, position: int, told: int | None
) -> Session | None:
    """Note what a waiting session is told of its place, last told `told`. None when it waits no
    longer, or was told another meanwhile."""
    return _session(
        await db.fetchrow(
            "UPDATE sessions SET told_position = $3 "  # noqa: S608
            "WHERE id = $1 AND attempt = $2 AND status = 'queued' "
            f"AND told_position IS NOT DISTINCT FROM $4 RETURNING {COLUMNS}",
            session_id,
            attempt,
            position,
            told,
        )
    )


async def update_restarted(db: Connection, session_id: UUID) -> int:
    """A finished session back to the queue at its user's wish, with a clean record of failures."""
    attempt = await update_requeued(db, session_id, failed=False, interrupted=False)
    await db.execute(
        "UPDATE sessions SET failures = 0, interruptions = 0, started_at = NULL WHERE id = $1",
        session_id,
    )
    return attempt


async def select_lost_sessions(db: Connection | Pool, lease_s: float, limit: int) -> list[UUID]:
    """Sessions whose lease ran out. Right after a start of the database nobody could extend one, so
    its workers are given a full lease from then."""
    rows = await db.fetch(
        "SELECT id FROM sessions WHERE status = 'processing' AND lease_until < now() "
        "AND pg_postmaster_start_time() < now() - make_interval(secs => $1) LIMIT $2",
        lease_s,
        limit,
    )
    return [row["id"] for row in rows]


async def select_sees(db: Connection | Pool, viewer_id: UUID, owner_id: UUID) -> bool:
    """Whether `owner_id` is a patient assigned to `viewer_id`."""
    assigned: bool = await db.fetchval(
        "SELECT EXISTS (SELECT FROM care_assignments WHERE therapist_id = $1 AND patient_id = $2)",
        viewer_id,
        owner_id,
    )
    return assigned
