"""What an attempt says of itself: the recogniser's events in, status events out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from jobs.attempt import Fenced, Workshop
from jobs.completion import CompletionEstimate
from jobs.database import CONNECT_ERRORS
from jobs.forecast import Pace
from jobs.lease import Lease
from jobs.model import ProgressKind, Stage, Status, StatusUpdate
from jobs.progress import (
    LAST_RUNNING_PERCENT,
    completed_message,
    milestones_between,
    opening_message,
    percent,
    quiet_message,
    transcribing_message,
)
from jobs.recogniser import AudioEnded, AudioOpened, ChunkDone, ChunkProgress, Event
from jobs.sessions import Session
from jobs.speed import SpeedMeter

log = structlog.get_logger()


@dataclass
class Report:
    """Turns what the recogniser does into status events: every milestone, otherwise no more than
    one in `status_interval_s`. To be made right after the claim. `pace` is that of past runs, if
    there is ground for one."""

    shop: Workshop
    session: Session
    lease: Lease
    pace: Pace | None = None
    total_s: float | None = None
    reached_s: float = 0.0
    announced: int = 0
    pieces: int = 0
    opened: bool = False
    measuring: bool = False
    published_at: float = 0.0
    made_at: float = field(default_factory=time.monotonic)
    moved_at: float = field(init=False)
    meter: SpeedMeter = field(init=False)
    estimate: CompletionEstimate = field(init=False)

    def __post_init__(self) -> None:
        self.moved_at = self.made_at
        self.total_s = self.session.duration_s
        self.reached_s = self.session.committed_s
        self.announced = self.session.progress
        self.pieces = self.session.segment_count
        expected = 1 / self.pace.per_audio_s if self.pace and self.pace.per_audio_s else None
        self.meter = SpeedMeter(self.moved_at, self.reached_s)
        self.estimate = CompletionEstimate(self.moved_at, self.reached_s, expected)

    async def tell(self, event: Event) -> None:
        """Publish what there is to say of one event. Raises Fenced."""
        self.moved_at = time.monotonic()
        match event:
            case AudioOpened():
                await self._opened(event.info.duration_s)
            case ChunkProgress():
                await self._progressed(event.processed_s)
            case ChunkDone():
                await self._committed(event)
            case AudioEnded():
                await self._ended(event)

    async def tell_quiet(self) -> None:
        """Say that nothing moves; when it will be done cannot be said then. Raises Fenced."""
        for_s = time.monotonic() - self.moved_at
        await self._write(self._update(self.announced, quiet_message(self._sentence(), for_s)))

    async def _opened(self, duration_s: float | None) -> None:
        """The recording is open; its length may be better known now."""
        if duration_s is not None:
            self.total_s = duration_s
        self.opened = True
        self._measure_anew()
        await self._publish(self.announced)

    async def _progressed(self, processed_s: float) -> None:
        """Recognised up to `processed_s`, not yet committed."""
        self.reached_s = processed_s
        if self.measuring:
            self.meter.advance(self.moved_at, processed_s)
            self.estimate.advance(self.moved_at, processed_s)
        else:  # an engine that tells of its first words: what was before was preparation
            self.measuring = True
            self._measure_anew()
        await self._milestones()
        if time.monotonic() - self.published_at >= self.shop.settings.status_interval_s:
            await self._publish(percent(processed_s, self.total_s))

    async def _committed(self, chunk: ChunkDone) -> None:
        """A chunk's segments, stored together with the event that announces them."""
        self.reached_s = chunk.end_s
        self.measuring = True
        self.meter.advance(self.moved_at, chunk.end_s)
        self.estimate.commit(self.moved_at, chunk.end_s)
        await self._milestones()
        await self._publish(percent(chunk.end_s, self.total_s), chunk)
        self.pieces += len(chunk.segments)

    async def _ended(self, end: AudioEnded) -> None:
        """All of it is recognised and stored."""
        self.total_s = self.reached_s = end.duration_s
        await self._milestones()
        saving = self._update(LAST_RUNNING_PERCENT, "Saving the transcript", Stage.FINALIZING)
        await self._write(saving)
        started = self.session.started_at
        wall_s = (self._now() - started).total_seconds() if started else 0.0
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

    def _measure_anew(self) -> None:
        self.meter.start_over(self.moved_at, self.reached_s)
        self.estimate.start_over(self.moved_at, self.reached_s)

    async def _milestones(self) -> None:
        for milestone in milestones_between(self.announced, percent(self.reached_s, self.total_s)):
            await self._publish(milestone)

    async def _publish(self, progress: int, chunk: ChunkDone | None = None) -> None:
        completion = self.estimate.at(self._now(), self.total_s)
        await self._write(self._update(progress, self._sentence(), completion=completion), chunk)
        self.announced = max(self.announced, progress)
        self.published_at = time.monotonic()

    def _now(self) -> datetime:
        """By the database's clock, as all other times of the session are."""
        claimed_at = self.session.worker_seen_at or datetime.now(UTC)
        return claimed_at + timedelta(seconds=time.monotonic() - self.made_at)

    def _sentence(self) -> str:
        if not self.opened:
            return opening_message(self.session.committed_s)
        return transcribing_message(self.reached_s, self.total_s)

    def _update(
        self,
        progress: int,
        message: str,
        stage: Stage | None = None,
        completion: datetime | None = None,
    ) -> StatusUpdate:
        return StatusUpdate(
            Status.PROCESSING,
            stage or (Stage.TRANSCRIBING if self.opened else Stage.DECODING),
            message,
            progress=progress,
            progress_kind=ProgressKind.NONE if self.total_s is None else ProgressKind.MEASURED,
            duration_processed=round(self.reached_s, 3),
            duration_total=self.total_s,
            estimated_completion=completion,
            processing_speed=self.meter.speed,
        )

    async def _write(self, update: StatusUpdate, chunk: ChunkDone | None = None) -> None:
        written = await self.shop.publisher.publish(
            self.session.id,
            self.session.attempt,
            update,
            lease_owner=self.shop.owner,
            segments=chunk.segments if chunk else (),
            committed_s=chunk.end_s if chunk else 0.0,
            language=chunk.language if chunk else None,
        )
        if written is None:
            raise Fenced


@asynccontextmanager
async def telling_when_quiet(report: Report) -> AsyncIterator[None]:
    """While the block runs, say when progress stands still: a hanging page would look the same."""

    async def watch() -> None:
        quiet_s = report.shop.settings.quiet_s
        told_at = 0.0
        while True:
            due_at = max(report.moved_at, told_at) + quiet_s
            await asyncio.sleep(due_at - time.monotonic())
            if max(report.moved_at, told_at) + quiet_s > time.monotonic():
                continue
            told_at = time.monotonic()
            try:
                await report.tell_quiet()
            except Fenced:
                return  # the holder of the lease ends the attempt
            except CONNECT_ERRORS as error:
                log.warning("quiet_not_told", session_id=str(report.session.id), error=str(error))

    watcher = asyncio.create_task(watch(), name=f"quiet:{report.session.id}")
    try:
        yield
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])
