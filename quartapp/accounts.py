"""The tables of accounts: `users`, `logins`, `care_assignments`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg
from email_validator import validate_email

from jobs.database import Connection, Pool
from jobs.model import Role
from quartapp.tokens import USE_IS_NEWS


@dataclass(frozen=True, slots=True)
class User:
    """One account."""

    id: UUID
    email: str
    role: Role
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who makes a request, and by which sign-in."""

    user: User
    login_id: UUID
    expires_at: datetime
    use_is_news: bool = False  # by a token whose use was not noted of late

    @property
    def id(self) -> UUID:
        return self.user.id

    @property
    def is_admin(self) -> bool:
        return self.user.role is Role.ADMIN


def parse_address(text: str) -> str:
    """An e-mail address as it is stored. Raises ValueError with a sentence for what is none."""
    return validate_email(text, check_deliverability=False, test_environment=True).normalized


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient, and how many sessions there are."""

    id: UUID
    email: str
    sessions: int
    latest_session_at: datetime | None


USER_COLUMNS = "users.id, users.email, users.role, users.created_at"


def _user(row: asyncpg.Record) -> User:
    return User(row["id"], row["email"], Role(row["role"]), row["created_at"])


async def insert_user(
    db: Connection | Pool, email: str, password_hash: str, role: Role
) -> User | None:
    """None when the address has an account already."""
    row = await db.fetchrow(
        "INSERT INTO users (email, password_hash, role) VALUES ($1, $2, $3) "  # noqa: S608
        "ON CONFLICT ((lower(email))) DO NOTHING "
        f"RETURNING {USER_COLUMNS}",
        email,
        password_hash,
        role.value,
    )
    return None if row is None else _user(row)


async def select_user(db: Connection | Pool, user_id: UUID) -> User | None:
    row = await db.fetchrow(f"SELECT {USER_COLUMNS} FROM users WHERE id = $1", user_id)  # noqa: S608
    return None if row is None else _user(row)


async def select_users(db: Connection | Pool, *, after: str, limit: int) -> list[User]:
    """Accounts by address, from the one after `after`."""
    rows = await db.fetch(
        f"SELECT {USER_COLUMNS} FROM users WHERE lower(email) > lower($1) "  # noqa: S608
        "ORDER BY lower(email) LIMIT $2",
        after,
        limit,
    )
    return [_user(row) for row in rows]


async def select_addresses(db: Connection | Pool, ids: Collection[UUID]) -> dict[UUID, str]:
    """The e-mail addresses of these accounts."""
    rows = await db.fetch("SELECT id, email FROM users WHERE id = ANY ($1::uuid[])", list(ids))
    return {row["id"]: row["email"] for row in rows}


async def select_patients(
    db: Connection | Pool, *, therapist_id: UUID | None, after: str, limit: int
) -> list[Patient]:
    """The patients of a therapist, or all, by address, from the one after `after`."""
    rows = await db.fetch(
        """
        SELECT page.id, email, sessions, latest_session_at FROM (
          SELECT id, email FROM users
          WHERE lower(email) > lower($2)
            AND CASE WHEN $1::uuid IS NULL THEN role = 'patient' ELSE EXISTS (
              SELECT FROM care_assignments WHERE therapist_id = $1 AND patient_id = users.id) END
          ORDER BY lower(email) LIMIT $3
        ) AS page CROSS JOIN LATERAL (
          SELECT count(*) AS sessions, max(created_at) AS latest_session_at
          FROM sessions WHERE owner_id = page.id
        ) AS owned ORDER BY lower(email)
        """,
        therapist_id,
        after,
        limit,
    )
    return [Patient(**dict(row)) for row in rows]


async def select_credentials(db: Connection | Pool, email: str) -> tuple[User, str] | None:
    """An account and its password hash."""
    row = await db.fetchrow(
        f"SELECT {USER_COLUMNS}, password_hash FROM users "  # noqa: S608
        "WHERE lower(email) = lower($1) AND disabled_at IS NULL",
        email,
    )
    return None if row is None else (_user(row), row["password_hash"])


async def update_password_hash(db: Connection | Pool, user_id: UUID, password_hash: str) -> None:
    await db.execute("UPDATE users SET password_hash = $2 WHERE id = $1", user_id, password_hash)


async def insert_login(db: Connection | Pool, user_id: UUID, duration_s: int) -> UUID:
    """A new sign-in."""
    login_id: UUID = await db.fetchval(
        "INSERT INTO logins (user_id, expires_at) "
        "VALUES ($1, now() + make_interval(secs => $2)) RETURNING id",
        user_id,
        duration_s,
    )
    return login_id


async def update_login_revoked(db: Connection | Pool, login_id: UUID) -> None:
    await db.execute(
        "UPDATE logins SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1", login_id
    )


async def select_viewer(db: Connection | Pool, login_id: UUID) -> Viewer | None:
    """Whose sign-in this is, while it is good: not expired, revoked, or its account disabled."""
    row = await db.fetchrow(
        f"SELECT {USER_COLUMNS}, logins.expires_at, "  # noqa: S608
        f"{USE_IS_NEWS} AS use_is_news FROM logins "
        "JOIN users ON users.id = logins.user_id "
        "WHERE logins.id = $1 AND logins.revoked_at IS NULL AND logins.expires_at > now() "
        "AND users.disabled_at IS NULL",
        login_id,
    )
    if row is None:
        return None
    return Viewer(_user(row), login_id, row["expires_at"], row["use_is_news"])


async def insert_assignment(db: Connection | Pool, therapist_id: UUID, patient_id: UUID) -> None:
    await db.execute(
        "INSERT INTO care_assignments (therapist_id, patient_id) VALUES ($1, $2) "
        "ON CONFLICT DO NOTHING",
        therapist_id,
        patient_id,
    )


async def delete_assignment(db: Connection | Pool, therapist_id: UUID, patient_id: UUID) -> None:
    await db.execute(
        "DELETE FROM care_assignments WHERE therapist_id = $1 AND patient_id = $2",
        therapist_id,
        patient_id,
    )


async def select_assignments(db: Connection | Pool) -> list[tuple[UUID, UUID]]:
    """Every (therapist, patient)."""
    rows = await db.fetch(
        "SELECT therapist_id, patient_id FROM care_assignments ORDER BY therapist_id, patient_id"
    )
    return [(row["therapist_id"], row["patient_id"]) for row in rows]


async def select_allowed(
    db: Connection | Pool, wanted: Sequence[tuple[UUID, UUID | None]]
) -> list[bool]:
    """For each (sign-in, owner): whether the sign-in is still good, and may see what that owner
    has, by the rule of `access.sees`. Without an owner the sign-in alone decides."""
    rows = await db.fetch(
        """
        SELECT EXISTS (
          SELECT FROM logins JOIN users ON users.id = logins.user_id
          WHERE logins.id = wanted.login_id AND logins.revoked_at IS NULL
            AND logins.expires_at > now() AND users.disabled_at IS NULL
            AND (wanted.owner_id IS NULL OR wanted.owner_id = users.id OR users.role = 'admin'
                 OR users.role = 'therapist' AND EXISTS (
                   SELECT FROM care_assignments
                   WHERE therapist_id = users.id AND patient_id = wanted.owner_id)))
        FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY
             AS wanted (login_id, owner_id, position)
        ORDER BY wanted.position
        """,
        [login_id for login_id, _ in wanted],
        [owner_id for _, owner_id in wanted],
    )
    return [row[0] for row in rows]
