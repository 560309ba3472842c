"""Whose recording comes next: the one order that begins jobs and that tells places in the queue.

Interrupted recordings come first, then short ones where the settings say so, then all others. Among
these, users take turns, so that one upload of one user waits behind one of another who sent fifty,
not behind fifty. In each round users come in the order of their last turn or of the arrival of what
has waited longest of theirs, whichever is later: nobody's turn is put off by who comes after.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from jobs.database import Connection, Pool

# Rows of what waits: a session, its job, and its position, from 1. A job that is not due yet (a try
# again after a failure) waits behind all that are. A recording that begins changes the place of no
# other, so processes that fetch at the same moment keep the order without a lock. Hence a user with
# a recording that is fetched and not yet claimed (`taken`) has had a turn, and one with recordings
# in a class `before` this one will have had one by the time it is the turn of this class.
WAITING = """
  SELECT turns.*, row_number() OVER (
    ORDER BY NOT due, priority, turn, before, taken, since, lock_key) AS position
  FROM (
    SELECT unfinished.*,
           row_number() OVER (
             PARTITION BY owner_id, key IS NULL, due, priority ORDER BY scheduled, lock_key)
           AS turn,
           rank() OVER (PARTITION BY owner_id, key IS NULL ORDER BY NOT due, priority) AS before,
           bool_or(key IS NULL) OVER (PARTITION BY owner_id) AS taken,
           greatest(min(queued_at) OVER (PARTITION BY owner_id), last_turn_at) AS since
    FROM (
      SELECT session.id, session.owner_id, session.attempt, session.duration_s,
             session.committed_s, session.queued_at, session.told_position,
             job.key, job.priority, job.scheduled, job.lock_key, last.at AS last_turn_at,
             job.scheduled <= extract(epoch FROM clock_timestamp())::bigint AS due
      FROM sessions AS session
      LEFT JOIN saq_jobs AS job
        ON job.key = 'transcribe:' || session.id || ':' || session.attempt
        AND job.status = 'queued'
      LEFT JOIN last_turns AS last USING (owner_id)
      WHERE session.status = 'queued'
    ) AS unfinished
  ) AS turns
  WHERE key IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """A recording that waits."""

    session_id: UUID
    attempt: int
    position: int  # 1 for the one that is begun next
    due: bool
    due_at: datetime  # not before
    waited_s: float  # since it was queued
    audio_s: float | None  # still to be recognised; None while the length is unknown
    told_position: int | None  # as the last event about it said


async def select_turns(db: Connection | Pool, limit: int | None) -> list[Turn]:
    """Who waits, in order; at most `limit`, or all."""
    rows = await db.fetch(
        "SELECT id, attempt, position, due, to_timestamp(scheduled) AS due_at, "  # noqa: S608
        "extract(epoch FROM now() - queued_at)::float AS waited_s, "
        "greatest(duration_s - committed_s, 0) AS audio_s, told_position "
        f"FROM ({WAITING}) AS waiting ORDER BY position LIMIT $1",
        limit,
    )
    return [Turn(*row.values()) for row in rows]


async def select_queue_position(db: Connection | Pool, session_id: UUID) -> int | None:
    """1 for the recording that is begun next; None when it does not wait."""
    position: int | None = await db.fetchval(
        f"SELECT position FROM ({WAITING}) AS waiting WHERE id = $1",  # noqa: S608
        session_id,
    )
    return position


async def upsert_last_turn(db: Connection, owner_id: UUID) -> None:
    """Note that a recording of this user begins now."""
    await db.execute(
        "INSERT INTO last_turns (owner_id, at) VALUES ($1, clock_timestamp()) "
        "ON CONFLICT (owner_id) DO UPDATE SET at = excluded.at",
        owner_id,
    )
