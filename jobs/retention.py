"""What is older than it is kept is deleted: a batch at a time, each its own transaction.

Each function here yields after every batch how much it removed, and ends when nothing is left. It
may be left after any batch, or killed in the middle of one, and may run in several processes at a
time: the next run finds what is left. Whoever works on a row just now is not waited for. Ages are
seconds, by the database's clock.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TypeAlias
from uuid import UUID

from jobs.database import Pool
from jobs.lifecycle import Lifecycle
from jobs.storage import AudioStore

Batches: TypeAlias = AsyncGenerator[int, None]

BATCH_ROWS = 1000
BATCH_SESSIONS = 100

# Rows are deleted by their place, which leaves the planner no choice: a join with a list of keys it
# would at times begin by reading the whole table.

# What is over may have been over before, and been tried again: the events of that end are between
# those that are found here, and go with them. The lock on the session keeps a second run away.
STATUSES = """
WITH due AS (
  SELECT event.session_id, event.id FROM processing_status AS event
  JOIN sessions AS session ON session.id = event.session_id
  WHERE event.status IN ('queued', 'processing')
    AND event.timestamp < now() - make_interval(secs => $1)
    AND session.finished_at < now() - make_interval(secs => $1)
    AND event.id < session.last_status_id
  ORDER BY event.timestamp LIMIT $2
  FOR NO KEY UPDATE OF session SKIP LOCKED
), last AS (
  SELECT session_id, max(id) AS id FROM due GROUP BY session_id
)
DELETE FROM processing_status WHERE ctid = ANY (ARRAY(
  SELECT event.ctid FROM last CROSS JOIN LATERAL (
    SELECT ctid FROM processing_status
    WHERE session_id = last.session_id AND id <= last.id OFFSET 0) AS event))
"""

STATUSES_OF_ONE = """
WITH session AS (
  SELECT id FROM sessions WHERE id = $1 AND last_status_id = $2 FOR NO KEY UPDATE
)
DELETE FROM processing_status WHERE session_id = $1 AND id IN (
  SELECT event.id FROM processing_status AS event JOIN session ON session.id = event.session_id
  WHERE event.session_id = $1 AND event.id < $2 ORDER BY event.id LIMIT $3)
"""

AUDIO = """
WITH due AS (
  SELECT id, audio_key FROM sessions
  WHERE {which} AND audio_key IS NOT NULL AND finished_at < now() - make_interval(secs => $1)
  ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED
), forgotten AS (
  UPDATE sessions SET audio_key = NULL WHERE id = ANY (ARRAY(SELECT id FROM due)) RETURNING id
)
SELECT audio_key FROM due JOIN forgotten USING (id)
"""
# Written out, as the indexes have them: among all sessions by their end, those that have audio are
# the last.
COMPLETED_AUDIO = AUDIO.format(which="status = 'completed'")
UNFINISHED_AUDIO = AUDIO.format(which="status IN ('failed', 'cancelled')")

SESSIONS = """
SELECT id, last_status_id FROM sessions WHERE finished_at < now() - make_interval(secs => $1)
ORDER BY finished_at LIMIT $2
"""

LOGINS = """
DELETE FROM logins WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM logins
  WHERE least(expires_at, revoked_at) < now() - make_interval(secs => $1)
  ORDER BY least(expires_at, revoked_at) LIMIT $2 FOR UPDATE SKIP LOCKED))
"""

TICKETS = """
DELETE FROM stream_tickets WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM stream_tickets WHERE expires_at < now() - make_interval(secs => $1)
  ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))
"""

IDEMPOTENCY_KEYS = """
DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM idempotency_keys
  WHERE created_at < now() - make_interval(secs => $1)
  ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))
"""

RUNS = """
DELETE FROM transcription_runs WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM transcription_runs WHERE completed_at < now() - make_interval(secs => $1)
  ORDER BY completed_at LIMIT $2 FOR UPDATE SKIP LOCKED))
"""

WORKERS = """
DELETE FROM workers WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM workers WHERE seen_at < now() - make_interval(secs => $1)
  LIMIT $2 FOR UPDATE SKIP LOCKED))
"""


async def delete_rows(pool: Pool, statement: str, older_than_s: float) -> Batches:
    """Rows of one table, by one of the statements above."""
    count = BATCH_ROWS
    while count >= BATCH_ROWS:
        count = _deleted(await pool.execute(statement, older_than_s, BATCH_ROWS))
        yield count


async def delete_audio(
    pool: Pool, store: AudioStore, statement: str, older_than_s: float
) -> Batches:
    """Recordings of sessions, by one of the two statements above. Raises StorageError.

    The session forgets its recording first: what is not deleted then is an orphan, and found as
    such. The other way round there would be sessions that promise what is gone.
    """
    count = BATCH_SESSIONS
    while count >= BATCH_SESSIONS:
        rows = await pool.fetch(statement, older_than_s, BATCH_SESSIONS)
        for row in rows:
            await store.delete(row["audio_key"])
        count = len(rows)
        yield count


async def delete_orphans(store: AudioStore, older_than_s: float) -> Batches:
    """Recordings that no session has. Raises StorageError."""
    async for keys in store.orphans(older_than_s):
        for key in keys:
            await store.delete(key)
        yield len(keys)


async def delete_sessions(
    pool: Pool, lifecycle: Lifecycle, store: AudioStore, older_than_s: float
) -> Batches:
    """Whole sessions that ended that long ago, with all they have, as if their owners had deleted
    them. Raises StorageError."""
    deleted = 1
    while deleted:
        rows = await pool.fetch(SESSIONS, older_than_s, BATCH_SESSIONS)
        deleted = 0
        for session_id, last_status_id in rows:
            async for _ in _delete_history(pool, session_id, last_status_id):
                yield 0
            session = await lifecycle.delete(session_id, at_event=last_status_id)
            if session is not None:
                if session.audio_key is not None:
                    await store.delete(session.audio_key)
                deleted += 1
                yield 1


async def _delete_history(
    pool: Pool, session_id: UUID, last_status_id: int
) -> AsyncGenerator[None, None]:
    """All events but the last, while it is the last. In one transaction with their session they
    would keep it locked for long."""
    count = BATCH_ROWS
    while count >= BATCH_ROWS:
        count = _deleted(
            await pool.execute(STATUSES_OF_ONE, session_id, last_status_id, BATCH_ROWS)
        )
        yield


def _deleted(tag: str) -> int:
    """The count in a command tag such as `DELETE 5`."""
    return int(tag.rsplit(maxsplit=1)[-1])
