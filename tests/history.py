"""What a session's tables must say, whatever happened while they were written."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import psycopg

MILESTONES = {10, 25, 50, 75, 90, 100}
TERMINAL = {"completed", "failed", "cancelled"}
PATIENCE_S = 60.0
POLL_S = 0.02

T = TypeVar("T")


class Event(NamedTuple):
    """A row of `processing_status`."""

    id: int
    prev_id: int
    attempt: int
    status: str
    stage: str
    progress: int
    message: str
    segments: int


class Piece(NamedTuple):
    """A row of `transcript_segments`."""

    idx: int
    start_s: float
    end_s: float
    text: str


class Standing(NamedTuple):
    """How a session stands."""

    status: str
    stage: str
    attempt: int
    committed_s: float
    lease_owner: str | None


def rows(dsn: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What the database says; it is waited for while it is away."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
                return connection.execute(query, parameters).fetchall()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def events_of(dsn: str, session_id: str) -> list[Event]:
    """Every event of a session, oldest first."""
    found = rows(
        dsn,
        "SELECT id, prev_id, attempt, status, stage, progress, message, segments "
        "FROM processing_status WHERE session_id = %s ORDER BY id",
        session_id,
    )
    return [Event(*row) for row in found]


def transcript_of(dsn: str, session_id: str) -> list[Piece]:
    """The text of a session with its times."""
    found = rows(
        dsn,
        "SELECT idx, start_s, end_s, text FROM transcript_segments WHERE session_id = %s "
        "ORDER BY idx",
        session_id,
    )
    return [Piece(*row) for row in found]


def standing_of(dsn: str, session_id: str) -> Standing:
    """The session's own row."""
    found = rows(
        dsn,
        "SELECT status, stage, attempt, committed_s, lease_owner FROM sessions WHERE id = %s",
        session_id,
    )
    return Standing(*found[0])


def check_chain(events: list[Event]) -> None:
    """One unbroken chain, progress never falling, attempts in order, and nothing after the end."""
    assert [event.prev_id for event in events] == [0, *(event.id for event in events[:-1])]
    progress = [event.progress for event in events]
    assert progress == sorted(progress)
    attempts = [event.attempt for event in events]
    assert attempts == sorted(attempts)
    pieces = [event.segments for event in events]
    assert pieces == sorted(pieces)
    assert not [event for event in events[:-1] if event.status in TERMINAL]


def check_completed(events: list[Event]) -> None:
    """The same, of a session that was completed, once, with every milestone said."""
    check_chain(events)
    assert [event.status for event in events if event.status in TERMINAL] == ["completed"]
    assert events[-1].status == "completed"
    assert {event.progress for event in events} >= MILESTONES


def check_pieces(pieces: list[Piece]) -> None:
    """Numbered without a gap and in the order of their times."""
    assert [piece.idx for piece in pieces] == list(range(len(pieces)))
    assert pieces == sorted(pieces, key=lambda piece: piece.start_s)
    assert all(piece.start_s <= piece.end_s for piece in pieces)


def until(read: Callable[[], T], holds: Callable[[T], bool], within_s: float = PATIENCE_S) -> T:
    """What `read` gives as soon as it holds; fails with the last of it when it never does."""
    deadline = time.monotonic() + within_s
    while not holds(last := read()):
        assert time.monotonic() < deadline, f"after {within_s} s still {last}"
        time.sleep(POLL_S)
    return last


def wait_for(
    dsn: str, session_id: str, holds: Callable[[Standing], bool], within_s: float = PATIENCE_S
) -> Standing:
    """The session as soon as it stands so."""
    return until(lambda: standing_of(dsn, session_id), holds, within_s)
