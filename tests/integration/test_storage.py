"""Both audio stores keep the same promises."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from jobs.database import Pool
from jobs.errors import AudioMissingError, StorageError
from jobs.lifecycle import Lifecycle
from jobs.publisher import StatusPublisher
from jobs.storage import CHUNK_BYTES, PART_BYTES, AudioStore, open_store, rechunk
from quartapp.settings import WebSettings
from tests.people import make_user, new_session

KINDS = ["postgres", "file"]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, pool: Pool, tmp_path: Path) -> AudioStore:
    url = "postgres" if request.param == "postgres" else f"file://{tmp_path}/audio"
    return open_store(url, pool)


def directory(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "audio").rglob("*") if path.is_file()]


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.mark.parametrize("size", [1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES - 1, 6_000_000])
async def test_what_is_written_can_be_read_anywhere(store: AudioStore, size: int) -> None:
    data = os.urandom(size)
    stored = await store.write(uuid4(), pieces(data))
    assert (stored.size_bytes, stored.sha256) == (size, hashlib.sha256(data).hexdigest())
    source = await store.open(stored.key)
    assert source.size_bytes == size
    for start, length in [
        (0, size),
        (0, 10),
        (size - 1, 10),
        (size, 10),
        (CHUNK_BYTES - 5, 10),
        (CHUNK_BYTES, CHUNK_BYTES),
        (size // 2, 2 * CHUNK_BYTES),
    ]:
        assert await source.read(start, length) == data[start : start + length]


async def test_what_was_deleted_is_missing(store: AudioStore) -> None:
    stored = await store.write(uuid4(), pieces(b"x" * 1000))
    source = await store.open(stored.key)
    await store.delete(stored.key)
    await store.delete(stored.key)
    with pytest.raises(AudioMissingError):
        await store.open(stored.key)
    with pytest.raises(AudioMissingError):
        await source.read(0, 10)


async def test_a_stream_that_breaks_leaves_nothing(
    store: AudioStore, pool: Pool, tmp_path: Path
) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * (2 * PART_BYTES)
        raise ConnectionResetError("the uploader went away")

    with pytest.raises((ConnectionResetError, StorageError)):
        await store.write(uuid4(), breaking())
    assert await pool.fetchval("SELECT count(*) FROM audio_chunks") == 0
    assert directory(tmp_path) == []


async def test_a_cancelled_write_leaves_nothing(
    store: AudioStore, pool: Pool, tmp_path: Path
) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * (2 * PART_BYTES)
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.write(uuid4(), endless()))
    await asyncio.wait_for(waiting.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pool.fetchval("SELECT count(*) FROM audio_chunks") == 0
    assert directory(tmp_path) == []


async def test_the_sweep_takes_orphans_that_are_old_and_nothing_else(
    store: AudioStore, pool: Pool, settings: WebSettings, tmp_path: Path
) -> None:
    orphan, fresh, kept = [(await store.write(uuid4(), pieces(b"x" * 1000))).key for _ in range(3)]
    lifecycle = Lifecycle(pool, StatusPublisher(pool), settings)
    new = new_session(await make_user(pool))
    await lifecycle.create(replace(new, audio_key=kept))
    for key in (orphan, kept):
        await pool.execute(
            "UPDATE audio_chunks SET created_at = now() - interval '2 hours' WHERE audio_id = $1",
            UUID(key),
        )
        path = tmp_path / "audio" / key
        if path.exists():
            os.utime(path, (time.time() - 7200,) * 2)
    foreign = tmp_path / "audio" / "thesis.txt"
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("not ours")
    os.utime(foreign, (time.time() - 7200,) * 2)
    assert [key async for page in store.orphans(3600) for key in page] == [orphan]
    await store.delete(orphan)
    with pytest.raises(AudioMissingError):
        await store.open(orphan)
    assert (await store.open(fresh)).size_bytes == 1000
    assert (await store.open(kept)).size_bytes == 1000
    assert foreign.read_text() == "not ours"


@pytest.mark.parametrize("url", ["az://container", "ftp://host/path", "s3://"])
async def test_a_store_that_cannot_be_is_one_line(pool: Pool, url: str) -> None:
    with pytest.raises(StorageError) as raised:
        open_store(url, pool)
    assert url in raised.value.message
    assert "\n" not in raised.value.message


async def test_rechunk_keeps_every_byte() -> None:
    data = os.urandom(1000)
    for size in (1, 7, 100, 1000, 2000):
        for piece in (1, 13, 100, 999, 1000):
            chunks = [chunk async for chunk in rechunk(pieces(data, piece), size)]
            assert b"".join(chunks) == data
            assert all(len(chunk) == size for chunk in chunks[:-1])
