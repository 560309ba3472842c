"""One attempt at one recording: claim it, recognise it chunk by chunk, and say how it goes.

Whatever takes the session away — a cancel, a delete, another worker after a lost lease — shows to
the holder of the lease or at the next write, which then changes nothing, and the attempt stops
quietly.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from datetime import datetime
from uuid import UUID

import structlog

from jobs.attempt import Fenced, Workshop
from jobs.database import AWAY_ERRORS, CONNECT_ERRORS
from jobs.errors import AudioMissingError, JobError, JobTimedOut
from jobs.forecast import Pace, Run
from jobs.lease import Lease, held_lease
from jobs.lifecycle import predicted_completion
from jobs.report import Report, telling_when_quiet
from jobs.runs import insert_run, select_pace
from jobs.sessions import Session

log = structlog.get_logger()

LOOK_AGAIN_S = 0.5


async def transcribe(shop: Workshop, session_id: UUID, attempt: int) -> None:
    """Run one attempt to its end. Returns quietly when the attempt is stale or fenced out.

    When cancelled (the process stops), the session goes back to the queue and the cancellation is
    passed on.
    """
    engine = shop.recognisers.engine
    started = time.monotonic()
    pace = await select_pace(shop.pool, engine, shop.host)
    session = await shop.lifecycle.claim(session_id, attempt, shop.owner, engine, pace)
    if session is None:
        log.info("attempt_stale", session_id=str(session_id), attempt=attempt)
        return
    predicted = predicted_completion(session, pace)
    context = {"session_id": str(session_id), "attempt": attempt}
    log.info("attempt_started", **context, resume_s=session.committed_s, engine=engine)
    try:
        async with held_lease(shop, session) as lease:
            report = await _recognise(shop, session, lease, pace)
        log.info("attempt_completed", **context)
        await _record(shop, report, started, predicted)
    except Fenced:
        log.info("attempt_fenced", **context)
    except asyncio.CancelledError:
        if shop.stopping.is_set():
            released = await asyncio.shield(_release(shop, session))
            log.info("attempt_released", **context, released=released)
        else:  # by the queue: at its time limit, or because it has broken
            late = _late(time.monotonic() - started, shop.settings.job_timeout_s)
            log.warning("attempt_cancelled", **context, timed_out=late is not None)
            await asyncio.shield(_hand_on(shop, session, late))
        raise
    except JobError as error:
        log.warning(
            "attempt_failed", **context, code=error.code, error=str(error), exc_info=error.retryable
        )
        await _hand_on(shop, session, error)
    except AWAY_ERRORS as error:
        log.warning("attempt_lost_database", **context, error=str(error))
        await _hand_on(shop, session, None)
    except Exception as error:
        log.exception("attempt_broke", **context)
        await _hand_on(shop, session, _unexpected(error))


async def _release(shop: Workshop, session: Session) -> bool:
    try:
        async with asyncio.timeout(3):
            return await shop.lifecycle.release(session.id, session.attempt, shop.owner)
    except (*CONNECT_ERRORS, TimeoutError):
        return False  # the lease will run out instead


async def _hand_on(shop: Workshop, session: Session, error: JobError | None) -> None:
    """End the attempt, for no fault of the recording without `error`: as soon as the database
    answers, at the latest when the lease has run out. From then on it is others that do it."""
    give_up_at = time.monotonic() + shop.settings.lease_s
    while time.monotonic() < give_up_at:
        try:
            await _give_up(shop, session, error)
        except CONNECT_ERRORS as away:
            log.warning("attempt_not_handed_on", session_id=str(session.id), error=str(away))
            await asyncio.sleep(LOOK_AGAIN_S)
        else:
            return


async def _give_up(shop: Workshop, session: Session, error: JobError | None) -> None:
    if error is None or error.passing:
        await shop.lifecycle.interrupt(session.id, session.attempt, shop.owner, error)
    elif error.retryable:
        await shop.lifecycle.retry_after_failure(session.id, session.attempt, shop.owner, error)
    else:
        await shop.lifecycle.fail(session.id, session.attempt, shop.owner, error)


class UnexpectedError(JobError):
    """Something we did not foresee; it may pass."""

    code = "internal_error"
    retryable = True


def _late(took_s: float, timeout_s: float) -> JobTimedOut | None:
    """The error of an attempt that was cancelled at the queue's time limit, of which the last
    second is for the queue's own work."""
    if took_s < timeout_s - 1:
        return None
    return JobTimedOut("The transcription took longer than it may.")


def _unexpected(cause: Exception) -> UnexpectedError:
    error = UnexpectedError("Something unexpected went wrong on the server.")
    error.__cause__ = cause
    return error


async def _recognise(shop: Workshop, session: Session, lease: Lease, pace: Pace | None) -> Report:
    if session.audio_key is None:
        raise AudioMissingError("The recording is no longer stored.")
    report = Report(shop, session, lease, pace)
    async with telling_when_quiet(report):
        source = await shop.store.open(session.audio_key)
        async with shop.recognisers.borrow() as recogniser:
            events = recogniser.transcribe(
                source,
                start_s=session.committed_s,
                first_idx=session.segment_count,
                language=session.language or session.detected_language,
            )
            async with aclosing(events):
                async for event in events:
                    await report.tell(event)
    return report


async def _record(
    shop: Workshop, report: Report, started: float, predicted: datetime | None
) -> None:
    """Keep what the attempt took, as ground for estimates. The transcript does not depend on it."""
    session = report.session
    audio_s = report.reached_s - session.committed_s
    if audio_s <= 0:
        return
    wall_s = time.monotonic() - started
    setup_s = min(wall_s, max(0.0, report.meter.started_wall_s - started))
    run = Run(shop.host, audio_s, setup_s, wall_s)
    engine = shop.recognisers.engine
    try:
        await insert_run(shop.pool, session.id, session.attempt, engine, run, predicted)
    except CONNECT_ERRORS as error:
        log.warning("run_not_recorded", session_id=str(session.id), error=str(error))
