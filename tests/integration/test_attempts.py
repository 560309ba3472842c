"""What an attempt says and keeps beside its transcript, and how its lease ends."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from pydantic import SecretStr

from jobs.attempt import Fenced, Workshop
from jobs.audio_source import AudioSource
from jobs.database import Pool
from jobs.embedded import EmbeddedPostgres
from jobs.errors import EngineError, JobError, StorageError
from jobs.forecast import Pace
from jobs.lease import Lease, held_lease
from jobs.lifecycle import Lifecycle, interruption_delay_s, predicted_completion
from jobs.model import Status
from jobs.publisher import StatusPublisher
from jobs.recogniser import AudioEnded, AudioOpened
from jobs.recogniser_wire import AudioInfo
from jobs.recognisers import RecogniserPool
from jobs.report import Report
from jobs.sessions import Session, select_session
from jobs.statuses import select_statuses_after
from jobs.storage import AudioStore
from jobs.transcribe import transcribe
from jobs.workers import Worker, select_live_workers, select_worker_seen_at, upsert_worker
from quartapp.runtime import Base, running_base, running_worker
from quartapp.settings import WebSettings
from tests import clips
from tests.integration.test_worker import submit, until, working
from tests.net import free_port
from tests.people import make_user, new_session
from tests.timing import TimedPublisher


async def events_of(pool: Pool, session_id: UUID) -> list[Any]:
    return [message.fields() for message in await select_statuses_after(pool, session_id, 0, 1000)]


def child_at_work() -> psutil.Process:
    """The recognising child of this process that is busiest."""
    children = psutil.Process().children(recursive=True)
    ours = [child for child in children if "jobs.recogniser_child" in child.cmdline()]
    return max(ours, key=lambda child: child.cpu_times().user)


async def gone(child: psutil.Process) -> None:
    """Until it has ended."""
    async with asyncio.timeout(60):
        while True:
            if not child.is_running():
                return
            await asyncio.sleep(0.05)


class TestWhatIsSaid:
    async def test_progress_that_stands_still_is_said_to(
        self, settings: WebSettings, tmp_path: Path
    ) -> None:
        recording = clips.speech(clips.LONG_TEXT, tmp_path)
        attentive = settings.model_copy(update={"quiet_s": 1.0})
        async with working(attentive) as base:
            session_id = await submit(base, recording)
            await moving(base.pool, session_id)
            child = child_at_work()
            child.send_signal(signal.SIGSTOP)
            try:
                quiet = await told(base.pool, session_id, "(no progress for 0:0")
            finally:
                child.send_signal(signal.SIGCONT)
            await until(base.pool, session_id, "completed")
            events = await events_of(base.pool, session_id)
        assert quiet["message"].startswith("Transcribing… ")
        assert quiet["estimated_completion"] is None
        assert events[-1]["attempt"] == 1, "standing still is no failure yet"
        progress = [event["progress"] for event in events]
        assert progress == sorted(progress)

    @pytest.mark.criterion("AC-1.3.5")
    async def test_past_runs_are_ground_for_an_estimate_from_the_first_moment(
        self, settings: WebSettings, tmp_path: Path
    ) -> None:
        short = clips.speech(clips.SHORT_TEXT, tmp_path)
        async with working(settings) as base:
            made = []
            for _ in range(4):
                made.append(await submit(base, short))
                await until(base.pool, made[-1], "completed")
            runs = await base.pool.fetch("SELECT * FROM transcription_runs ORDER BY id")
            claims = [
                next(e for e in await events_of(base.pool, each) if e["stage"] == "decoding")
                for each in made
            ]
        assert [run["session_id"] for run in runs] == made
        assert all(run["audio_s"] > 0 and 0 <= run["setup_s"] <= run["wall_s"] for run in runs)
        estimates = [claim["estimated_completion"] for claim in claims]
        assert estimates[:3] == [None] * 3
        assert estimates[3] is not None
        assert [run["predicted_completion"] is None for run in runs] == [True, True, True, False]

    async def test_an_audio_store_that_gives_no_answer_is_said_to(
        self, settings: WebSettings
    ) -> None:
        attentive = settings.model_copy(update={"quiet_s": 1.0})
        async with running_base(attentive) as base:
            session_id = (await base.lifecycle.create(new_session(await make_user(base.pool)))).id
            shop = shop_of(replace(base, store=Hanging()), attentive)
            attempt = asyncio.create_task(transcribe(shop, session_id, 1))
            try:
                await told(base.pool, session_id, "Opening the recording (no progress for 0:0")
            finally:
                attempt.cancel()
                await asyncio.wait([attempt])

    async def test_estimates_go_by_the_clock_of_the_database(self, settings: WebSettings) -> None:
        """As all other times of an event do."""
        async with running_base(settings) as base:
            new = new_session(await make_user(base.pool), 100.0)
            await base.lifecycle.create(new)
            session = await base.lifecycle.claim(new.id, 1, "owner", "engine")
            assert session is not None
            then = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
            behind = replace(session, worker_seen_at=then, started_at=then - timedelta(minutes=3))
            pace = Pace(setup_s=10.0, per_audio_s=0.5)
            assert predicted_completion(behind, pace) == then + timedelta(seconds=60)
            report = Report(shop_of(base, settings), behind, Lease(), pace)
            await report.tell(AudioOpened(AudioInfo(100.0, "wav", "pcm", 16000, 1)))
            opened = (await events_of(base.pool, new.id))[-1]
            await report.tell(AudioEnded(100.0, None))
            done = (await events_of(base.pool, new.id))[-1]
        assert opened["estimated_completion"].startswith("2026-01-15T10:3")
        assert "in 3:0" in done["message"]


async def moving(pool: Pool, session_id: UUID) -> None:
    """Until some of the recording is recognised."""
    async with asyncio.timeout(60):
        while True:
            if any(event["duration_processed"] for event in await events_of(pool, session_id)):
                return
            await asyncio.sleep(0.05)


async def told(pool: Pool, session_id: UUID, part: str) -> Any:
    """The first event whose message holds `part`."""
    async with asyncio.timeout(60):
        while True:
            for event in await events_of(pool, session_id):
                if part in event["message"]:
                    return event
            await asyncio.sleep(0.05)


@pytest.mark.criterion("AC-1.3.7")
async def test_publishing_costs_a_transcription_next_to_nothing(
    settings: WebSettings, tmp_path: Path
) -> None:
    """All the time inside the publisher, as if the recogniser stood still meanwhile."""
    async with running_base(settings) as base:
        publisher = TimedPublisher(base.pool)
        timed = replace(
            base, publisher=publisher, lifecycle=replace(base.lifecycle, publisher=publisher)
        )
        async with running_worker(timed, settings):
            started = time.perf_counter()
            session_id = await submit(timed, clips.speech(clips.LONG_TEXT, tmp_path))
            await until(base.pool, session_id, "completed")
            took_s = time.perf_counter() - started
    assert publisher.calls >= 8
    assert publisher.spent_s < 0.05 * took_s


class AwayAtFirst:
    """An audio store that does not answer the first few times."""

    def __init__(self, store: AudioStore, times: int) -> None:
        self._store = store
        self.times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def open(self, key: str) -> AudioSource:
        if self.times > 0:
            self.times -= 1
            raise StorageError("The audio store does not answer.")
        return await self._store.open(key)


class Failing:
    """An audio store that only fails."""

    def __init__(self, error: JobError) -> None:
        self.error = error

    def __getattr__(self, _: str) -> Any:
        raise NotImplementedError

    async def open(self, _: str) -> AudioSource:
        raise self.error


class Hanging:
    """An audio store that gives no answer."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def __getattr__(self, _: str) -> Any:
        raise NotImplementedError

    async def open(self, _: str) -> AudioSource:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


@dataclass(frozen=True)
class CutOffAtFirst(Lifecycle):
    """Of a process that does not reach its database when an attempt ends."""

    tries: list[None] = field(default_factory=list)

    async def interrupt(self, *arguments: Any, **more: Any) -> bool:
        self._reached()
        return await super().interrupt(*arguments, **more)

    async def retry_after_failure(self, *arguments: Any, **more: Any) -> bool:
        self._reached()
        return await super().retry_after_failure(*arguments, **more)

    def _reached(self) -> None:
        self.tries.append(None)
        if len(self.tries) < 3:
            raise ConnectionResetError


def shop_of(base: Base, settings: WebSettings) -> Workshop:
    """Of a worker that has no recogniser."""
    return Workshop(
        pool=base.pool,
        settings=settings,
        publisher=base.publisher,
        lifecycle=base.lifecycle,
        store=base.store,
        recognisers=RecogniserPool(settings, engine=None, size=1, idle_s=0),
        owner="owner",
        host="here",
        stopping=asyncio.Event(),
    )


class TestSurroundings:
    """Faults that say nothing of the recording cost it no try."""

    async def test_an_audio_store_that_comes_back_is_waited_for(
        self, settings: WebSettings, tmp_path: Path
    ) -> None:
        brief = settings.model_copy(update={"retry_delay_s": 0.01, "max_attempts": 1})
        async with running_base(brief) as base:
            store = AwayAtFirst(base.store, 5)
            async with running_worker(replace(base, store=store), brief):
                session_id = await submit(base, clips.speech(clips.SHORT_TEXT, tmp_path))
                await until(base.pool, session_id, "completed")
            events = await events_of(base.pool, session_id)
        assert store.times == 0
        again = "The audio store does not answer. Trying again"
        assert [event["message"] for event in events].count(again) == 5
        assert events[-1]["attempt"] == 6

    async def test_one_that_stays_away_ends_it_with_its_cause(
        self, settings: WebSettings, tmp_path: Path
    ) -> None:
        brief = settings.model_copy(update={"retry_delay_s": 0.01, "max_interruptions": 3})
        async with running_base(brief) as base:
            store = AwayAtFirst(base.store, 100)
            async with running_worker(replace(base, store=store), brief):
                session_id = await submit(base, clips.speech(clips.SHORT_TEXT, tmp_path))
                failed = (await until(base.pool, session_id, "failed")).fields()
        assert (failed["error"]["code"], failed["attempt"]) == ("storage_failed", 3)

    async def test_after_a_crash_of_the_database_it_goes_on_at_once(
        self, settings: WebSettings, tmp_path: Path
    ) -> None:
        """Not when the lease has run out, and no failure is counted."""
        recording = clips.speech(clips.LONG_TEXT, tmp_path)
        server = EmbeddedPostgres(tmp_path / "database")
        server.start(tcp_port=(port := free_port()))
        patient = settings.model_copy(
            update={
                "database_url": SecretStr(f"postgresql://quartapp@127.0.0.1:{port}/quartapp"),
                "lease_s": 600.0,
                "max_attempts": 1,
            }
        )
        try:
            async with working(patient) as base:
                session_id = await submit(base, recording)
                await moving(base.pool, session_id)
                child = child_at_work()
                await asyncio.to_thread(server.stop_now, "immediate")
                await gone(child)  # there was something to write
                await asyncio.to_thread(server.restart)
                await until(base.pool, session_id, "completed")
                events = await events_of(base.pool, session_id)
        finally:
            server.stop()
        assert events[-1]["attempt"] == 2
        assert "Continuing after a restart" in [event["message"] for event in events]

    @pytest.mark.parametrize("error", [StorageError("Away."), EngineError("It failed.")])
    async def test_the_end_of_an_attempt_is_written_as_soon_as_the_database_answers(
        self, settings: WebSettings, error: JobError
    ) -> None:
        """Not when the lease has run out, and a failure is still one."""
        async with running_base(settings) as base:
            away = CutOffAtFirst(base.pool, base.publisher, settings)
            session_id = (await base.lifecycle.create(new_session(await make_user(base.pool)))).id
            shop = shop_of(replace(base, lifecycle=away, store=Failing(error)), settings)
            await transcribe(shop, session_id, 1)
            session = await select_session(base.pool, session_id)
        assert session is not None
        counted = (session.status, session.failures, session.interruptions)
        assert counted == (Status.QUEUED, int(not error.passing), int(error.passing))

    async def test_an_attempt_that_the_queue_breaks_off_is_no_failure(
        self, settings: WebSettings
    ) -> None:
        async with running_base(settings) as base:
            session_id = (await base.lifecycle.create(new_session(await make_user(base.pool)))).id
            store = Hanging()
            attempt = asyncio.create_task(
                transcribe(shop_of(replace(base, store=store), settings), session_id, 1)
            )
            await store.asked.wait()
            attempt.cancel()
            await asyncio.wait([attempt])
            session = await select_session(base.pool, session_id)
        assert session is not None
        counted = (session.status, session.failures, session.interruptions)
        assert counted == (Status.QUEUED, 0, 1)

    def test_what_takes_its_worker_down_each_time_waits_longer_and_longer(self) -> None:
        delays = [interruption_delay_s(count, 5.0) for count in range(7)]
        assert delays == [0.0, 0.0, 5.0, 10.0, 20.0, 30.0, 30.0]


class TestWorkers:
    async def test_a_worker_is_known_while_it_works_and_not_after(
        self, settings: WebSettings, pool: Pool
    ) -> None:
        async with working(settings) as base:
            await until_known(base.pool, settings.lease_s)
            (worker,) = await select_live_workers(base.pool, settings.lease_s)
        assert (worker.engine, worker.slots) == ("pocketsphinx", settings.job_slots)
        assert await select_live_workers(pool, settings.lease_s) == []

    async def test_it_says_again_and_again_that_it_is_alive(
        self, settings: WebSettings, pool: Pool
    ) -> None:
        async with working(settings.model_copy(update={"lease_s": 2.0})):
            await until_known(pool, 2.0)
            await pool.execute("UPDATE workers SET seen_at = now() - interval '1 day'")
            await until_known(pool, 2.0)

    async def test_who_waits_is_told_of_any_and_who_is_worked_on_of_its_own(
        self, settings: WebSettings, pool: Pool
    ) -> None:
        lifecycle = Lifecycle(pool, StatusPublisher(pool), settings)
        session_id = (await lifecycle.create(new_session(await make_user(pool)))).id
        assert await select_worker_seen_at(pool, session_id) is None
        await upsert_worker(pool, Worker("one", "here", "engine", 1))
        seen_at = await pool.fetchval("SELECT seen_at FROM workers")
        assert await select_worker_seen_at(pool, session_id) == seen_at
        session = await lifecycle.claim(session_id, 1, "one", "engine")
        assert session is not None
        await pool.execute("UPDATE workers SET seen_at = now() + interval '1 hour'")
        assert await select_worker_seen_at(pool, session_id) == session.worker_seen_at

    async def test_one_not_heard_of_for_a_lease_is_none(self, pool: Pool) -> None:
        worker = Worker("one", "here", "engine", 1)
        await upsert_worker(pool, worker)
        assert await select_live_workers(pool, 20.0) == [worker]
        await pool.execute("UPDATE workers SET seen_at = now() - interval '21 s'")
        assert await select_live_workers(pool, 20.0) == []


async def until_known(pool: Pool, within_s: float) -> None:
    async with asyncio.timeout(60):
        while True:
            if await select_live_workers(pool, within_s):
                return
            await asyncio.sleep(0.02)


class TestLease:
    async def claimed(self, base: Base) -> Session:
        new = new_session(await make_user(base.pool))
        await base.lifecycle.create(new)
        session = await base.lifecycle.claim(new.id, 1, "owner", "engine")
        assert session is not None
        return session

    async def test_the_work_ends_when_the_lease_is_another_s(self, settings: WebSettings) -> None:
        brief = settings.model_copy(update={"lease_s": 1.0})
        async with running_base(brief) as base:
            session = await self.claimed(base)
            with pytest.raises(Fenced):
                async with held_lease(shop_of(base, brief), session):
                    await base.pool.execute("UPDATE sessions SET lease_owner = 'another'")
                    await asyncio.sleep(60)

    async def test_a_fault_in_the_holding_ends_the_work_with_its_cause(
        self, settings: WebSettings
    ) -> None:
        """Or the attempt would go on without a lease, and be found out at its next write."""
        async with running_base(settings) as base:
            session = await self.claimed(base)
            broken = replace(shop_of(base, settings), pool=None)  # type: ignore[arg-type]
            with pytest.raises(AttributeError):
                async with held_lease(broken, session):
                    await asyncio.sleep(60)

    async def test_the_end_of_a_session_that_ends_itself_is_no_loss(
        self, settings: WebSettings
    ) -> None:
        brief = settings.model_copy(update={"lease_s": 1.0})
        async with running_base(brief) as base:
            session = await self.claimed(base)
            async with held_lease(shop_of(base, brief), session) as lease:
                lease.closing = True
                await base.lifecycle.cancel(session.id)
                await asyncio.sleep(1.0)  # several looks at the session
            assert (await select_session(base.pool, session.id)) is not None
