"""Tokens: sign-ins that a person names, gives to a program and may revoke. Rows of `logins`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from jobs.database import Connection, Pool

# As many as an account may have at a time; a program needs one.
MAX_TOKENS = 20
MAX_NAME_LENGTH = 100
MAX_DURATION_DAYS = 365


@dataclass(frozen=True, slots=True)
class Token:
    """A token that is good. Its text is nowhere: it is made from the id, and shown once."""

    id: UUID
    name: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


COLUMNS = ", ".join(Token.__dataclass_fields__)
GOOD = "user_id = $1 AND name IS NOT NULL AND revoked_at IS NULL AND expires_at > now()"

# A token in use, of which that was not noted of late.
USE_IS_NEWS = (
    "(name IS NOT NULL AND coalesce(last_used_at, '-infinity') < now() - interval '1 minute')"
)


def _token(row: asyncpg.Record) -> Token:
    return Token(**dict(row))


async def insert_token(pool: Pool, user_id: UUID, name: str, duration_days: int) -> Token | None:
    """A new token, or None when the account has as many as it may."""
    async with pool.acquire() as connection, connection.transaction():
        # Two at a time must not both find room for one.
        await connection.execute("SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE", user_id)
        row = await connection.fetchrow(
            "INSERT INTO logins (user_id, name, expires_at) "  # noqa: S608
            "SELECT $1, $2, now() + make_interval(days => $3) "
            f"WHERE (SELECT count(*) FROM logins WHERE {GOOD}) < $4 RETURNING {COLUMNS}",
            user_id,
            name,
            duration_days,
            MAX_TOKENS,
        )
    return None if row is None else _token(row)


async def select_tokens(db: Connection | Pool, user_id: UUID) -> list[Token]:
    """The tokens of an account that are good, newest first."""
    rows = await db.fetch(
        f"SELECT {COLUMNS} FROM logins WHERE {GOOD} ORDER BY created_at DESC, id",  # noqa: S608
        user_id,
    )
    return [_token(row) for row in rows]


async def update_token_revoked(db: Connection | Pool, user_id: UUID, token_id: UUID) -> bool:
    """False when this account has no such token."""
    done: str = await db.execute(
        f"UPDATE logins SET revoked_at = now() WHERE {GOOD} AND id = $2",  # noqa: S608
        user_id,
        token_id,
    )
    return done == "UPDATE 1"


async def update_token_used(db: Connection | Pool, token_id: UUID) -> None:
    """Note that a token is in use, if that was not noted in the last minute."""
    await db.execute(
        f"UPDATE logins SET last_used_at = now() WHERE id = $1 AND {USE_IS_NEWS}",  # noqa: S608
        token_id,
    )
