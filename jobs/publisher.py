"""StatusPublisher: one SQL statement moves a session, records the event and notifies."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from uuid import UUID

from jobs.database import Connection, Pool
from jobs.model import (
    SESSIONS_CHANNEL,
    Segment,
    StatusMessage,
    StatusUpdate,
    status_channel,
)

# A NOTIFY payload holds 7,999 bytes at most; a longer message goes as ids, to be read in the table.
MAX_PAYLOAD_BYTES = 7900
# Of each text in an event, as JSON: message and error together leave it below 64 KiB.
MAX_TEXT_BYTES = 16 * 1024
# What PostgreSQL has no character for.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")

# Under the session's row lock: the event id rises by at least one and reads as the time in
# microseconds, so ids survive a restored backup; progress never falls; a writer of an earlier
# attempt, or after the end, matches no row and writes nothing at all.
PUBLISH = """
WITH moved AS (
  UPDATE sessions SET
    prev_status_id = last_status_id,
    last_status_id = greatest(
      last_status_id + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
    status = $4,
    stage = $5,
    progress = greatest(progress, $7),
    error = $13::json,
    duration_s = coalesce($10, duration_s),
    committed_s = greatest(committed_s, $15),
    detected_language = coalesce(detected_language, $20),
    segment_count = segment_count + json_array_length($14::json),
    failures = CASE WHEN $15 > committed_s THEN 0 ELSE failures END,
    interruptions = CASE WHEN $15 > committed_s THEN 0 ELSE interruptions END,
    lease_owner = CASE WHEN $4 = 'processing' THEN lease_owner END,
    lease_until = CASE WHEN $4 = 'processing' THEN lease_until END,
    finished_at = CASE WHEN $4 IN ('completed', 'failed', 'cancelled') THEN now() END
  WHERE id = $1 AND attempt = $2
    AND status NOT IN ('completed', 'failed', 'cancelled')
    AND ($3::text IS NULL OR lease_owner = $3)
  RETURNING *
), pieces AS (
  INSERT INTO transcript_segments (session_id, idx, start_s, end_s, text, words, status_id)
  SELECT moved.id, piece.idx, piece.start_s, piece.end_s, piece.text, piece.words,
         moved.last_status_id
  FROM moved, json_to_recordset($14::json) AS piece (
    idx int, start_s double precision, end_s double precision, text text, words json)
), event AS (
  INSERT INTO processing_status (
    session_id, id, prev_id, attempt, status, stage, progress, progress_kind, message,
    duration_processed, duration_total, estimated_completion, processing_speed, segments, error,
    timestamp)
  SELECT id, last_status_id, prev_status_id, attempt, status, stage, progress, $8, $6,
         $9, duration_s, $11, $12, segment_count, error, clock_timestamp()
  FROM moved
  RETURNING *
)
SELECT wire.message,
       pg_notify($16, CASE
         WHEN octet_length(wire.message) <= $18 THEN wire.message
         ELSE json_build_object(
           'session_id', event.session_id, 'id', event.id, 'prev_id', event.prev_id)::text
         END),
       CASE WHEN $4 = 'queued' THEN pg_notify($19, json_build_object(
         'session_id', event.session_id, 'owner_id', moved.owner_id)::text) END,
       set_config('synchronous_commit', CASE WHEN $17 THEN 'on' ELSE 'off' END, true)
FROM event
CROSS JOIN moved
CROSS JOIN LATERAL (
  SELECT status_message(ROW(event.*)::processing_status)::text AS message) AS wire
"""


class StatusPublisher:
    """Writes status events. Rows are the truth; the notification carries a copy."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def publish(
        self,
        session_id: UUID,
        attempt: int,
        update: StatusUpdate,
        *,
        lease_owner: str | None = None,
        segments: Sequence[Segment] = (),
        committed_s: float = 0.0,
        language: str | None = None,
        connection: Connection | None = None,
    ) -> StatusMessage | None:
        """Record `update`, store `segments` with it, and notify the session's channel.

        `committed_s` is the audio time, in seconds, up to which segments are now stored, `language`
        the one heard in them; the first that is told stays. Returns
        the message as every client will see it, or None when this writer has been fenced out:
        another attempt has begun, the lease is another's, or the session is over. It must then
        stop. What the database cannot hold of texts is marked (U+FFFD), those of `update` are cut
        at 16 KiB.

        Terminal events and those that bring segments are flushed to disk before this returns;
        plain progress is not (losing the last of it in a crash costs nothing). Give a `connection`
        to make it part of that connection's transaction, which must be short: NOTIFY serialises
        commits.
        """
        durable = update.status.terminal or bool(segments) or connection is not None
        row = await (connection or self._pool).fetchrow(
            PUBLISH,
            session_id,
            attempt,
            lease_owner,
            update.status.value,
            update.stage.value,
            _fitting(update.message),
            update.progress,
            update.progress_kind.value,
            update.duration_processed,
            update.duration_total,
            update.estimated_completion,
            update.processing_speed,
            _error_json(update),
            _segments_json(segments),
            committed_s,
            status_channel(session_id),
            durable,
            MAX_PAYLOAD_BYTES,
            SESSIONS_CHANNEL,
            language,
        )
        return None if row is None else StatusMessage.from_json(row["message"])


def _error_json(update: StatusUpdate) -> str | None:
    if update.error is None:
        return None
    fields = {"code": update.error.code, "message": _fitting(update.error.message)}
    return json.dumps(fields, ensure_ascii=False)


def _segments_json(segments: Sequence[Segment]) -> str:
    pieces = [segment.fields() for segment in segments]
    for piece in pieces:
        for texts in (piece, *piece["words"]):
            texts["text"] = UNSTORABLE.sub("\ufffd", texts["text"])
    return json.dumps(pieces)


def _fitting(text: str) -> str:
    """The text as an event carries it: it may come from an engine, and be anything."""
    kept = UNSTORABLE.sub("\ufffd", text[:MAX_TEXT_BYTES])
    while (size := len(json.dumps(kept, ensure_ascii=False).encode())) > MAX_TEXT_BYTES:
        kept = kept[: len(kept) * MAX_TEXT_BYTES // size - 1]
    return kept if len(kept) == len(text) else f"{kept}…"
