"""Tickets: a stream opened once, by an address alone. The table `stream_tickets`.

`EventSource` and `WebSocket` of browsers can send no header, and a token in an address would stay
good in every log on the way. A ticket is spent by its first use, and soon over without one.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from jobs.database import Connection, Pool
from quartapp.accounts import Viewer, select_viewer

TICKET = re.compile(r"[A-Za-z0-9_-]{43}")
TICKET_BYTES = 32
# Expired tickets removed with each new one: more than come in, and never much work at once.
REMOVED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the client is given; the table has its hash alone."""

    text: str
    expires_at: datetime


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("ascii")).digest()


async def insert_ticket(
    db: Connection | Pool, login_id: UUID, session_id: UUID, duration_s: int
) -> Ticket | None:
    """A new ticket for the streams of one session. None when session or sign-in are gone."""
    text = secrets.token_urlsafe(TICKET_BYTES)
    try:
        expires_at = await db.fetchval(
            """
            WITH expired AS (
              DELETE FROM stream_tickets WHERE ticket_hash IN (
                SELECT ticket_hash FROM stream_tickets WHERE expires_at <= now()
                ORDER BY expires_at LIMIT $5 FOR UPDATE SKIP LOCKED))
            INSERT INTO stream_tickets (ticket_hash, login_id, session_id, expires_at)
            VALUES ($1, $2, $3, now() + make_interval(secs => $4))
            RETURNING expires_at
            """,
            _hash(text),
            login_id,
            session_id,
            duration_s,
            REMOVED_AT_ONCE,
        )
    except asyncpg.ForeignKeyViolationError:
        return None
    return Ticket(text, expires_at)


async def delete_ticket(db: Connection | Pool, text: str, session_id: UUID) -> Viewer | None:
    """Use a ticket up: whose it was, if it was good for this session. Of two who bring the same
    one, a single one gets an answer."""
    if not TICKET.fullmatch(text):
        return None
    login_id = await db.fetchval(
        "DELETE FROM stream_tickets WHERE ticket_hash = $1 AND session_id = $2 "
        "AND expires_at > now() RETURNING login_id",
        _hash(text),
        session_id,
    )
    return None if login_id is None else await select_viewer(db, login_id)


async def select_ticket(db: Connection | Pool, text: str, session_id: UUID) -> Viewer | None:
    """Whose ticket this is, if it would open a stream of this session."""
    if not TICKET.fullmatch(text):
        return None
    login_id = await db.fetchval(
        "SELECT login_id FROM stream_tickets WHERE ticket_hash = $1 AND session_id = $2 "
        "AND expires_at > now()",
        _hash(text),
        session_id,
    )
    return None if login_id is None else await select_viewer(db, login_id)
