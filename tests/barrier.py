"""A place in the database where a process waits until it is let through.

A process that is frozen while it waits there, and then let through, stands exactly between two of
its writes: the one is committed, and the process does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from tests.history import until

KEY = 471_100


class Barrier:
    """Held from the start; `open` lets everybody through from then on."""

    def __init__(self, connection: psycopg.Connection[tuple[int]]) -> None:
        self._connection = connection

    def wait_for_somebody(self) -> None:
        """Returns once a process waits here."""
        until(self._waiting, lambda count: count > 0)

    def open(self) -> None:
        """Let through who waits; returns when their transaction is past the barrier."""
        self._connection.execute("SELECT pg_advisory_unlock_all()")
        until(self._waiting, lambda count: count == 0)

    def _waiting(self) -> int:
        row = self._connection.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s "
            "AND NOT granted",
            (KEY,),
        ).fetchone()
        assert row is not None
        return row[0]


@contextmanager
def barrier(dsn: str, *, status: str, stage: str) -> Iterator[Barrier]:
    """Whoever writes an event of this status and stage waits before its transaction goes on."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (KEY,))
        connection.execute(
            sql.SQL(
                "CREATE FUNCTION wait_at_barrier() RETURNS trigger LANGUAGE plpgsql AS $$ "
                "BEGIN PERFORM pg_advisory_xact_lock_shared({key}); RETURN NULL; END $$; "
                "CREATE TRIGGER barrier AFTER INSERT ON processing_status FOR EACH ROW "
                "WHEN (NEW.status = {status} AND NEW.stage = {stage}) "
                "EXECUTE FUNCTION wait_at_barrier()"
            ).format(key=KEY, status=status, stage=stage)
        )
        try:
            yield Barrier(connection)
        finally:
            connection.execute("SELECT pg_advisory_unlock_all()")
            connection.execute("DROP FUNCTION wait_at_barrier CASCADE")
