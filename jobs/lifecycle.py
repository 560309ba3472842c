"""Every change of a session's status, each one transaction: the row, its event, and its job.

Races are settled by the session's row lock and the publisher's fence; losing one is a normal
return.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from uuid import UUID

import asyncpg
import structlog

from jobs.database import Connection, Pool
from jobs.errors import JobError, WorkerLost
from jobs.forecast import Pace
from jobs.model import (
    ErrorDetail,
    ProgressKind,
    Stage,
    Status,
    StatusMessage,
    StatusUpdate,
    status_channel,
)
from jobs.progress import clock, opening_message
from jobs.publisher import StatusPublisher
from jobs.queue import (
    PRIORITY_NORMAL,
    PRIORITY_RESUMED,
    PRIORITY_SHORT,
    delete_queued_jobs,
    insert_job,
    select_job_waiting,
)
from jobs.sessions import (
    NewSession,
    Session,
    delete_session,
    insert_session,
    select_session_for_update,
    update_claimed,
    update_requeued,
    update_restarted,
    update_told_position,
)
from jobs.settings import JobSettings
from jobs.turns import Turn, upsert_last_turn

log = structlog.get_logger()

DEADLOCK_TRIES = 3
PROMPT_INTERRUPTIONS = 2
MAX_INTERRUPTION_DELAY_S = 30.0
MAX_RETRY_DELAY_S = 600.0  # however many tries the settings allow
# Streams look into the table on this, find no session, and end.
NOTIFY_DELETED = "SELECT pg_notify($1, json_build_object('session_id', $2::text)::text)"

RESTART_MESSAGE = "Continuing after a restart"


class Outcome(Enum):
    """How a wish of the user went."""

    DONE = auto()
    WRONG_STATE = auto()
    NOT_FOUND = auto()


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The transitions over one database."""

    pool: Pool
    publisher: StatusPublisher
    settings: JobSettings

    async def create(
        self,
        new: NewSession,
        also: Callable[[Connection, Session], Awaitable[None]] | None = None,
    ) -> Session:
        """Session, first event and job, all or nothing; `also` is part of the same transaction."""
        async with self.pool.acquire() as connection, connection.transaction():
            await insert_session(connection, new)
            await self.publisher.publish(
                new.id,
                1,
                StatusUpdate(
                    Status.QUEUED,
                    Stage.QUEUED,
                    "Waiting for its turn",
                    progress_kind=_kind(new.duration_s),
                    duration_processed=0.0,
                    duration_total=new.duration_s,
                ),
                connection=connection,
            )
            await insert_job(
                connection,
                new.id,
                1,
                priority=self._priority(new.duration_s),
                timeout_s=self.settings.job_timeout_s,
            )
            session = await select_session_for_update(connection, new.id)
            assert session is not None  # noqa: S101 - inserted above, in this transaction
            if also is not None:
                await also(connection, session)
            return session

    async def claim(
        self, session_id: UUID, attempt: int, owner: str, engine: str, pace: Pace | None = None
    ) -> Session | None:
        """Begin an attempt: take the lease and say so, and when it will be done at this pace.

        None when the attempt is stale.
        """
        async with self.pool.acquire() as connection, connection.transaction():
            session = await update_claimed(
                connection, session_id, attempt, owner, self.settings.lease_s, engine
            )
            if session is None:
                return None
            await upsert_last_turn(connection, session.owner_id)
            sentence = opening_message(session.committed_s)
            await self.publisher.publish(
                session_id,
                attempt,
                replace(
                    _standing(session, Status.PROCESSING, Stage.DECODING, sentence),
                    estimated_completion=predicted_completion(session, pace),
                ),
                lease_owner=owner,
                connection=connection,
            )
            return session

    async def fail(
        self, session_id: UUID, attempt: int, owner: str | None, error: JobError
    ) -> StatusMessage | None:
        """The end, with its reason. None when another attempt has the session."""
        return await self.publisher.publish(
            session_id,
            attempt,
            StatusUpdate(
                Status.FAILED,
                Stage.DONE,
                f"Transcription failed: {error.message}",
                error=ErrorDetail(error.code, error.message),
            ),
            lease_owner=owner,
        )

    async def retry_after_failure(
        self, session_id: UUID, attempt: int, owner: str, error: JobError
    ) -> bool:
        """Queue another attempt after a fault that may pass, with growing delay, or fail for good.

        False when this attempt no longer has the session.
        """
        async with self.pool.acquire() as connection, connection.transaction():
            session = await select_session_for_update(connection, session_id)
            if session is None or not _held(session, attempt, owner):
                return False
            if session.failures + 1 < self.settings.max_attempts:
                delay_s = min(
                    MAX_RETRY_DELAY_S, self.settings.retry_delay_s * 2.0**session.failures
                )
                tries = f"try {session.failures + 2} of {self.settings.max_attempts}"
                await self._requeue(
                    connection,
                    session,
                    f"{error.message} Trying again ({tries})",
                    failed=True,
                    delay_s=delay_s,
                )
                return True
        last = after_tries(error, session.failures + 1, session.committed_s)
        return await self.fail(session_id, attempt, owner, last) is not None

    async def release(self, session_id: UUID, attempt: int, owner: str) -> bool:
        """Give a running session back, for another process to go on with at once."""
        async with self.pool.acquire() as connection, connection.transaction():
            session = await select_session_for_update(connection, session_id)
            if session is None or not _held(session, attempt, owner):
                return False
            await self._requeue(connection, session, RESTART_MESSAGE)
            return True

    async def interrupt(
        self, session_id: UUID, attempt: int, owner: str, error: JobError | None = None
    ) -> bool:
        """Queue a running session again that had to stop for no fault of its recording.

        It fails when that happens too often without new text, with `error` if there is one. False
        when this attempt no longer has the session.
        """
        async with self.pool.acquire() as connection, connection.transaction():
            session = await select_session_for_update(connection, session_id)
            if session is None or not _held(session, attempt, owner):
                return False
            await self._interrupted(connection, session, error)
            return True

    async def recover(self, session_id: UUID) -> bool:
        """Queue a session again whose worker, or whose job, was lost. False when it is not lost."""
        async with self.pool.acquire() as connection, connection.transaction():
            session = await select_session_for_update(connection, session_id)
            if session is None or session.status.terminal:
                return False
            if session.status is Status.PROCESSING:
                expired = await connection.fetchval(
                    "SELECT lease_until < now() FROM sessions WHERE id = $1", session_id
                )
                if not expired:
                    return False
                await self._interrupted(connection, session, None)
                return True
            if await select_job_waiting(connection, session_id, session.attempt):
                return False
            await self._requeue(connection, session, "Waiting for its turn")
            return True

    async def tell_position(
        self, turn: Turn, position: int, sentence: str, completion: datetime | None
    ) -> bool:
        """Say a new place in the queue. False when it waits no longer, or was told one meanwhile:
        by a process that may have looked later."""
        async with self.pool.acquire() as connection, connection.transaction():
            session = await update_told_position(
                connection, turn.session_id, turn.attempt, position, turn.told_position
            )
            if session is None:
                return False
            update = _standing(session, Status.QUEUED, Stage.QUEUED, sentence)
            await self.publisher.publish(
                session.id,
                session.attempt,
                replace(update, estimated_completion=completion),
                connection=connection,
            )
            return True

    async def cancel(self, session_id: UUID) -> Outcome:
        """Stop a queued or running session for good; text committed so far stays."""
        async with self.pool.acquire() as connection, connection.transaction():
            session = await select_session_for_update(connection, session_id)
            if session is None:
                return Outcome.NOT_FOUND
            if session.status is Status.CANCELLED:
                return Outcome.DONE
            if session.status.terminal:
                return Outcome.WRONG_STATE
            sentence = "Cancelled"
            if session.committed_s > 0:
                sentence += f"; the transcript of the first {clock(session.committed_s)} is kept"
            await self.publisher.publish(
                session_id,
                session.attempt,
                _standing(session, Status.CANCELLED, Stage.DONE, sentence),
                connection=connection,
            )
            await delete_queued_jobs(connection, session_id)
            return Outcome.DONE

    async def restart(self, session_id: UUID) -> Outcome:
        """Queue a failed or cancelled session again; it goes on after its committed text."""
        async with self.pool.acquire() as connection, connection.transaction():
            session = await select_session_for_update(connection, session_id)
            if session is None:
                return Outcome.NOT_FOUND
            if session.status not in {Status.FAILED, Status.CANCELLED} or not session.audio_key:
                return Outcome.WRONG_STATE
            attempt = await update_restarted(connection, session_id)
            await self._announce_queued(connection, session, attempt, "Waiting for its turn again")
            await insert_job(
                connection,
                session_id,
                attempt,
                priority=self._priority(session.duration_s),
                timeout_s=self.settings.job_timeout_s,
            )
            return Outcome.DONE

    async def delete(self, session_id: UUID, *, at_event: int | None = None) -> Session | None:
        """Remove a session in any state; what it was is returned, for its audio to be deleted.

        With `at_event` only while this is its newest event, else None.
        """
        for _ in range(DEADLOCK_TRIES):
            try:
                return await self._delete(session_id, at_event)
            except asyncpg.DeadlockDetectedError:  # with what refers to it, and is written just now
                log.info("delete_again", session_id=str(session_id))
        return await self._delete(session_id, at_event)

    async def _delete(self, session_id: UUID, at_event: int | None) -> Session | None:
        async with self.pool.acquire() as connection, connection.transaction():
            session = await select_session_for_update(connection, session_id)
            if session is None or at_event not in {None, session.last_status_id}:
                return None
            await delete_queued_jobs(connection, session_id)
            await delete_session(connection, session_id)
            await connection.execute(NOTIFY_DELETED, status_channel(session_id), str(session_id))
            return session

    def _priority(self, duration_s: float | None) -> int:
        """Of a recording that has not been begun."""
        short = duration_s is not None and 0 < duration_s <= self.settings.short_audio_s
        return PRIORITY_SHORT if short else PRIORITY_NORMAL

    async def _requeue(
        self,
        connection: Connection,
        session: Session,
        message: str,
        *,
        failed: bool = False,
        interrupted: bool = False,
        delay_s: float = 0.0,
    ) -> None:
        attempt = await update_requeued(
            connection, session.id, failed=failed, interrupted=interrupted
        )
        await self._announce_queued(connection, session, attempt, message)
        await insert_job(
            connection,
            session.id,
            attempt,
            priority=PRIORITY_RESUMED,
            delay_s=delay_s,
            timeout_s=self.settings.job_timeout_s,
        )

    async def _interrupted(
        self, connection: Connection, session: Session, error: JobError | None
    ) -> None:
        if session.interruptions + 1 < self.settings.max_interruptions:
            await self._requeue(
                connection,
                session,
                f"{error.message} Trying again" if error else RESTART_MESSAGE,
                interrupted=True,
                delay_s=interruption_delay_s(session.interruptions, self.settings.retry_delay_s),
            )
            return
        error = error or WorkerLost("The worker was lost again and again at the same place.")
        await self.publisher.publish(
            session.id,
            session.attempt,
            StatusUpdate(
                Status.FAILED,
                Stage.DONE,
                f"Transcription failed: {error.message}",
                duration_processed=session.committed_s,
                error=ErrorDetail(error.code, error.message),
            ),
            connection=connection,
        )

    async def _announce_queued(
        self, connection: Connection, session: Session, attempt: int, message: str
    ) -> None:
        await self.publisher.publish(
            session.id,
            attempt,
            _standing(session, Status.QUEUED, Stage.QUEUED, message),
            connection=connection,
        )


def after_tries(error: JobError, tries: int, committed_s: float) -> JobError:
    """The same error, which also says where all those tries ended."""
    if tries == 1:
        return error
    place = f"after {clock(committed_s)}" if committed_s > 0 else "at the beginning"
    return type(error)(
        f"{error.message} {tries} tries failed at the same place, {place} of the recording."
    )


def interruption_delay_s(interruptions: int, retry_delay_s: float) -> float:
    """How long to wait after so many interruptions in a row: not at all after the first ones, then
    longer and longer, since what takes its worker down each time should not do so all the time."""
    doublings = interruptions - PROMPT_INTERRUPTIONS
    return 0.0 if doublings < 0 else min(MAX_INTERRUPTION_DELAY_S, retry_delay_s * 2**doublings)


def predicted_completion(session: Session, pace: Pace | None) -> datetime | None:
    """When a session that was just claimed will be done; None without ground."""
    if pace is None or session.duration_s is None or session.worker_seen_at is None:
        return None
    work_s = pace.work_s(max(0.0, session.duration_s - session.committed_s))
    return session.worker_seen_at + timedelta(seconds=work_s)


def _held(session: Session, attempt: int, owner: str) -> bool:
    return (
        session.status is Status.PROCESSING
        and session.attempt == attempt
        and session.lease_owner == owner
    )


def _standing(session: Session, status: Status, stage: Stage, message: str) -> StatusUpdate:
    """A change of status of a session that stands at its committed text."""
    return StatusUpdate(
        status,
        stage,
        message,
        progress_kind=_kind(session.duration_s),
        duration_processed=session.committed_s,
    )


def _kind(duration_s: float | None) -> ProgressKind:
    return ProgressKind.NONE if duration_s is None else ProgressKind.MEASURED
