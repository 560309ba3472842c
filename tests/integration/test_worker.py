"""The worker inside a process of ours: its time limit, its faults, and a cancel by the user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from jobs.admission import describe
from jobs.database import Pool
from jobs.model import StatusMessage
from jobs.recogniser_wire import AudioInfo
from jobs.statuses import select_latest_status, select_statuses_after
from quartapp.runtime import Base, running_base, running_recovery, running_worker
from quartapp.settings import WebSettings
from tests import clips
from tests.people import make_user


@asynccontextmanager
async def working(settings: WebSettings) -> AsyncIterator[Base]:
    async with (
        running_base(settings) as base,
        running_recovery(base, settings),
        running_worker(base, settings),
    ):
        yield base


async def submit(base: Base, recording: bytes) -> UUID:
    async def whole() -> AsyncIterator[bytes]:
        yield recording

    stored = await base.store.write(uuid4(), whole())
    new = describe(
        stored,
        AudioInfo(60.0, "wav", "pcm_s16le", 16_000, 1),
        owner_id=await make_user(base.pool),
        title="A recording",
        file_name="recording.wav",
        language=None,
    )
    await base.lifecycle.create(new)
    return new.id


async def until(pool: Pool, session_id: UUID, status: str) -> StatusMessage:
    async with asyncio.timeout(60):
        while True:
            latest = await select_latest_status(pool, session_id)
            if latest is not None and latest.status == status:
                return latest
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def minutes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.speech(clips.LONG_TEXT * 3, tmp_path_factory.mktemp("minutes"))


async def test_an_attempt_that_takes_too_long_is_a_failure_and_not_a_restart(
    settings: WebSettings, minutes: bytes
) -> None:
    brief = settings.model_copy(update={"job_timeout_s": 1, "retry_delay_s": 0.0})
    async with working(brief) as base:
        session_id = await submit(base, minutes)
        failed = await until(base.pool, session_id, "failed")
        assert failed.fields()["error"]["code"] == "job_timeout"
        assert failed.fields()["attempt"] == 3


@pytest.mark.parametrize("end", ["cancel", "delete"])
async def test_a_session_taken_away_frees_its_worker_at_once(
    settings: WebSettings, minutes: bytes, tmp_path: Path, end: str
) -> None:
    async with working(settings) as base:
        first = await submit(base, minutes)
        second = await submit(base, clips.speech(clips.SHORT_TEXT, tmp_path))
        await until(base.pool, first, "processing")
        if end == "cancel":
            await base.lifecycle.cancel(first)
        else:
            await base.lifecycle.delete(first)
        done = await until(base.pool, second, "completed")
        started = next(
            message
            for message in await select_statuses_after(base.pool, second, 0, 100)
            if message.status == "processing"
        )
        events = await select_statuses_after(base.pool, first, 0, 1000)
        if end == "cancel":
            assert (started.at - events[-1].at).total_seconds() < 5
            assert events[-1].status == "cancelled"
        else:
            assert events == []
        assert done.fields()["attempt"] == 1


async def test_a_lease_is_held_for_as_long_as_the_work_takes(
    settings: WebSettings, minutes: bytes
) -> None:
    short = settings.model_copy(update={"lease_s": 1.0, "recovery_interval_s": 0.2})
    async with working(short) as base:
        session_id = await submit(base, minutes)
        done = await until(base.pool, session_id, "completed")
        assert done.fields()["attempt"] == 1
        row = await base.pool.fetchrow(
            "SELECT finished_at - started_at > interval '3 s' AS long, failures, interruptions "
            "FROM sessions WHERE id = $1",
            session_id,
        )
        assert row is not None
        assert tuple(row) == (True, 0, 0)


async def test_a_recording_that_is_gone_is_said_to_be(
    settings: WebSettings, minutes: bytes
) -> None:
    async with working(settings) as base:
        busy = await submit(base, minutes)
        await until(base.pool, busy, "processing")
        session_id = await submit(base, clips.wav_of(clips.tone(1.0)))
        key = await base.pool.fetchval("SELECT audio_key FROM sessions WHERE id = $1", session_id)
        await base.store.delete(key)
        await base.lifecycle.cancel(busy)
        failed = await until(base.pool, session_id, "failed")
        assert failed.fields()["error"]["code"] == "audio_missing"
        assert failed.fields()["attempt"] == 1


async def test_a_recording_that_is_not_to_be_kept_goes_when_it_is_transcribed(
    settings: WebSettings, tmp_path: Path
) -> None:
    async with working(settings.model_copy(update={"audio_retention": 0.0})) as base:
        session_id = await submit(base, clips.speech(clips.SHORT_TEXT, tmp_path))
        await until(base.pool, session_id, "completed")
        async with asyncio.timeout(30):
            while True:
                if not await base.pool.fetchval("SELECT count(*) FROM audio_chunks"):
                    break
                await asyncio.sleep(0.05)
        assert await base.pool.fetchval("SELECT audio_key FROM sessions") is None
