"""What is said of a database that cannot be used: which, why, and never its password."""

from __future__ import annotations

import ssl

import asyncpg
import pytest

from jobs.database import location, unreachable


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://user:s3cret@db.example:5433/app", "db.example:5433/app"),
        ("postgres://user:s3cret@db.example/app?sslmode=require", "db.example/app"),
        ("postgresql://user@/app?host=/var/run/pg", "/var/run/pg/app"),
        ("postgresql:///app", "localhost/app"),
        ("mysql://user:s3cret@db.example/app", "(not a postgresql:// address)"),
        ("s3cret", "(not a postgresql:// address)"),
        ("postgresql://user:12/s3cret@db.example/app", "(unreadable address)"),
        ("postgresql://user:s3cret@db.example:port/app", "(unreadable address)"),
    ],
)
def test_a_database_is_named_without_its_password(dsn: str, expected: str) -> None:
    assert location(dsn) == expected
    assert "s3cret" not in unreachable(dsn, ValueError(f"cannot parse {dsn}"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.InvalidPasswordError("x"), "the user name or password is wrong"),
        (asyncpg.InvalidCatalogNameError("x"), "there is no database of that name"),
        (TimeoutError(), "no answer in time"),
        (ssl.SSLError("x"), "the encrypted connection failed"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OSError(), "no connection"),
        (ValueError("s3cret"), "the address cannot be read"),
        (asyncpg.TooManyConnectionsError("too many\nlines"), "too many"),
        (asyncpg.InterfaceError(""), "InterfaceError"),
    ],
)
def test_each_reason_is_one_line(error: Exception, expected: str) -> None:
    said = unreachable("postgresql://user:s3cret@db.example/app", error)
    assert said.startswith("Cannot use the database db.example/app: ")
    assert expected in said
    assert said.endswith("(check DATABASE_URL)")
    assert "\n" not in said
    assert "s3cret" not in said
