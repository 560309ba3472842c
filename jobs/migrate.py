"""Brings a database to the schema of this version: `migrations/NNNN_name.sql`, forward only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from jobs.database import Connection, open_connection
from jobs.queue import migrate_queue

MIGRATION_LOCK = 0x51_41_50_50  # "QAPP"; any number, the same in every version
FILE_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of SQL and its place in the order."""

    number: int
    name: str
    sql: str


class SchemaTooNew(Exception):
    """The database was migrated by a later version of the product."""


@cache
def load_migrations() -> tuple[Migration, ...]:
    """All migrations in order. They lie in the installed package, or beside it in a checkout."""
    found = [
        Migration(int(match[1]), entry.name, entry.read_text(encoding="utf-8"))
        for entry in _directory().iterdir()
        if (match := FILE_NAME.match(entry.name))
    ]
    found.sort(key=lambda migration: migration.number)
    numbers = [migration.number for migration in found]
    if numbers != list(range(1, len(numbers) + 1)):
        raise RuntimeError(f"migrations are not numbered 1, 2, 3…: {numbers}")
    return tuple(found)


def _directory() -> Traversable:
    packaged = files("jobs") / "migrations"
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parent.parent / "migrations"


async def migrate(dsn: str) -> list[str]:
    """Apply what is missing, once, however many processes start together.

    A session lock on a connection of its own serialises them: the later ones wait, then find
    nothing to do. Returns the names applied. Raises SchemaTooNew, DatabaseUnavailable.
    """
    async with open_connection(dsn) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        try:
            applied = await apply_missing(connection, load_migrations())
            await migrate_queue(dsn)
            return applied
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)


async def apply_missing(connection: Connection, migrations: Sequence[Migration]) -> list[str]:
    """Each migration in a transaction of its own, recorded in `schema_migrations`."""
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        "number int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    current = await schema_version(connection)
    if current > len(migrations):
        raise SchemaTooNew(
            f"The database is at migration {current}, this version knows {len(migrations)}: "
            "run the newer version of quartapp."
        )
    applied: list[str] = []
    for migration in migrations[current:]:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (number, name) VALUES ($1, $2)",
                migration.number,
                migration.name,
            )
        applied.append(migration.name)
    return applied


async def schema_version(connection: Connection) -> int:
    """The number of the last migration applied, 0 for none."""
    version: int = await connection.fetchval(
        "SELECT coalesce(max(number), 0) FROM schema_migrations"
    )
    return version
