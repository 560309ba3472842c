"""The one statement that publishes, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from jobs.database import Connection, Pool
from jobs.errors import EngineError, RecogniserCrashed
from jobs.lifecycle import Lifecycle, Outcome
from jobs.model import (
    ErrorDetail,
    ProgressKind,
    Role,
    Segment,
    Stage,
    Status,
    StatusMessage,
    StatusUpdate,
    Word,
    status_channel,
)
from jobs.publisher import MAX_PAYLOAD_BYTES, StatusPublisher
from jobs.segments import select_segments
from jobs.statuses import select_latest_status, select_statuses_after
from quartapp.settings import WebSettings
from tests.people import make_user, new_session

WORKING = StatusUpdate(Status.PROCESSING, Stage.TRANSCRIBING, "Transcribing…", progress=10)


@pytest.fixture
def publisher(pool: Pool) -> StatusPublisher:
    return StatusPublisher(pool)


@pytest.fixture
def lifecycle(pool: Pool, publisher: StatusPublisher, settings: WebSettings) -> Lifecycle:
    return Lifecycle(pool, publisher, settings)


@pytest.fixture
async def session_id(pool: Pool, lifecycle: Lifecycle) -> UUID:
    session = await lifecycle.create(new_session(await make_user(pool)))
    return session.id


@pytest.fixture
async def heard(dsn: str, session_id: UUID) -> AsyncIterator[asyncio.Queue[str]]:
    """What any client hears on the session's channel."""
    payloads: asyncio.Queue[str] = asyncio.Queue()
    connection = await asyncpg.connect(dsn)

    def hear(_: object, __: int, ___: str, payload: object) -> None:
        payloads.put_nowait(str(payload))

    await connection.add_listener(status_channel(session_id), hear)
    yield payloads
    await connection.close()


@pytest.mark.criterion("AC-1.2.1")
@pytest.mark.criterion("SH-2")
async def test_row_notification_and_return_value_are_the_same_message(
    pool: Pool, publisher: StatusPublisher, session_id: UUID, heard: asyncio.Queue[str]
) -> None:
    message = await publisher.publish(session_id, 1, WORKING)
    assert message is not None
    assert await asyncio.wait_for(heard.get(), 5) == message.text
    assert await select_latest_status(pool, session_id) == message


@pytest.mark.criterion("AC-1.2.3")
async def test_a_message_carries_every_field_in_the_agreed_form(
    publisher: StatusPublisher, session_id: UUID
) -> None:
    message = await publisher.publish(session_id, 1, WORKING)
    assert message is not None
    fields = message.fields()
    assert list(fields) == [
        "session_id",
        "id",
        "prev_id",
        "attempt",
        "status",
        "stage",
        "progress",
        "progress_kind",
        "message",
        "timestamp",
        "duration_processed",
        "duration_total",
        "estimated_completion",
        "processing_speed",
        "segments",
        "error",
    ]
    assert fields["session_id"] == str(session_id)
    assert fields["duration_total"] == 60.0
    assert fields["estimated_completion"] is None
    assert fields["timestamp"].endswith("Z")
    assert len(fields["timestamp"]) == len("2026-01-15T10:30:00.123Z")


@pytest.mark.criterion("AC-1.2.4")
def test_channels_are_named_after_the_session_and_fit() -> None:
    session_id = uuid4()
    channel = status_channel(session_id)
    assert channel == f"transcription:status:{session_id}"
    assert len(channel.encode()) <= 63


async def test_ids_rise_strictly_and_read_as_the_time(
    pool: Pool, publisher: StatusPublisher, session_id: UUID
) -> None:
    await asyncio.gather(*(publisher.publish(session_id, 1, WORKING) for _ in range(50)))
    history = await select_statuses_after(pool, session_id, 0, 100)
    ids = [message.id for message in history]
    assert ids == sorted(set(ids))
    assert [message.prev_id for message in history] == [0, *ids[:-1]]
    now_us = await pool.fetchval("SELECT extract(epoch FROM now()) * 1000000")
    assert 0 <= now_us - ids[-1] < 60_000_000
    assert ids[-1] < 2**53


async def test_ids_rise_even_when_the_clock_stands_behind(
    pool: Pool, publisher: StatusPublisher, session_id: UUID
) -> None:
    future = 2**52
    await pool.execute("UPDATE sessions SET last_status_id = $2 WHERE id = $1", session_id, future)
    message = await publisher.publish(session_id, 1, WORKING)
    assert message is not None
    assert (message.prev_id, message.id) == (future, future + 1)


async def test_progress_never_falls(publisher: StatusPublisher, session_id: UUID) -> None:
    high = await publisher.publish(
        session_id, 1, StatusUpdate(Status.PROCESSING, Stage.TRANSCRIBING, "…", progress=60)
    )
    low = await publisher.publish(session_id, 1, WORKING)
    assert high is not None
    assert low is not None
    assert (high.progress, low.progress) == (60, 60)


async def test_a_stale_attempt_writes_nothing(
    pool: Pool, publisher: StatusPublisher, session_id: UUID
) -> None:
    await pool.execute("UPDATE sessions SET attempt = 2 WHERE id = $1", session_id)
    before = await select_statuses_after(pool, session_id, 0, 10)
    piece = Segment(0, 0.0, 1.0, "late")
    assert await publisher.publish(session_id, 1, WORKING, segments=[piece]) is None
    assert await select_statuses_after(pool, session_id, 0, 10) == before
    assert await select_segments(pool, session_id) == []


async def test_another_lease_owner_writes_nothing(
    lifecycle: Lifecycle, publisher: StatusPublisher, session_id: UUID
) -> None:
    assert await lifecycle.claim(session_id, 1, "me", "engine") is not None
    assert await publisher.publish(session_id, 1, WORKING, lease_owner="other") is None
    assert await publisher.publish(session_id, 1, WORKING, lease_owner="me") is not None


@pytest.mark.parametrize("end", [Status.COMPLETED, Status.CANCELLED, Status.FAILED])
async def test_nothing_follows_a_terminal_event(
    publisher: StatusPublisher, session_id: UUID, end: Status
) -> None:
    error = ErrorDetail("x", "why") if end is Status.FAILED else None
    last = StatusUpdate(end, Stage.DONE, "over", progress=100, error=error)
    assert await publisher.publish(session_id, 1, last) is not None
    assert await publisher.publish(session_id, 1, WORKING) is None
    assert await publisher.publish(session_id, 1, last) is None


@pytest.mark.criterion("AC-1.3.3")
async def test_a_failure_is_broadcast_with_code_and_sentence(
    publisher: StatusPublisher, lifecycle: Lifecycle, session_id: UUID, heard: asyncio.Queue[str]
) -> None:
    await lifecycle.fail(session_id, 1, None, EngineError("The engine is out of words."))
    fields = json.loads(await asyncio.wait_for(heard.get(), 5))
    assert fields["status"] == "failed"
    assert fields["error"] == {
        "code": "engine_failed",
        "message": "The engine is out of words.",
    }


async def test_segments_and_their_event_are_stored_together(
    pool: Pool, publisher: StatusPublisher, session_id: UUID
) -> None:
    pieces = [
        Segment(
            0, 0.0, 1.5, 'he said "no"', (Word("he", 0.0, 0.4, 0.9), Word("said", 0.5, 1, None))
        ),
        Segment(1, 1.5, 3.0, "naïve – 语音"),
    ]
    message = await publisher.publish(session_id, 1, WORKING, segments=pieces, committed_s=3.0)
    assert message is not None
    assert message.fields()["segments"] == 2
    assert await select_segments(pool, session_id) == pieces
    brought = await pool.fetch(
        "SELECT DISTINCT status_id FROM transcript_segments WHERE session_id = $1", session_id
    )
    assert [row[0] for row in brought] == [message.id]
    committed = await pool.fetchval("SELECT committed_s FROM sessions WHERE id = $1", session_id)
    assert committed == 3.0


async def test_a_message_too_long_for_a_notification_goes_as_ids(
    pool: Pool, publisher: StatusPublisher, session_id: UUID, heard: asyncio.Queue[str]
) -> None:
    long = StatusUpdate(Status.PROCESSING, Stage.TRANSCRIBING, "é" * MAX_PAYLOAD_BYTES)
    message = await publisher.publish(session_id, 1, long)
    assert message is not None
    payload = json.loads(await asyncio.wait_for(heard.get(), 5))
    assert payload == {
        "session_id": str(session_id),
        "id": message.id,
        "prev_id": message.prev_id,
    }
    assert await select_latest_status(pool, session_id) == message


async def test_part_of_a_transaction_that_rolls_back_is_never_heard(
    pool: Pool, publisher: StatusPublisher, session_id: UUID, heard: asyncio.Queue[str]
) -> None:
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert await publisher.publish(session_id, 1, WORKING, connection=connection) is not None
        await transaction.rollback()
    message = await publisher.publish(session_id, 1, WORKING)
    assert message is not None
    assert json.loads(await asyncio.wait_for(heard.get(), 5))["id"] == message.id


async def test_enums_and_schema_say_the_same(pool: Pool) -> None:
    constraints = await pool.fetch(
        "SELECT conrelid::regclass::text AS table, pg_get_constraintdef(oid) AS definition "
        "FROM pg_constraint WHERE contype = 'c' AND conrelid::regclass::text IN "
        "('sessions', 'processing_status', 'users')"
    )
    definitions = [(row["table"], row["definition"]) for row in constraints]

    def allowed(table: str, column: str) -> set[str]:
        (definition,) = [
            text for name, text in definitions if name == table and f"(({column} = ANY" in text
        ]
        return {piece.split("'")[1] for piece in definition.split("::text")[:-1] if "'" in piece}

    for table in ("sessions", "processing_status"):
        assert allowed(table, "status") == {status.value for status in Status}
        assert allowed(table, "stage") == {stage.value for stage in Stage}
    assert allowed("processing_status", "progress_kind") == {kind.value for kind in ProgressKind}
    assert allowed("users", "role") == {role.value for role in Role}


async def test_history_is_paged_from_the_cursor(
    pool: Pool, publisher: StatusPublisher, session_id: UUID
) -> None:
    written: list[StatusMessage] = await select_statuses_after(pool, session_id, 0, 1)
    for _ in range(5):
        message = await publisher.publish(session_id, 1, WORKING)
        assert message is not None
        written.append(message)
    assert await select_statuses_after(pool, session_id, written[1].id, 2) == written[2:4]
    assert await select_statuses_after(pool, session_id, written[-1].id, 2) == []


class TestLifecycle:
    """Transitions, and what the losers of a race see."""

    async def test_creation_is_all_or_nothing(self, pool: Pool, lifecycle: Lifecycle) -> None:
        async def refuse(_: Connection, __: object) -> None:
            raise RuntimeError("no")

        new = new_session(await make_user(pool))
        with pytest.raises(RuntimeError):
            await lifecycle.create(new, refuse)
        for table in ("sessions", "processing_status", "saq_jobs"):
            assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0

    async def test_an_attempt_is_claimed_once(self, lifecycle: Lifecycle, session_id: UUID) -> None:
        claims = await asyncio.gather(
            *(lifecycle.claim(session_id, 1, f"worker-{n}", "engine") for n in range(5))
        )
        assert sum(claim is not None for claim in claims) == 1

    async def test_a_released_session_goes_on_under_a_new_attempt(
        self, pool: Pool, lifecycle: Lifecycle, publisher: StatusPublisher, session_id: UUID
    ) -> None:
        await lifecycle.claim(session_id, 1, "first", "engine")
        piece = Segment(0, 0.0, 20.0, "words")
        await publisher.publish(
            session_id, 1, WORKING, lease_owner="first", segments=[piece], committed_s=20.0
        )
        assert await lifecycle.release(session_id, 1, "first")
        latest = await select_latest_status(pool, session_id)
        assert latest is not None
        assert latest.fields()["status"] == "queued"
        assert latest.fields()["message"] == "Continuing after a restart"
        claim = await lifecycle.claim(session_id, 2, "second", "engine")
        assert claim is not None
        assert (claim.committed_s, claim.segment_count) == (20.0, 1)

    @pytest.mark.criterion("AC-1.3.6")
    async def test_faults_that_may_pass_are_tried_again_then_given_up(
        self, pool: Pool, lifecycle: Lifecycle, session_id: UUID
    ) -> None:
        error = EngineError("The engine hiccuped.")
        for attempt in (1, 2, 3):
            assert await lifecycle.claim(session_id, attempt, "me", "engine") is not None
            assert await lifecycle.retry_after_failure(session_id, attempt, "me", error)
        messages = [
            (m.fields()["status"], m.fields()["message"], m.fields()["attempt"])
            for m in await select_statuses_after(pool, session_id, 0, 100)
            if m.fields()["stage"] in {"queued", "done"}
        ]
        assert messages == [
            ("queued", "Waiting for its turn", 1),
            ("queued", "The engine hiccuped. Trying again (try 2 of 3)", 2),
            ("queued", "The engine hiccuped. Trying again (try 3 of 3)", 3),
            (
                "failed",
                "Transcription failed: The engine hiccuped. "
                "3 tries failed at the same place, at the beginning of the recording.",
                3,
            ),
        ]

    async def test_given_up_after_some_text_it_says_where_in_the_recording(
        self, pool: Pool, lifecycle: Lifecycle, publisher: StatusPublisher, session_id: UUID
    ) -> None:
        assert await lifecycle.claim(session_id, 1, "me", "engine") is not None
        piece = Segment(0, 0.0, 95.0, "words")
        await publisher.publish(session_id, 1, WORKING, segments=[piece], committed_s=95.0)
        await pool.execute("UPDATE sessions SET failures = 2")
        error = RecogniserCrashed("The speech recogniser crashed (SIGSEGV).")
        assert await lifecycle.retry_after_failure(session_id, 1, "me", error)
        latest = await select_latest_status(pool, session_id)
        assert latest is not None
        assert latest.fields()["error"] == {
            "code": "recogniser_crashed",
            "message": "The speech recogniser crashed (SIGSEGV). "
            "3 tries failed at the same place, after 1:35 of the recording.",
        }

    async def test_new_text_clears_the_record_of_failures(
        self, pool: Pool, lifecycle: Lifecycle, publisher: StatusPublisher, session_id: UUID
    ) -> None:
        await pool.execute("UPDATE sessions SET failures = 2, interruptions = 5")
        await publisher.publish(session_id, 1, WORKING)
        record = "SELECT failures, interruptions FROM sessions"
        assert tuple(await pool.fetchrow(record) or ()) == (2, 5)
        piece = Segment(0, 0.0, 20.0, "words")
        await publisher.publish(session_id, 1, WORKING, segments=[piece], committed_s=20.0)
        assert tuple(await pool.fetchrow(record) or ()) == (0, 0)

    async def test_cancel_wins_over_a_worker_that_is_still_writing(
        self, pool: Pool, lifecycle: Lifecycle, publisher: StatusPublisher, session_id: UUID
    ) -> None:
        await lifecycle.claim(session_id, 1, "me", "engine")
        assert await lifecycle.cancel(session_id) is Outcome.DONE
        assert await publisher.publish(session_id, 1, WORKING, lease_owner="me") is None
        assert await lifecycle.cancel(session_id) is Outcome.DONE
        jobs = await pool.fetchval("SELECT count(*) FROM saq_jobs WHERE status = 'queued'")
        assert jobs == 0

    async def test_only_what_failed_or_was_cancelled_is_restarted(
        self, lifecycle: Lifecycle, session_id: UUID
    ) -> None:
        assert await lifecycle.restart(session_id) is Outcome.WRONG_STATE
        await lifecycle.cancel(session_id)
        assert await lifecycle.restart(session_id) is Outcome.DONE
        assert await lifecycle.claim(session_id, 2, "me", "engine") is not None
        assert await lifecycle.restart(uuid4()) is Outcome.NOT_FOUND

    async def test_a_lost_lease_is_recovered_once(
        self, pool: Pool, lifecycle: Lifecycle, session_id: UUID
    ) -> None:
        await lifecycle.claim(session_id, 1, "gone", "engine")
        assert not await lifecycle.recover(session_id)
        await pool.execute(
            "UPDATE sessions SET lease_until = now() - interval '1 s' WHERE id = $1", session_id
        )
        assert await lifecycle.recover(session_id)
        assert await lifecycle.claim(session_id, 1, "gone", "engine") is None
        assert await lifecycle.claim(session_id, 2, "new", "engine") is not None

    async def test_a_session_that_loses_every_worker_fails_in_the_end(
        self, pool: Pool, lifecycle: Lifecycle, session_id: UUID, settings: WebSettings
    ) -> None:
        for attempt in range(1, settings.max_interruptions + 1):
            await lifecycle.claim(session_id, attempt, "gone", "engine")
            await pool.execute(
                "UPDATE sessions SET lease_until = now() - interval '1 s' WHERE id = $1",
                session_id,
            )
            assert await lifecycle.recover(session_id)
        latest = await select_latest_status(pool, session_id)
        assert latest is not None
        assert latest.fields()["error"]["code"] == "worker_lost"
        assert not await lifecycle.recover(session_id)
