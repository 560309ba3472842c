"""The cast of every access test: an owner, a stranger, a therapist, an admin; and a recording."""

from __future__ import annotations

from uuid import UUID, uuid4

from jobs.database import Pool
from jobs.model import Role
from jobs.sessions import NewSession
from quartapp.accounts import insert_user


async def make_user(pool: Pool, role: Role = Role.PATIENT) -> UUID:
    """An account nobody signs in to."""
    user = await insert_user(pool, f"{uuid4().hex}@example.com", "!", role)
    assert user is not None
    return user.id


def new_session(owner_id: UUID, duration_s: float | None = 60.0) -> NewSession:
    """A recording that is described but not stored."""
    return NewSession(
        id=uuid4(),
        owner_id=owner_id,
        title="A recording",
        file_name="recording.wav",
        language=None,
        audio_key=str(uuid4()),
        audio_type="audio/wav",
        size_bytes=1000,
        sha256="0" * 64,
        duration_s=duration_s,
    )
