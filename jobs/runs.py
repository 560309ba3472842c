"""The `transcription_runs` table: what finished attempts took, and what had been predicted."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from jobs.database import Connection, Pool
from jobs.forecast import MAX_RUNS, Pace, Run, pace_of

# How far back the runs of one host are looked for among those of others.
LOOK_BACK = 10 * MAX_RUNS


async def insert_run(
    db: Connection | Pool,
    session_id: UUID,
    attempt: int,
    engine: str,
    run: Run,
    predicted_completion: datetime | None,
) -> None:
    """Record an attempt that finished its recording."""
    await db.execute(
        "INSERT INTO transcription_runs (session_id, attempt, engine, host, audio_s, setup_s, "
        "wall_s, predicted_completion) SELECT $1, $2, $3, $4, $5, $6, $7, $8 "
        "WHERE EXISTS (SELECT FROM sessions WHERE id = $1)",
        session_id,
        attempt,
        engine,
        run.host,
        run.audio_s,
        run.setup_s,
        run.wall_s,
        predicted_completion,
    )


async def select_pace(db: Connection | Pool, engine: str, host: str) -> Pace | None:
    """How fast this engine is on this host; None without ground."""
    rows = await db.fetch(
        "SELECT host, audio_s, setup_s, wall_s FROM transcription_runs "
        "WHERE engine = $1 ORDER BY completed_at DESC LIMIT $2",
        engine,
        LOOK_BACK,
    )
    return pace_of([Run(*row.values()) for row in rows], host)
