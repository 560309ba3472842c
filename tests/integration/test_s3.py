"""Recordings in a store that speaks S3, on good days and bad ones."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from jobs.database import Pool
from jobs.errors import AudioMissingError, JobError, StorageError
from jobs.lifecycle import Lifecycle
from jobs.publisher import StatusPublisher
from jobs.settings import MIB
from jobs.storage import PART_BYTES, AudioStore, open_store
from quartapp.settings import WebSettings
from tests.object_store import S3, StoreWire, running_s3
from tests.people import make_user, new_session


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@dataclass(frozen=True)
class Place:
    """A bucket, and how to open it."""

    s3: S3
    bucket: str
    pool: Pool
    monkeypatch: pytest.MonkeyPatch

    def open(self, prefix: str = "/recordings", url: str | None = None) -> AudioStore:
        """By way of `url`, if given."""
        for name, value in self.s3.environment(url).items():
            self.monkeypatch.setenv(name, value)
        return open_store(f"s3://{self.bucket}{prefix}", self.pool)


@pytest.fixture
def place(s3: S3, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(s3, s3.bucket(), pool, monkeypatch)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_000):
        yield data[start : start + 100_000]


async def test_a_long_recording_is_kept_in_parts_and_read_anywhere(place: Place) -> None:
    store = place.open()
    data = os.urandom(2 * PART_BYTES + 12_345)
    stored = await store.write(uuid4(), pieces(data))
    assert (stored.size_bytes, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert place.s3.keys(place.bucket) == [f"recordings/{stored.key}"]
    source = await store.open(stored.key)
    assert source.size_bytes == len(data)
    for start, length in [
        (0, 10),
        (PART_BYTES - 5, 10),
        (len(data) - 1, MIB),
        (len(data), 10),
        (len(data) // 2, MIB),
    ]:
        assert await source.read(start, length) == data[start : start + length]


async def test_what_was_deleted_is_missing_for_good(place: Place) -> None:
    store = place.open()
    stored = await store.write(uuid4(), pieces(b"x" * 1000))
    source = await store.open(stored.key)
    await store.delete(stored.key)
    await store.delete(stored.key)
    for late in (store.open(stored.key), source.read(0, 10)):
        with pytest.raises(AudioMissingError) as raised:
            await late
        assert not raised.value.retryable


async def test_an_upload_that_breaks_leaves_no_object_and_no_part(place: Place) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * (2 * PART_BYTES)
        assert place.s3.uploads(place.bucket), "the first part must have gone"
        raise ConnectionResetError("the uploader went away")

    with pytest.raises(ConnectionResetError):
        await place.open().write(uuid4(), breaking())
    assert place.s3.keys(place.bucket) == place.s3.uploads(place.bucket) == []


@pytest.mark.parametrize("sent", [0, PART_BYTES, 3 * PART_BYTES])
async def test_a_cancelled_upload_leaves_no_object_and_no_part(place: Place, sent: int) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * sent
        waiting.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(place.open().write(uuid4(), endless()))
    await asyncio.wait_for(waiting.wait(), 60)
    assert len(place.s3.uploads(place.bucket)) == 1 or not sent
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert place.s3.keys(place.bucket) == place.s3.uploads(place.bucket) == []


async def every_use(store: AudioStore, key: str) -> AsyncIterator[JobError]:
    """What each use of a store raises."""

    async def keys() -> list[list[str]]:
        return [page async for page in store.orphans(0)]

    uses: list[Callable[[], object]] = [
        lambda: store.write(uuid4(), pieces(b"x" * 1000)),
        lambda: store.open(key),
        lambda: store.delete(key),
        keys,
    ]
    for use in uses:
        with pytest.raises(StorageError) as raised:
            await use()  # type: ignore[misc]
        yield raised.value


async def test_credentials_that_are_refused_may_be_good_again(place: Place) -> None:
    store = place.open()
    stored = await store.write(uuid4(), pieces(b"x" * 1000))
    source = await store.open(stored.key)
    with place.s3.refusing():
        async for error in every_use(store, stored.key):
            assert error.retryable
        with pytest.raises(StorageError):
            await source.read(0, 10)
    assert await source.read(0, 10) == b"x" * 10


async def test_a_store_that_goes_away_in_an_upload_takes_the_next_one(place: Place) -> None:
    async with StoreWire(place.s3) as wire:
        store = place.open(url=wire.url)

        async def interrupted() -> AsyncIterator[bytes]:
            yield b"x" * (2 * PART_BYTES)
            wire.refuse()
            yield b"x" * (2 * PART_BYTES)

        with pytest.raises(StorageError) as raised:
            await store.write(uuid4(), interrupted())
    assert raised.value.retryable
    assert place.s3.keys(place.bucket) == []
    stored = await place.open().write(uuid4(), pieces(b"x" * 1000))
    assert place.s3.keys(place.bucket) == [f"recordings/{stored.key}"]


async def test_a_store_that_goes_away_between_reads_is_no_missing_recording(place: Place) -> None:
    stored = await place.open().write(uuid4(), pieces(b"x" * 1000))
    async with StoreWire(place.s3) as wire:
        store = place.open(url=wire.url)
        source = await store.open(stored.key)
        assert await source.read(0, 10) == b"x" * 10
        wire.cut()
        assert await source.read(0, 10) == b"x" * 10
        wire.refuse()
        with pytest.raises(StorageError) as raised:
            await source.read(0, 10)
        assert raised.value.retryable
        async for error in every_use(store, stored.key):
            assert error.retryable


async def test_orphans_are_looked_for_under_the_prefix_alone(
    place: Place, settings: WebSettings
) -> None:
    store = place.open("/recordings")
    kept, orphan = [(await store.write(uuid4(), pieces(b"x" * 1000))).key for _ in range(2)]
    lifecycle = Lifecycle(place.pool, StatusPublisher(place.pool), settings)
    new = new_session(await make_user(place.pool))
    await lifecycle.create(replace(new, audio_key=kept))
    foreign = [str(uuid4()), f"recordings-of-others/{uuid4()}", f"recordings/inner/{uuid4()}"]
    foreign += ["recordings/thesis.txt"]
    for key in foreign:
        place.s3.put(place.bucket, key, b"not ours")
    found = [key async for page in store.orphans(-60) for key in page]
    assert found == [orphan]
    assert [key async for page in store.orphans(3600) for key in page] == []
    await store.delete(orphan)
    assert set(place.s3.keys(place.bucket)) == {f"recordings/{kept}", *foreign}


async def test_a_store_that_is_in_order_is_told_so(place: Place) -> None:
    await place.open().check()
    await place.open("").check()


async def check_fails(store: AudioStore) -> str:
    with pytest.raises(StorageError) as raised:
        await store.check()
    assert "\n" not in raised.value.message
    return raised.value.message


async def test_a_store_that_cannot_be_used_is_told_in_one_line(place: Place) -> None:
    with place.s3.refusing():
        assert "The AWS Access Key Id you provided does not exist" in await check_fails(
            place.open()
        )
    assert "error sending request" in await check_fails(place.open(url="http://127.0.0.1:1"))
    missing = replace(place, bucket="no-such-bucket")
    assert "s3://no-such-bucket/recordings cannot be used: The specified bucket does" in (
        await check_fails(missing.open())
    )
    place.monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    forbidding = open_store(f"s3://{place.bucket}/recordings", place.pool)
    assert "AWS_ALLOW_HTTP=true" in await check_fails(forbidding)
