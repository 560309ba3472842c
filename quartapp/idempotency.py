"""`Idempotency-Key`: the first answer to an upload, given again to whoever repeats it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

from jobs.database import Connection, Pool
from quartapp.problems import Problem

KEY = re.compile(r"^[\x21-\x7e]{1,255}$")


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What was answered the first time, and the digest of the recording it was for."""

    session_id: UUID
    answer: str
    sha256: str


def parse_key(header: str | None) -> str | None:
    """The key of a request, if it has one. Raises Problem 400 for one that cannot be."""
    if header is None:
        return None
    if not KEY.match(header):
        raise Problem(
            400,
            "bad_idempotency_key",
            "An Idempotency-Key is 1 to 255 visible ASCII characters.",
        )
    return header


async def insert_first_answer(
    db: Connection, user_id: UUID, key: str, session_id: UUID, answer: str
) -> None:
    """Raises asyncpg.UniqueViolationError when another request was first."""
    await db.execute(
        "INSERT INTO idempotency_keys (user_id, key, session_id, answer) VALUES ($1, $2, $3, $4)",
        user_id,
        key,
        session_id,
        answer,
    )


async def select_first_answer(db: Connection | Pool, user_id: UUID, key: str) -> FirstAnswer | None:
    row = await db.fetchrow(
        "SELECT idempotency_keys.session_id, answer, sha256 FROM idempotency_keys "
        "JOIN sessions ON sessions.id = session_id WHERE user_id = $1 AND key = $2",
        user_id,
        key,
    )
    return None if row is None else FirstAnswer(row["session_id"], row["answer"], row["sha256"])
