"""One attempt at one recording: claim it, recognise it chunk by chunk, and say how it goes.

The lease is held by a task of its own. Whatever takes the session away — a cancel, a delete,
another worker after a lost lease — shows there or at the next write, which then changes nothing,
and the attempt stops quietly.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import structlog

from jobs.database import CONNECT_ERRORS, Pool
from jobs.errors import AudioMissingError, JobError, JobTimedOut
from jobs.lifecycle import Lifecycle
from jobs.model import ProgressKind, Stage, Status, StatusUpdate
from jobs.progress import (
    LAST_RUNNING_PERCENT,
    SpeedMeter,
    completed_message,
    milestones_between,
    percent,
    transcribing_message,
)
from jobs.publisher import StatusPublisher
from jobs.recogniser import (
    AudioEnded,
    AudioOpened,
    ChunkDone,
    ChunkProgress,
    Event,
)
from jobs.recognisers import RecogniserPool
from jobs.sessions import Session, select_lease_held, update_lease
from jobs.settings import JobSettings
from jobs.storage import AudioStore

log = structlog.get_logger()

WATCH_INTERVAL_S = 1.0


class Fenced(Exception):
    """This attempt no longer has the session."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What an attempt works with."""

    pool: Pool
    settings: JobSettings
    publisher: StatusPublisher
    lifecycle: Lifecycle
    store: AudioStore
    recognisers: RecogniserPool
    owner: str
    stopping: asyncio.Event  # set when the process stops, and its work is to go on elsewhere


async def transcribe(
    shop: Workshop,
    session_id: UUID,
    attempt: int,
    *,
    keep_alive: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run one attempt to its end. Returns quietly when the attempt is stale or fenced out.

    `keep_alive` is called about as often as the lease is extended. When cancelled (the process
    stops), the session goes back to the queue and the cancellation is passed on.
    """
    engine = shop.recognisers.engine
    session = await shop.lifecycle.claim(session_id, attempt, shop.owner, engine)
    if session is None:
        log.info("attempt_stale", session_id=str(session_id), attempt=attempt)
        return
    context = {"session_id": str(session_id), "attempt": attempt}
    log.info("attempt_started", **context, resume_s=session.committed_s, engine=engine)
    try:
        async with _hold_lease(shop, session, keep_alive) as lease:
            await _recognise(shop, session, lease)
        log.info("attempt_completed", **context)
    except Fenced:
        log.info("attempt_fenced", **context)
    except asyncio.CancelledError:
        if shop.stopping.is_set():
            released = await asyncio.shield(_release(shop, session))
            log.info("attempt_released", **context, released=released)
        else:  # the queue's own time limit
            log.warning("attempt_timed_out", **context, timeout_s=shop.settings.job_timeout_s)
            late = JobTimedOut("The transcription took longer than it may.")
            await asyncio.shield(_give_up(shop, session, late))
        raise
    except JobError as error:
        log.warning(
            "attempt_failed", **context, code=error.code, error=str(error), exc_info=error.retryable
        )
        await _give_up(shop, session, error)
    except Exception as error:
        log.exception("attempt_broke", **context)
        await _give_up(shop, session, _unexpected(error))


async def _release(shop: Workshop, session: Session) -> bool:
    try:
        async with asyncio.timeout(3):
            return await shop.lifecycle.release(session.id, session.attempt, shop.owner)
    except (*CONNECT_ERRORS, TimeoutError):
        return False  # the lease will run out instead


async def _give_up(shop: Workshop, session: Session, error: JobError) -> None:
    if error.retryable:
        await shop.lifecycle.retry_after_failure(session.id, session.attempt, shop.owner, error)
    else:
        await shop.lifecycle.fail(session.id, session.attempt, shop.owner, error)


class UnexpectedError(JobError):
    """Something we did not foresee; it may pass."""

    code = "internal_error"
    retryable = True


def _unexpected(cause: Exception) -> UnexpectedError:
    error = UnexpectedError("Something unexpected went wrong on the server.")
    error.__cause__ = cause
    return error


@dataclass
class Lease:
    """The hold of one attempt on its session; `closing` once its last event is being written, after
    which the session is expected not to be held any more."""

    closing: bool = False


@asynccontextmanager
async def _hold_lease(
    shop: Workshop, session: Session, keep_alive: Callable[[], Awaitable[None]] | None
) -> AsyncIterator[Lease]:
    """Keep the lease while the block runs; raise Fenced in it when the lease is gone."""
    body = asyncio.current_task()
    assert body is not None  # noqa: S101 - an async function always runs in a task
    lease = Lease()
    fenced = False

    async def hold() -> None:
        nonlocal fenced
        await _until_lost(shop, session, keep_alive)
        if not lease.closing:
            fenced = True
            body.cancel()

    holder = asyncio.create_task(hold(), name=f"lease:{session.id}")
    try:
        yield lease
    except asyncio.CancelledError:
        if fenced and body.uncancel() == 0:
            raise Fenced from None
        raise
    finally:
        holder.cancel()
        await asyncio.wait([holder])


async def _until_lost(
    shop: Workshop, session: Session, keep_alive: Callable[[], Awaitable[None]] | None
) -> None:
    """Look at the session each second and extend the lease in time; returns once it is lost.

    An unreachable database is no loss in itself: after it returns, the row tells.
    """
    extend_every = shop.settings.lease_s / 4
    extended_at = time.monotonic()
    held = True
    while held:
        await asyncio.sleep(min(WATCH_INTERVAL_S, extend_every))
        try:
            if time.monotonic() - extended_at < extend_every:
                held = await select_lease_held(shop.pool, session.id, session.attempt, shop.owner)
                continue
            held = await update_lease(
                shop.pool, session.id, session.attempt, shop.owner, shop.settings.lease_s
            )
            extended_at = time.monotonic()
            if keep_alive is not None:
                await keep_alive()
        except CONNECT_ERRORS as error:
            log.warning("lease_unreachable", session_id=str(session.id), error=str(error))


async def _recognise(shop: Workshop, session: Session, lease: Lease) -> None:
    if session.audio_key is None:
        raise AudioMissingError("The recording is no longer stored.")
    source = await shop.store.open(session.audio_key)
    report = Report(shop, session, lease)
    async with shop.recognisers.borrow() as recogniser:
        events = recogniser.transcribe(
            source,
            start_s=session.committed_s,
            first_idx=session.segment_count,
            language=session.language,
        )
        async with aclosing(events):
            async for event in events:
                await report.tell(event)


@dataclass
class Report:
    """Turns what the recogniser does into status events: every milestone, otherwise no more than
    one in `status_interval_s`."""

    shop: Workshop
    session: Session
    lease: Lease
    total_s: float | None = None
    announced: int = 0
    pieces: int = 0
    published_at: float = 0.0
    started_at: float = field(default_factory=time.monotonic)
    meter: SpeedMeter = field(init=False)

    def __post_init__(self) -> None:
        self.total_s = self.session.duration_s
        self.announced = self.session.progress
        self.pieces = self.session.segment_count
        self.meter = SpeedMeter(self.started_at, self.session.committed_s)

    async def tell(self, event: Event) -> None:
        """Publish what there is to say of one event. Raises Fenced."""
        match event:
            case AudioOpened():
                await self.opened(event.info.duration_s)
            case ChunkProgress():
                await self.progressed(event.processed_s)
            case ChunkDone():
                await self.committed(event)
            case AudioEnded():
                await self.ended(event)

    async def opened(self, duration_s: float | None) -> None:
        """The recording is open; its length may be better known now."""
        if duration_s is not None:
            self.total_s = duration_s
        await self._publish(self.session.committed_s, self.announced)

    async def progressed(self, processed_s: float) -> None:
        """Recognised up to `processed_s`, not yet committed."""
        self.meter.advance(time.monotonic(), processed_s)
        await self._milestones(processed_s)
        if time.monotonic() - self.published_at >= self.shop.settings.status_interval_s:
            await self._publish(processed_s, percent(processed_s, self.total_s))

    async def committed(self, chunk: ChunkDone) -> None:
        """A chunk's segments, stored together with the event that announces them."""
        self.meter.advance(time.monotonic(), chunk.end_s)
        await self._milestones(chunk.end_s)
        await self._publish(chunk.end_s, percent(chunk.end_s, self.total_s), chunk)
        self.pieces += len(chunk.segments)

    async def ended(self, end: AudioEnded) -> None:
        """All of it is recognised and stored."""
        self.total_s = end.duration_s
        await self._milestones(end.duration_s)
        await self._publish(
            end.duration_s,
            LAST_RUNNING_PERCENT,
            stage=Stage.FINALIZING,
            message="Saving the transcript",
        )
        started = self.session.started_at
        wall_s = (datetime.now(UTC) - started).total_seconds() if started else 0.0
        done = StatusUpdate(
            Status.COMPLETED,
            Stage.DONE,
            completed_message(end.duration_s, wall_s, end.stated_duration_s, self.pieces),
            progress=100,
            duration_processed=end.duration_s,
            duration_total=end.duration_s,
            processing_speed=self.meter.speed or self.meter.mean,
        )
        self.lease.closing = True
        await self._write(done)

    async def _milestones(self, processed_s: float) -> None:
        for milestone in milestones_between(self.announced, percent(processed_s, self.total_s)):
            await self._publish(processed_s, milestone)

    async def _publish(
        self,
        processed_s: float,
        progress: int,
        chunk: ChunkDone | None = None,
        *,
        stage: Stage = Stage.TRANSCRIBING,
        message: str | None = None,
    ) -> None:
        update = StatusUpdate(
            Status.PROCESSING,
            stage,
            message or transcribing_message(processed_s, self.total_s),
            progress=progress,
            progress_kind=ProgressKind.NONE if self.total_s is None else ProgressKind.MEASURED,
            duration_processed=round(processed_s, 3),
            duration_total=self.total_s,
            estimated_completion=self.meter.completion(datetime.now(UTC), self.total_s),
            processing_speed=self.meter.speed,
        )
        await self._write(update, chunk)
        self.announced = max(self.announced, progress)
        self.published_at = time.monotonic()

    async def _write(self, update: StatusUpdate, chunk: ChunkDone | None = None) -> None:
        written = await self.shop.publisher.publish(
            self.session.id,
            self.session.attempt,
            update,
            lease_owner=self.shop.owner,
            segments=chunk.segments if chunk else (),
            committed_s=chunk.end_s if chunk else 0.0,
        )
        if written is None:
            raise Fenced
