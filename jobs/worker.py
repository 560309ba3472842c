"""SAQ's worker, embedded: no signal handlers, started again after a fault, stopped in order."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import psycopg
import structlog
from saq.types import Context
from saq.worker import Worker

from jobs.attempt import Workshop
from jobs.queue import FUNCTION_NAME, HEARTBEAT_S, TurnQueue, queue_pool
from jobs.transcribe import transcribe

log = structlog.get_logger()

# Polling wakes a job within this time, needs no LISTEN connection, and works behind a pooler. With
# LISTEN a single slot can be handed a job through a dead connection and never begin it.
POLL_INTERVAL_S = 0.5
RESTART_DELAY_S = 2.0
CANCEL_DEADLINE_S = 5.0


class EmbeddedWorker(Worker[Context]):
    """A worker inside somebody else's event loop: the signals are the server's."""

    SIGNALS = []  # noqa: RUF012 - SAQ's own attribute

    async def schedule(self, lock: int = 1) -> None:
        """Nothing: there are no cron jobs, and the rest is a second way to fetch jobs."""


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
    async def run(context: Context, *, session_id: str, attempt: int) -> None:
        job = context["job"]

        async def keep_alive() -> None:
            # A missed beat must not end the job: the lease, not SAQ, decides who works on it.
            try:
                await job.update()
            except psycopg.Error as error:
                log.warning("queue_heartbeat_missed", key=job.key, error=str(error))

        await transcribe(shop, UUID(session_id), attempt, keep_alive=keep_alive)

    async with queue_pool(dsn, shop.settings) as pool:
        queue = TurnQueue(pool)
        await queue.connect()
        worker: EmbeddedWorker = EmbeddedWorker(
            queue,
            [(FUNCTION_NAME, run)],
            concurrency=shop.settings.job_slots,
            timers={"schedule": 1, "worker_info": 10, "sweep": HEARTBEAT_S // 4, "abort": 1},
            cancellation_hard_deadline_s=CANCEL_DEADLINE_S,
            poll_interval=POLL_INTERVAL_S,
        )
        running = asyncio.create_task(worker.start(), name="saq-worker")
        stopping = asyncio.create_task(stop.wait(), name="saq-worker-stop")
        try:
            await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            await worker.stop()
            await running
            await queue.disconnect()
