"""The `transcript_segments` table. Rows are written by the publisher, together with their event."""

from __future__ import annotations

import json
from uuid import UUID

from jobs.database import Connection, Pool
from jobs.model import Segment, Word


async def select_segments(
    db: Connection | Pool, session_id: UUID, first: int = 0, end: int | None = None
) -> list[Segment]:
    """The segments of a session in order, from `first` up to and without `end`."""
    rows = await db.fetch(
        "SELECT idx, start_s, end_s, text, words FROM transcript_segments "
        "WHERE session_id = $1 AND idx >= $2 AND ($3::int IS NULL OR idx < $3) ORDER BY idx",
        session_id,
        first,
        end,
    )
    return [
        Segment(
            idx=row["idx"],
            start_s=row["start_s"],
            end_s=row["end_s"],
            text=row["text"],
            words=tuple(Word(**word) for word in json.loads(row["words"])),
        )
        for row in rows
    ]
