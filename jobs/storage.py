"""Where recordings are kept: PostgreSQL rows by default, or an object store.

Local disk is never needed: a dyno's disk is wiped at every deploy. Keys are ours (a UUID), never
anything a user typed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from jobs.audio_source import AudioSource
from jobs.database import Pool
from jobs.errors import AudioMissingError, StorageError
from jobs.settings import KIB, MIB

CHUNK_BYTES = 512 * KIB
PART_BYTES = 5 * MIB  # the least an S3 multipart upload takes


@dataclass(frozen=True, slots=True)
class StoredAudio:
    """What was written: its key, its length, and its SHA-256 in hex."""

    key: str
    size_bytes: int
    sha256: str


class AudioStore(Protocol):
    """Keeps recordings."""

    async def write(self, key: UUID, data: AsyncIterator[bytes]) -> StoredAudio:
        """Store a stream without holding it in memory. On any exception, cancellation included,
        nothing of it is left. Raises StorageError."""

    async def open(self, key: str) -> AudioSource:
        """Raises AudioMissingError when there is none."""

    async def delete(self, key: str) -> None:
        """Remove it; no error when there is none."""

    async def sweep(self, older_than_s: float) -> int:
        """Delete what no session refers to and is older than that; returns how many."""


def open_store(url: str, pool: Pool) -> AudioStore:
    """The store a setting names: `postgres`, or an object store's URL.

    Credentials of object stores come from their usual environment variables. Raises StorageError.
    """
    if url == "postgres":
        return PostgresStore(pool)
    parts = urlsplit(url)
    try:
        if parts.scheme == "file":
            return ObjectStore(LocalStore(Path(parts.path), mkdir=True), pool)
        return ObjectStore(from_url(url), pool)
    except (BaseError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StorageError(f"The audio store {url} cannot be opened: {reason}") from error


class PostgresStore:
    """Recordings as rows of `audio_chunks`, each 512 KiB but the last."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def write(self, key: UUID, data: AsyncIterator[bytes]) -> StoredAudio:
        digest = hashlib.sha256()
        size = idx = 0
        try:
            async for chunk in rechunk(data, CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                # Durability comes with the session's own commit, which flushes all before it.
                await self._pool.execute(
                    "WITH s AS (SELECT set_config('synchronous_commit', 'off', true)) "
                    "INSERT INTO audio_chunks (audio_id, idx, data) SELECT $1, $2, $3 FROM s",
                    key,
                    idx,
                    chunk,
                )
                idx += 1
        except BaseException:
            await asyncio.shield(self.delete(str(key)))
            raise
        return StoredAudio(str(key), size, digest.hexdigest())

    async def open(self, key: str) -> AudioSource:
        size = await self._pool.fetchval(
            "SELECT sum(length(data)) FROM audio_chunks WHERE audio_id = $1", UUID(key)
        )
        if size is None:
            raise AudioMissingError("The recording is no longer stored.")
        return _ChunkedAudio(self._pool, UUID(key), int(size))

    async def delete(self, key: str) -> None:
        await self._pool.execute("DELETE FROM audio_chunks WHERE audio_id = $1", UUID(key))

    async def sweep(self, older_than_s: float) -> int:
        rows = await self._pool.fetch(
            "DELETE FROM audio_chunks WHERE audio_id IN ("
            "  SELECT audio_id FROM audio_chunks GROUP BY audio_id"
            "  HAVING max(created_at) < now() - make_interval(secs => $1)"
            "  AND NOT EXISTS (SELECT FROM sessions WHERE audio_key = audio_id::text)) "
            "RETURNING audio_id",
            older_than_s,
        )
        return len({row["audio_id"] for row in rows})


@dataclass(frozen=True, slots=True)
class _ChunkedAudio:
    pool: Pool
    key: UUID
    size_bytes: int

    async def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size_bytes)
        if offset >= end:
            return b""
        first, last = offset // CHUNK_BYTES, (end - 1) // CHUNK_BYTES
        rows = await self.pool.fetch(
            "SELECT substr(data, greatest($4 - idx::bigint * $6, 0)::int + 1, "
            "  (least($5 - idx::bigint * $6, $6) - greatest($4 - idx::bigint * $6, 0))::int) "
            "FROM audio_chunks WHERE audio_id = $1 AND idx BETWEEN $2 AND $3 ORDER BY idx",
            self.key,
            first,
            last,
            offset,
            end,
            CHUNK_BYTES,
        )
        data = b"".join(row[0] for row in rows)
        if len(data) != end - offset:
            raise AudioMissingError("The recording is no longer stored.")
        return data


class ObjectStore:
    """Recordings as objects `<key>` of an obstore store."""

    def __init__(self, store: Any, pool: Pool) -> None:
        self._store = store
        self._pool = pool

    async def write(self, key: UUID, data: AsyncIterator[bytes]) -> StoredAudio:
        digest = hashlib.sha256()
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in rechunk(data, PART_BYTES):
                digest.update(chunk)
                size += len(chunk)
                yield chunk

        try:
            await obstore.put_async(
                self._store, str(key), counted(), chunk_size=PART_BYTES, max_concurrency=1
            )
        except BaseError as error:
            await asyncio.shield(self.delete(str(key)))
            raise StorageError("The audio store did not take the recording.") from error
        except BaseException:
            await asyncio.shield(self.delete(str(key)))
            raise
        return StoredAudio(str(key), size, digest.hexdigest())

    async def open(self, key: str) -> AudioSource:
        try:
            meta = await obstore.head_async(self._store, key)
        except (FileNotFoundError, NotFoundError) as error:
            raise AudioMissingError("The recording is no longer stored.") from error
        except BaseError as error:
            raise StorageError("The audio store does not answer.") from error
        return _ObjectAudio(self._store, key, meta["size"])

    async def delete(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, key)
        except (FileNotFoundError, NotFoundError):
            return
        except BaseError as error:
            raise StorageError("The audio store did not delete the recording.") from error

    async def sweep(self, older_than_s: float) -> int:
        swept = 0
        async for page in obstore.list(self._store):
            now = await self._pool.fetchval("SELECT now()")
            old = [
                entry["path"]
                for entry in page
                if is_our_key(entry["path"])
                and (now - entry["last_modified"]).total_seconds() > older_than_s
            ]
            known = await self._pool.fetch(
                "SELECT audio_key FROM sessions WHERE audio_key = ANY($1::text[])", old
            )
            orphans = set(old) - {row["audio_key"] for row in known}
            for key in sorted(orphans):
                await self.delete(key)
            swept += len(orphans)
        return swept


@dataclass(frozen=True, slots=True)
class _ObjectAudio:
    store: Any
    key: str
    size_bytes: int

    async def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size_bytes - offset)
        if length <= 0:
            return b""
        try:
            data = await obstore.get_range_async(self.store, self.key, start=offset, length=length)
        except (FileNotFoundError, NotFoundError) as error:
            raise AudioMissingError("The recording is no longer stored.") from error
        except BaseError as error:
            raise StorageError("The audio store does not answer.") from error
        return bytes(data)


def is_our_key(path: str) -> bool:
    """Whether an object can be one of ours: a store may hold other things, which are not swept."""
    try:
        return str(UUID(path)) == path
    except ValueError:
        return False


async def rechunk(data: AsyncIterator[bytes], size_bytes: int) -> AsyncIterator[bytes]:
    """The same bytes in pieces of exactly `size_bytes`, but the last."""
    buffer = bytearray()
    async for piece in data:
        view = memoryview(piece)
        while len(buffer) + len(view) >= size_bytes:
            room = size_bytes - len(buffer)
            buffer += view[:room]
            view = view[room:]
            yield bytes(buffer)
            buffer.clear()
        buffer += view
    if buffer:
        yield bytes(buffer)
