"""Where recordings are kept: PostgreSQL rows by default, or an object store.

Local disk is never needed: a dyno's disk is wiped at every deploy. Keys are ours (a UUID), never
anything a user typed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from jobs.audio_source import AudioSource
from jobs.database import Pool
from jobs.errors import AudioMissingError, StorageError
from jobs.settings import KIB, MIB
from jobs.store_faults import STORE_ERRORS, reason

if TYPE_CHECKING:  # obstore has it for types alone
    from obstore.store import RetryConfig

CHUNK_BYTES = 512 * KIB
PART_BYTES = 5 * MIB  # the least an S3 multipart upload takes
DELETED_CHUNKS = 100  # in one statement
LISTED = 1000  # recordings
CHECK_TIMEOUT_S = 10.0
# Somebody waits for the answer, and what fails for longer is tried again as a whole.
_RETRY: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}


@dataclass(frozen=True, slots=True)
class StoredAudio:
    """What was written: its key, its length, and its SHA-256 in hex."""

    key: str
    size_bytes: int
    sha256: str


class AudioStore(Protocol):
    """Keeps recordings."""

    async def check(self) -> None:
        """Ask whether the store is there and lets us in, within `CHECK_TIMEOUT_S`. Raises
        StorageError with one line for who set it up."""

    async def write(self, key: UUID, data: AsyncIterator[bytes]) -> StoredAudio:
        """Store a stream without holding it in memory. On any exception, cancellation included,
        nothing of it is left. Raises StorageError."""

    async def open(self, key: str) -> AudioSource:
        """Raises AudioMissingError when there is none."""

    async def delete(self, key: str) -> None:
        """Remove it; no error when there is none."""

    def orphans(self, older_than_s: float) -> AsyncIterator[list[str]]:
        """Keys of what no session refers to and is older than that, of some hundred recordings at a
        time; a page may hold none."""


def open_store(url: str, pool: Pool) -> AudioStore:
    """The store a setting names: `postgres`, or an object store's URL.

    Credentials of object stores come from their usual environment variables. Raises StorageError.
    """
    if url == "postgres":
        return PostgresStore(pool)
    parts = urlsplit(url)
    try:
        if parts.scheme == "file":
            return ObjectStore(LocalStore(Path(parts.path), mkdir=True), pool, url)
        return ObjectStore(from_url(url, retry_config=_RETRY), pool, url)
    except (*STORE_ERRORS, ValueError) as error:
        raise StorageError(f"The audio store {url} cannot be opened: {reason(error)}") from error


class PostgresStore:
    """Recordings as rows of `audio_chunks`, each 512 KiB but the last."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def check(self) -> None:
        """The database was asked already."""

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
        # From its end, so that what a crash leaves still has the chunk it is found by.
        done = f"DELETE {DELETED_CHUNKS}"
        while done == f"DELETE {DELETED_CHUNKS}":
            done = await self._pool.execute(
                "DELETE FROM audio_chunks WHERE audio_id = $1 AND idx IN ("
                "  SELECT idx FROM audio_chunks WHERE audio_id = $1 ORDER BY idx DESC LIMIT $2)",
                UUID(key),
                DELETED_CHUNKS,
            )

    async def orphans(self, older_than_s: float) -> AsyncIterator[list[str]]:
        after = UUID(int=0)
        while True:
            page = await self._pool.fetch(
                "SELECT audio_id, created_at < now() - make_interval(secs => $2) AS old "
                "FROM audio_chunks WHERE idx = 0 AND audio_id > $1 ORDER BY audio_id LIMIT $3",
                after,
                older_than_s,
                LISTED,
            )
            old = [str(row["audio_id"]) for row in page if row["old"]]
            unknown = await unreferenced(self._pool, old)
            yield await self._untouched(unknown, older_than_s)
            if len(page) < LISTED:
                return
            after = page[-1]["audio_id"]

    async def _untouched(self, keys: list[str], older_than_s: float) -> list[str]:
        """Those that nothing was written to lately: an upload may take its time."""
        rows = await self._pool.fetch(
            "SELECT DISTINCT audio_id::text FROM audio_chunks WHERE audio_id = ANY ($1::uuid[]) "
            "AND created_at >= now() - make_interval(secs => $2)",
            keys,
            older_than_s,
        )
        growing = {row[0] for row in rows}
        return [key for key in keys if key not in growing]


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

    def __init__(self, store: Any, pool: Pool, url: str) -> None:
        self._store = store
        self._pool = pool
        self._url = url

    async def check(self) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                # A list, since the answer to any other question may be "no such object".
                async for _ in obstore.list(self._store, chunk_size=1):
                    break
        except (*STORE_ERRORS, TimeoutError) as error:
            why = "it does not answer" if isinstance(error, TimeoutError) else reason(error)
            raise StorageError(f"The audio store {self._url} cannot be used: {why}") from error

    async def write(self, key: UUID, data: AsyncIterator[bytes]) -> StoredAudio:
        digest = hashlib.sha256()
        size = 0
        abandoned = False
        pulling: asyncio.Task[Any] | None = None

        def pull() -> None:
            nonlocal pulling
            if abandoned:
                raise asyncio.CancelledError
            pulling = asyncio.current_task()  # another one for each piece

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal size
            pull()
            async for chunk in rechunk(data, PART_BYTES):
                digest.update(chunk)
                size += len(chunk)
                yield chunk
                pull()

        upload = asyncio.ensure_future(
            obstore.put_async(
                self._store, str(key), pieces(), chunk_size=PART_BYTES, max_concurrency=1
            )
        )
        try:
            await asyncio.shield(upload)
        except BaseException as error:
            # An upload that is dropped leaves its parts in the store; one whose source fails does
            # not.
            abandoned = True
            if not upload.done() and pulling is not None:
                pulling.cancel()
            await asyncio.shield(self._cleared(upload, key))
            if isinstance(error, STORE_ERRORS):
                raise StorageError("The audio store did not take the recording.") from error
            raise
        return StoredAudio(str(key), size, digest.hexdigest())

    async def _cleared(self, upload: asyncio.Future[Any], key: UUID) -> None:
        await asyncio.wait([upload])
        with suppress(StorageError):  # the sweep will find it
            await self.delete(str(key))

    async def open(self, key: str) -> AudioSource:
        try:
            meta = await obstore.head_async(self._store, key)
        except FileNotFoundError as error:
            raise AudioMissingError("The recording is no longer stored.") from error
        except BaseError as error:
            raise StorageError("The audio store does not answer.") from error
        return _ObjectAudio(self._store, key, meta["size"])

    async def delete(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except BaseError as error:
            raise StorageError("The audio store did not delete the recording.") from error

    async def orphans(self, older_than_s: float) -> AsyncIterator[list[str]]:
        async for page in self._pages():
            now = await self._pool.fetchval("SELECT now()")
            old = [
                entry["path"]
                for entry in page
                if is_our_key(entry["path"])
                and (now - entry["last_modified"]).total_seconds() > older_than_s
            ]
            yield await unreferenced(self._pool, old)

    async def _pages(self) -> AsyncIterator[Any]:
        try:
            async for page in obstore.list(self._store, chunk_size=LISTED):
                yield page
        except STORE_ERRORS as error:
            raise StorageError("The audio store does not answer.") from error


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
        except FileNotFoundError as error:
            raise AudioMissingError("The recording is no longer stored.") from error
        except BaseError as error:
            raise StorageError("The audio store does not answer.") from error
        return bytes(data)


async def unreferenced(pool: Pool, keys: list[str]) -> list[str]:
    """Those of the keys that no session has."""
    rows = await pool.fetch(
        "SELECT audio_key FROM sessions WHERE audio_key = ANY ($1::text[])", keys
    )
    known = {row["audio_key"] for row in rows}
    return [key for key in keys if key not in known]


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
