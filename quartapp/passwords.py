"""Passwords: argon2id, always worked in a thread and always the same work."""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_LENGTH = 8
MAX_LENGTH = 1024

# RFC 9106's second recommendation scaled for a small host: 19 MiB, two passes (OWASP's minimum).
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_nobody = _hasher.hash("nobody's password")

# One at a time: a burst of sign-ins must not take the memory or the cores of the whole server.
_turn = asyncio.Semaphore(1)


async def hash_password(password: str) -> str:
    """The hash to store."""
    async with _turn:
        return await asyncio.to_thread(_hasher.hash, password)


async def verify_password(password: str, stored: str | None) -> bool:
    """Whether it is the password. Without an account the same time is spent on nobody's."""
    async with _turn:
        return await asyncio.to_thread(_verify, password, stored)


def needs_rehash(stored: str) -> bool:
    """Whether the parameters have changed since."""
    return _hasher.check_needs_rehash(stored)


def _verify(password: str, stored: str | None) -> bool:
    try:
        _hasher.verify(stored or _nobody, password)
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None
