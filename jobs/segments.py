"""The `transcript_segments` table. Rows are written by the publisher, together with their event."""

from __future__ import annotations

import json
from uuid import UUID

from jobs.database import Connection, Pool
from jobs.model import Segment, Word


async def select_segments(db: Connection | Pool, session_id: UUID) -> list[Segment]:
    """All segments of a session in order."""
    rows = await db.fetch(
        "SELECT idx, start_s, end_s, text, words FROM transcript_segments "
        "WHERE session_id = $1 ORDER BY idx",
        session_id,
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
