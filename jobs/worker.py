"""SAQ's worker, embedded: no signal handlers, started again after a fault, stopped in order."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import structlog
from psycopg_pool import AsyncConnectionPool
from saq.job import CronJob
from saq.types import Context
from saq.worker import Worker

from jobs.attempt import Workshop
from jobs.queue import (
    FINISHED_JOB_TTL_S,
    FUNCTION_NAME,
    UPKEEP,
    TurnQueue,
    UpkeepQueue,
    queue_pool,
)
from jobs.transcribe import transcribe
from jobs.upkeep import ROUND_TIMEOUT_S, Upkeep

log = structlog.get_logger()

# Polling wakes a job within this time, needs no LISTEN connection, and works behind a pooler. With
# LISTEN a single slot can be handed a job through a dead connection and never begin it.
POLL_INTERVAL_S = 0.5
RESTART_DELAY_S = 2.0
CANCEL_DEADLINE_S = 5.0


class EmbeddedWorker(Worker[Context]):
    """A worker inside somebody else's event loop: the signals are the server's."""

    SIGNALS = []  # noqa: RUF012 - SAQ's own attribute


async def run_worker(shop: Workshop, dsn: str, stop: asyncio.Event) -> None:
    """Process jobs until `stop` is set; running ones are then given back to the queue.

    SAQ's worker and pool are single-use, so each round after a fault has new ones.
    """
    while not stop.is_set():
        try:
            await _run_once(shop, dsn, stop)
        except Exception:
            log.exception("worker_broke", again_in_s=RESTART_DELAY_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(RESTART_DELAY_S):
                    await stop.wait()


async def _run_once(shop: Workshop, dsn: str, stop: asyncio.Event) -> None:
    async with queue_pool(dsn, shop.settings) as pool:
        workers = (_transcriber(shop, pool), _housekeeper(shop, pool))
        for worker in workers:
            await worker.queue.connect()
        running = [
            asyncio.create_task(worker.start(), name=f"saq-{worker.queue.name}")
            for worker in workers
        ]
        stopping = asyncio.create_task(stop.wait(), name="saq-stop")
        try:
            await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            await asyncio.gather(*(worker.stop() for worker in workers))
            await asyncio.gather(*running)
            for worker in workers:
                await worker.queue.disconnect()


def _transcriber(shop: Workshop, pool: AsyncConnectionPool) -> EmbeddedWorker:
    async def run(context: Context, *, session_id: str, attempt: int) -> None:
        await transcribe(shop, UUID(session_id), attempt)
        if not shop.settings.audio_retention:
            await _upkeep(shop).delete_audio()

    return EmbeddedWorker(
        TurnQueue(pool),
        [(FUNCTION_NAME, run)],
        concurrency=shop.settings.job_slots,
        timers={"schedule": 60, "worker_info": 10, "sweep": 60, "abort": 1},
        cancellation_hard_deadline_s=CANCEL_DEADLINE_S,
        poll_interval=POLL_INTERVAL_S,
    )


def _housekeeper(shop: Workshop, pool: AsyncConnectionPool) -> EmbeddedWorker:
    """Its cron job is one row for all processes: whoever fetches it when it is due does the round,
    and only after that is the next one put in."""

    async def run(context: Context) -> None:
        await _upkeep(shop).run()

    run.__qualname__ = UPKEEP  # by which SAQ knows it
    poll_s = shop.settings.upkeep_poll_s
    return EmbeddedWorker(
        UpkeepQueue(pool),
        [],
        concurrency=1,
        cron_jobs=[
            CronJob(run, shop.settings.upkeep_cron, timeout=ROUND_TIMEOUT_S, ttl=FINISHED_JOB_TTL_S)
        ],
        timers={"schedule": poll_s, "worker_info": 60, "sweep": poll_s, "abort": 10},
        cancellation_hard_deadline_s=CANCEL_DEADLINE_S,
        poll_interval=poll_s,
    )


def _upkeep(shop: Workshop) -> Upkeep:
    return Upkeep(shop.pool, shop.settings, shop.lifecycle, shop.store)
