"""What is kept for a time only: what goes, what stays, and that it may be broken off anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from jobs import retention
from jobs.audio_source import AudioSource
from jobs.database import Pool, open_connection
from jobs.errors import StorageError
from jobs.lifecycle import Lifecycle
from jobs.model import status_channel
from jobs.publisher import StatusPublisher
from jobs.settings import DAYS
from jobs.statuses import select_latest_status, select_statuses_after
from jobs.storage import AudioStore, ObjectStore, StoredAudio, open_store
from jobs.upkeep import Upkeep
from quartapp.settings import WebSettings
from tests.people import make_user

ROOT = Path(__file__).parents[2]
KINDS = ["postgres", "file"]
OLD = 400.0  # days: longer than anything is kept by default


@dataclass
class Archive:
    """A database with what has been kept, of any age."""

    pool: Pool
    store: AudioStore
    settings: WebSettings
    owner_id: UUID
    tmp_path: Path

    def upkeep(self, store: AudioStore | None = None, **changed: Any) -> Upkeep:
        lifecycle = Lifecycle(self.pool, StatusPublisher(self.pool), self.settings)
        settings = self.settings.model_copy(update=changed)
        return Upkeep(self.pool, settings, lifecycle, store or self.store)

    async def session(
        self,
        status: str,
        age_days: float,
        *,
        events: int = 3,
        audio: bool = False,
        history: str = "",
    ) -> UUID:
        """A session that ended so, that long ago; its events are one second apart. `history` is the
        status of its second event."""
        key = await self.audio(age_days) if audio else None
        over = status in {"completed", "failed", "cancelled"}
        session_id: UUID = await self.pool.fetchval(
            "INSERT INTO sessions (id, owner_id, title, file_name, audio_key, audio_type, "
            "size_bytes, sha256, status, stage, progress, error, last_status_id, created_at, "
            "finished_at) SELECT gen_random_uuid(), $1, 't', 'f', $2, 'audio/wav', 1000, '', $3, "
            "CASE WHEN $3 = 'completed' THEN 'done' ELSE 'queued' END, "
            "CASE WHEN $3 = 'completed' THEN 100 ELSE 0 END, "
            'CASE WHEN $3 = \'failed\' THEN \'{"code": "c", "message": "m"}\'::json END, $4, '
            "at, CASE WHEN $5 THEN at END "
            "FROM (SELECT now() - make_interval(secs => $6 * 86400) AS at) AS moment RETURNING id",
            self.owner_id,
            key,
            status,
            events,
            over,
            age_days,
        )
        await self.pool.execute(
            "INSERT INTO processing_status (session_id, id, prev_id, attempt, status, stage, "
            "progress, progress_kind, message, segments, error, timestamp) "
            "SELECT $1, k, k - 1, 1, kind, 'queued', 0, 'measured', 'Working', 0, "
            'CASE WHEN kind = \'failed\' THEN \'{"code": "c", "message": "m"}\'::json END, '
            "now() - make_interval(secs => $2 * 86400 + $3 - k) "
            "FROM (SELECT k, CASE WHEN k = $3 THEN $4 WHEN k = 2 AND $5 <> '' THEN $5 "
            "WHEN k = 1 THEN 'queued' ELSE 'processing' END AS kind "
            "FROM generate_series(1, $3::int) AS k) AS event",
            session_id,
            age_days,
            events,
            status,
            history,
        )
        return session_id

    async def audio(self, age_days: float) -> str:
        """A recording that was written that long ago."""

        async def data() -> AsyncIterator[bytes]:
            yield b"x" * 1000

        key = (await self.store.write(uuid4(), data())).key
        await self.pool.execute(
            "UPDATE audio_chunks SET created_at = now() - make_interval(secs => $2 * 86400) "
            "WHERE audio_id = $1",
            UUID(key),
            age_days,
        )
        path = self.tmp_path / "audio" / key
        if path.exists():
            os.utime(path, (time.time() - age_days * DAYS,) * 2)
        return key

    async def has_audio(self, session_id: UUID) -> bool:
        """Whether it says so; if it does, the recording must be there."""
        key = await self.pool.fetchval("SELECT audio_key FROM sessions WHERE id = $1", session_id)
        if key is not None:
            assert (await self.store.open(key)).size_bytes == 1000
        return key is not None

    async def recordings(self) -> int:
        if (self.tmp_path / "audio").exists():
            return sum(path.is_file() for path in (self.tmp_path / "audio").iterdir())
        count: int = await self.pool.fetchval("SELECT count(DISTINCT audio_id) FROM audio_chunks")
        return count

    async def event_ids(self, session_id: UUID) -> list[int]:
        return [each.id for each in await select_statuses_after(self.pool, session_id, 0, 10_000)]


@pytest.fixture
async def archive(pool: Pool, settings: WebSettings, tmp_path: Path) -> Archive:
    return Archive(pool, open_store("postgres", pool), settings, await make_user(pool), tmp_path)


@pytest.fixture(params=KINDS)
async def archives(request: pytest.FixtureRequest, archive: Archive) -> Archive:
    """With each kind of store."""
    if request.param == "file":
        archive.store = open_store(f"file://{archive.tmp_path}/audio", archive.pool)
    return archive


class Unreliable:
    """A store that does not delete, as one that is away, after so many deletions."""

    def __init__(self, store: AudioStore, deletions: int = 0) -> None:
        self._store = store
        self._left = deletions

    async def check(self) -> None: ...

    async def write(self, key: UUID, data: AsyncIterator[bytes]) -> StoredAudio:
        return await self._store.write(key, data)

    async def open(self, key: str) -> AudioSource:
        return await self._store.open(key)

    async def delete(self, key: str) -> None:
        if not self._left:
            raise StorageError("The audio store did not delete the recording.")
        self._left -= 1
        await self._store.delete(key)

    def orphans(self, older_than_s: float) -> AsyncIterator[list[str]]:
        return self._store.orphans(older_than_s)


class TestAudio:
    async def test_that_of_a_completed_session_goes_when_its_time_has_come(
        self, archives: Archive
    ) -> None:
        old = await archives.session("completed", 31, audio=True)
        young = await archives.session("completed", 29, audio=True)
        failed = await archives.session("failed", 89, audio=True)
        waiting = await archives.session("queued", OLD, audio=True)
        assert (await archives.upkeep().run())["audio"] == 1
        assert not await archives.has_audio(old)
        for kept in (young, failed, waiting):
            assert await archives.has_audio(kept)
        assert await archives.recordings() == 3

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    async def test_that_of_one_that_can_be_retried_is_kept_for_longer(
        self, archive: Archive, status: str
    ) -> None:
        old = await archive.session(status, 91, audio=True)
        young = await archive.session(status, 89, audio=True)
        done = await archive.upkeep(audio_retention=0.0).run()
        assert (done["audio"], done["unfinished_audio"]) == (0, 1)
        assert not await archive.has_audio(old)
        assert await archive.has_audio(young)

    async def test_orphans_go_and_what_is_still_being_uploaded_stays(
        self, archives: Archive
    ) -> None:
        await archives.audio(1)
        await archives.audio(0)
        slow = await archives.audio(1)
        if (archives.tmp_path / "audio").exists():
            (archives.tmp_path / "audio" / slow).touch()
        else:
            await archives.pool.execute(
                "INSERT INTO audio_chunks (audio_id, idx, data) VALUES ($1, 1, 'x')", UUID(slow)
            )
        owned = await archives.session("completed", 2, audio=True)
        assert (await archives.upkeep().run())["orphan_audio"] == 1
        assert await archives.recordings() == 3
        assert await archives.has_audio(owned)

    async def test_orphans_are_found_among_many(
        self, archive: Archive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jobs.storage.LISTED", 4)
        monkeypatch.setattr("jobs.storage.DELETED_CHUNKS", 2)
        for number in range(12):
            key = await archive.audio(1)
            if number % 3 == 0:
                await archive.pool.execute(
                    "INSERT INTO audio_chunks (audio_id, idx, data, created_at) "
                    "SELECT $1, k, 'x', now() - interval '1 day' FROM generate_series(1, 5) k",
                    UUID(key),
                )
        kept = [await archive.session("completed", 1, audio=True) for _ in range(9)]
        assert (await archive.upkeep().run())["orphan_audio"] == 12
        assert await archive.recordings() == 9
        assert all([await archive.has_audio(session_id) for session_id in kept])

    @pytest.mark.parametrize("deletions", [0, 1])
    async def test_a_store_that_fails_leaves_no_session_with_a_promise(
        self, archives: Archive, deletions: int
    ) -> None:
        sessions = [await archives.session("completed", 31, audio=True) for _ in range(3)]
        with capture_logs() as logged:
            await archives.upkeep(Unreliable(archives.store, deletions)).run()
        assert {entry["kind"] for entry in logged if entry["event"] == "upkeep_postponed"} == {
            "audio",
            "orphan_audio",
        }
        assert not any([await archives.has_audio(session_id) for session_id in sessions])
        assert await archives.recordings() == 3 - deletions
        assert (await archives.upkeep().run())["orphan_audio"] == 3 - deletions
        assert await archives.recordings() == 0

    async def test_of_a_large_recording_a_part_is_left_that_is_found_again(
        self, archive: Archive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jobs.storage.DELETED_CHUNKS", 4)
        key = await archive.audio(1)
        await archive.pool.execute(
            "INSERT INTO audio_chunks (audio_id, idx, data, created_at) "
            "SELECT $1, k, 'x', now() - interval '1 day' FROM generate_series(1, 10) AS k",
            UUID(key),
        )
        await archive.pool.execute(
            """
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              RAISE 'not now';
            END $$;
            CREATE TRIGGER refusal BEFORE DELETE ON audio_chunks
              FOR EACH ROW WHEN (OLD.idx = 0) EXECUTE FUNCTION refuse();
            """
        )
        await archive.upkeep().run()
        assert await archive.pool.fetchval("SELECT count(*) FROM audio_chunks") == 3
        await archive.pool.execute("DROP TRIGGER refusal ON audio_chunks")
        assert (await archive.upkeep().run())["orphan_audio"] == 1
        assert await archive.recordings() == 0


class TestStatuses:
    async def test_of_an_old_session_the_last_alone_stays(self, archive: Archive) -> None:
        old = await archive.session("completed", 91, events=5)
        young = await archive.session("completed", 89, events=5)
        unfinished = await archive.session("processing", OLD, events=5)
        assert (await archive.upkeep().run())["statuses"] == 4
        assert await archive.event_ids(old) == [5]
        assert len(await archive.event_ids(young)) == 5
        assert len(await archive.event_ids(unfinished)) == 5
        latest = await select_latest_status(archive.pool, old)
        assert latest is not None
        assert latest.terminal

    async def test_one_that_failed_before_it_was_completed_keeps_one_too(
        self, archive: Archive
    ) -> None:
        session_id = await archive.session("completed", 91, events=6, history="failed")
        await archive.upkeep().run()
        assert await archive.event_ids(session_id) == [6]

    async def test_the_last_stays_whatever_it_says(self, archive: Archive) -> None:
        session_id = await archive.session("cancelled", 91, events=5)
        await archive.pool.execute("UPDATE processing_status SET status = 'processing'")
        await archive.upkeep().run()
        assert await archive.event_ids(session_id) == [5]

    async def test_what_was_retried_lately_keeps_all(self, archive: Archive) -> None:
        session_id = await archive.session("completed", 91, events=6, history="failed")
        await archive.pool.execute("UPDATE sessions SET finished_at = now()")
        assert (await archive.upkeep().run())["statuses"] == 0
        assert len(await archive.event_ids(session_id)) == 6

    async def test_one_that_somebody_works_on_is_not_waited_for(self, archive: Archive) -> None:
        held = await archive.session("failed", 91, events=5)
        free = await archive.session("failed", 91, events=5)
        async with archive.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM sessions WHERE id = $1 FOR UPDATE", held)
            async with asyncio.timeout(30):
                done = await archive.upkeep(session_retention_s=OLD * DAYS).run()
        assert done["statuses"] == 4
        assert len(await archive.event_ids(held)) == 5
        assert await archive.event_ids(free) == [5]

    async def test_many_are_deleted_in_small_transactions(
        self, archive: Archive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "BATCH_ROWS", 10)
        await watched(archive.pool, "processing_status")
        sessions = [await archive.session("completed", 91, events=8) for _ in range(5)]
        long = await archive.session("completed", 91, events=40)
        assert (await archive.upkeep().run())["statuses"] == 5 * 7 + 39
        assert max(await deletions(archive.pool)) == 10
        for session_id in (*sessions, long):
            assert len(await archive.event_ids(session_id)) == 1


class TestSessions:
    async def test_they_are_kept_for_ever_unless_a_time_is_set(self, archive: Archive) -> None:
        await archive.session("completed", 9 * OLD)
        assert "sessions" not in await archive.upkeep().run()
        assert await archive.pool.fetchval("SELECT count(*) FROM sessions") == 1

    async def test_old_ones_go_with_all_they_have(self, archives: Archive, dsn: str) -> None:
        old = [
            await archives.session(status, 11, audio=True)
            for status in ("completed", "failed", "cancelled")
        ]
        kept = [
            await archives.session("completed", 9, audio=True),
            await archives.session("queued", OLD, audio=True),
        ]
        told: list[dict[str, str]] = []
        async with open_connection(dsn) as connection:
            await connection.add_listener(
                status_channel(old[0]), lambda *heard: told.append(json.loads(heard[3]))
            )
            done = await archives.upkeep(session_retention_s=10 * DAYS).run()
            await connection.execute("SELECT 1")
        assert (done["sessions"], done["orphan_audio"]) == (3, 0)
        assert told == [{"session_id": str(old[0])}]
        rows = await archives.pool.fetch("SELECT id FROM sessions")
        assert {row["id"] for row in rows} == set(kept)
        assert await archives.recordings() == 2
        assert await archives.pool.fetchval("SELECT count(*) FROM processing_status") == 6

    async def test_a_long_history_goes_first_in_small_transactions(
        self, archive: Archive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "BATCH_ROWS", 100)
        await watched(archive.pool, "processing_status")
        await archive.session("completed", 11, events=1000)
        await archive.upkeep(session_retention_s=10 * DAYS).run()
        assert await deletions(archive.pool) == [*[100] * 9, 99, 1]

    async def test_one_that_is_retried_meanwhile_stays(
        self, archive: Archive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "BATCH_ROWS", 10)
        session_id = await archive.session("failed", 11, events=30, audio=True)
        upkeep = archive.upkeep()
        steps = retention.delete_sessions(archive.pool, upkeep.lifecycle, archive.store, 10 * DAYS)
        assert await anext(steps) == 0
        await upkeep.lifecycle.restart(session_id)
        assert sum([count async for count in steps]) == 0
        assert len(await archive.event_ids(session_id)) == 30 - 10 + 1
        row = await archive.pool.fetchrow("SELECT status, audio_key FROM sessions")
        assert row is not None
        assert row["status"] == "queued"
        assert (await archive.store.open(row["audio_key"])).size_bytes == 1000


TABLES = {
    "logins": (
        7,
        "INSERT INTO logins (user_id, created_at, expires_at, revoked_at) "
        "SELECT id, at - interval '30 days', at, NULL FROM users, {at}",
    ),
    "logins that were revoked": (
        7,
        "INSERT INTO logins (user_id, created_at, expires_at, revoked_at) "
        "SELECT id, at - interval '1 day', now() + interval '1 day', at FROM users, {at}",
    ),
    "idempotency_keys": (
        1,
        "INSERT INTO idempotency_keys SELECT owner_id, gen_random_uuid()::text, id, '{{}}', at "
        "FROM sessions, {at}",
    ),
    "transcription_runs": (
        365,
        "INSERT INTO transcription_runs (session_id, attempt, engine, host, audio_s, setup_s, "
        "wall_s, completed_at) SELECT id, 1, 'e', 'h', 1, 1, 1, at FROM sessions, {at}",
    ),
    "workers": (
        1,
        "INSERT INTO workers (id, host, engine, slots, seen_at) "
        "SELECT gen_random_uuid()::text, 'h', 'e', 1, at FROM {at}",
    ),
    "stream_tickets": (
        60 / DAYS,
        "INSERT INTO stream_tickets (ticket_hash, login_id, session_id, expires_at) "
        "SELECT sha256(gen_random_uuid()::text::bytea), logins.id, sessions.id, at "
        "FROM logins, sessions, {at}",
    ),
}


@pytest.mark.parametrize("name", TABLES)
async def test_rows_go_when_their_time_has_come_and_not_before(
    archive: Archive, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 4)
    age_days, insert = TABLES[name]
    table = name.split(maxsplit=1)[0]
    await archive.session("completed", 0)
    if table == "stream_tickets":
        await archive.pool.execute(
            "INSERT INTO logins (user_id, expires_at) "
            "SELECT id, now() + interval '1 day' FROM users"
        )
    for many, nearly_s in ((10, 30), (3, -30)):
        moment = f"now() - interval '{age_days * DAYS + nearly_s} s'"
        values = f"(SELECT {moment} AS at FROM generate_series(1, {many})) AS moments"
        await archive.pool.execute(insert.format(at=values))
    assert (await archive.upkeep().run())[table] == 10
    assert await archive.pool.fetchval(f"SELECT count(*) FROM {table}") == 3


async def fill(archive: Archive) -> None:
    """Something old of each kind, and as much that is to stay."""
    for age_days in (OLD, 0.0):
        for status in ("completed", "failed", "cancelled"):
            for _ in range(4):
                await archive.session(status, age_days, events=9, audio=True)
        await archive.audio(age_days)
        for _, insert in TABLES.values():
            moment = f"now() - interval '{age_days} days'"
            await archive.pool.execute(insert.format(at=f"(SELECT {moment} AS at) AS moments"))
    await archive.session("processing", OLD, events=9, audio=True)


async def assert_settled(archive: Archive) -> None:
    """Nothing old is left but what must be, all that is young is there, and nothing is half."""
    done = await archive.upkeep().run()
    assert {kind: count for kind, count in done.items() if count} == {}
    rows = await archive.pool.fetch(
        "SELECT session.id, finished_at < now() - interval '1 day', count(*) "
        "FROM sessions AS session JOIN processing_status AS event ON session_id = session.id "
        "GROUP BY session.id"
    )
    assert len(rows) == 25
    for session_id, old, events in rows:
        assert events == (1 if old else 9)
        assert await archive.has_audio(session_id) is not bool(old)
    # One for each session that has it, and the upload that may still become a session.
    assert await archive.recordings() == 13 + 1


async def test_two_runs_at_once_share_the_work_and_block_each_other_never(
    archives: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 5)
    monkeypatch.setattr(retention, "BATCH_SESSIONS", 2)
    await fill(archives)
    with capture_logs() as logged:
        async with asyncio.timeout(60):
            done = await asyncio.gather(*(archives.upkeep().run() for _ in range(3)))
    assert [entry for entry in logged if entry["event"] == "upkeep_postponed"] == []
    assert sum(each["audio"] + each["unfinished_audio"] for each in done) == 12
    assert sum(each["statuses"] for each in done) == 12 * 8
    await assert_settled(archives)


async def test_deleting_sessions_may_meet_another_run_and_the_owner(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 5)
    monkeypatch.setattr(retention, "BATCH_SESSIONS", 3)
    sessions = [await archive.session("completed", 91, events=20, audio=True) for _ in range(12)]
    upkeep = archive.upkeep(session_retention_s=90 * DAYS)

    async def owner() -> None:
        for session_id in reversed(sessions[::3]):
            deleted = await upkeep.lifecycle.delete(session_id)
            if deleted is not None and deleted.audio_key is not None:
                await archive.store.delete(deleted.audio_key)

    with capture_logs() as logged:
        async with asyncio.timeout(60):
            await asyncio.gather(upkeep.run(), owner(), upkeep.run())
    assert [entry for entry in logged if entry["event"] == "upkeep_postponed"] == []
    assert await archive.pool.fetchval("SELECT count(*) FROM sessions") == 0
    assert await archive.recordings() == 0


@pytest.mark.parametrize("batches", [1, 2, 5])
async def test_each_part_may_be_broken_off_after_any_batch(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 7)
    monkeypatch.setattr(retention, "BATCH_SESSIONS", 3)
    await fill(archive)
    for kind in archive.upkeep()._kinds().values():
        async with aclosing(kind):
            for _ in range(batches):
                if await anext(kind, None) is None:
                    break
    await archive.upkeep().run()
    await assert_settled(archive)


KILLED = """
import asyncio, sys
from types import SimpleNamespace
from pydantic import SecretStr
from jobs import retention
from jobs.database import open_pool
from jobs.lifecycle import Lifecycle
from jobs.publisher import StatusPublisher
from jobs.settings import JobSettings
from jobs.storage import open_store
from jobs.upkeep import Upkeep

dsn, url, before = sys.argv[1], sys.argv[2], sys.argv[3]
retention.BATCH_SESSIONS, retention.BATCH_ROWS = 3, 7

async def main():
    settings = JobSettings(database_url=SecretStr(dsn))
    async with open_pool(dsn, settings) as pool:
        store = open_store(url, pool)
        name, ordinal = before.split(":")
        place = store if name == "delete" else pool
        real, calls = getattr(place, name), 0

        async def stopping(*arguments):
            nonlocal calls
            calls += 1
            if calls == int(ordinal):
                print("there", flush=True)
                await asyncio.Event().wait()
            return await real(*arguments)

        if place is store:
            store.delete = stopping
        else:
            used = {each: getattr(pool, each) for each in ("execute", "fetch", "acquire")}
            pool = SimpleNamespace(**used | {name: stopping})
        lifecycle = Lifecycle(pool, StatusPublisher(pool), settings)
        await Upkeep(pool, settings, lifecycle, store).run()

asyncio.run(main())
"""


@pytest.mark.parametrize("before", ["delete:1", "delete:3", "execute:2", "fetch:2"])
async def test_a_process_killed_between_two_steps_leaves_what_the_next_run_finishes(
    archives: Archive, dsn: str, before: str
) -> None:
    await fill(archives)
    in_files = isinstance(archives.store, ObjectStore)
    url = f"file://{archives.tmp_path}/audio" if in_files else "postgres"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        dsn,
        url,
        before,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while (said := await process.stdout.readline()) != b"there\n":
                assert said
    finally:
        process.kill()
        await process.wait()
    await archives.upkeep().run()
    await assert_settled(archives)


async def test_no_search_reads_a_table_from_end_to_end(archive: Archive) -> None:
    await archive.session("completed", 0)
    await archive.pool.execute(
        """
        INSERT INTO sessions (id, owner_id, title, file_name, audio_key, audio_type, size_bytes,
          sha256, status, stage, progress, last_status_id, created_at, finished_at)
        SELECT gen_random_uuid(), owner_id, 't', 'f',
          CASE WHEN k > 5000 THEN gen_random_uuid()::text END, 'audio/wav', 1, '', 'completed',
          'done', 100, 3, at, at
        FROM sessions, generate_series(1, 9000) AS k,
          LATERAL (SELECT now() - (9000 - k) * interval '1 hour' AS at) AS moment;
        INSERT INTO processing_status (session_id, id, prev_id, attempt, status, stage, progress,
          progress_kind, message, segments, timestamp)
        SELECT id, k, k - 1, 1, CASE k WHEN 3 THEN 'completed' ELSE 'processing' END, 'done', 100,
          'none', 'm', 0, finished_at
        FROM sessions, generate_series(1, 3) AS k ORDER BY finished_at ON CONFLICT DO NOTHING;
        INSERT INTO audio_chunks (audio_id, idx, data)
        SELECT audio_key::uuid, 0, 'x' FROM sessions WHERE audio_key IS NOT NULL;
        INSERT INTO logins (user_id, created_at, expires_at)
        SELECT owner_id, finished_at - interval '1 hour', finished_at FROM sessions;
        INSERT INTO idempotency_keys SELECT owner_id, id::text, id, '{}', finished_at FROM sessions;
        INSERT INTO transcription_runs (session_id, attempt, engine, host, audio_s, setup_s,
          wall_s, completed_at) SELECT id, 1, 'e', 'h', 1, 1, 1, finished_at FROM sessions;
        """
    )
    await archive.pool.execute("ANALYZE")
    searches = (
        (retention.STATUSES, 90 * DAYS, 1000),
        (retention.COMPLETED_AUDIO, 30 * DAYS, 100),
        (retention.UNFINISHED_AUDIO, 30 * DAYS, 100),
        (retention.SESSIONS, 30 * DAYS, 100),
        (retention.LOGINS, 30 * DAYS, 1000),
        (retention.IDEMPOTENCY_KEYS, 30 * DAYS, 1000),
        (retention.RUNS, 30 * DAYS, 1000),
    )
    async with archive.pool.acquire() as connection:
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {mode}")
            for statement, *arguments in searches:
                explained = f"EXPLAIN (ANALYZE, TIMING off) {statement}"
                rows = await connection.fetch(explained, *arguments)
                plan = "\n".join(row[0] for row in rows)
                assert "Seq Scan" not in plan, plan
                assert "Rows Removed" not in plan, plan


async def watched(pool: Pool, table: str) -> None:
    """Note how many rows of a table each statement deletes, in the table `deletions`."""
    await pool.execute(
        f"""
        CREATE TABLE deletions (id bigint GENERATED ALWAYS AS IDENTITY, rows int);
        CREATE FUNCTION note_deletion() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          INSERT INTO deletions (rows) SELECT count(*) FROM gone HAVING count(*) > 0; RETURN NULL;
        END $$;
        CREATE TRIGGER deletion AFTER DELETE ON {table} REFERENCING OLD TABLE AS gone
          FOR EACH STATEMENT EXECUTE FUNCTION note_deletion();
        """
    )


async def deletions(pool: Pool) -> list[int]:
    return [row["rows"] for row in await pool.fetch("SELECT rows FROM deletions ORDER BY id")]
