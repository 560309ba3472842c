"""Finds what was lost: leases that ran out, queued sessions without a job.

Any number of processes may run this; each find is settled by the session's row lock.
"""

from __future__ import annotations

import asyncio
import random

import structlog

from jobs.database import CONNECT_ERRORS, Pool
from jobs.errors import JobError
from jobs.lifecycle import Lifecycle
from jobs.queue import delete_stale_jobs, select_sessions_without_job
from jobs.sessions import select_lost_sessions
from jobs.settings import JobSettings
from jobs.waiting import tell_waiting

log = structlog.get_logger()

BATCH = 20
LOST_JOB_AGE_S = 10.0


async def run_recovery(pool: Pool, settings: JobSettings, lifecycle: Lifecycle) -> None:
    """Look again and again, until cancelled. A database that is away is waited for, and no fault
    ends it: it would not be missed before everything stands still."""
    while True:
        try:
            await recover_lost(pool, settings, lifecycle)
            await delete_stale_jobs(pool)
            await tell_waiting(pool, lifecycle, alive_s=settings.lease_s)
        except (*CONNECT_ERRORS, JobError) as error:
            log.warning("recovery_postponed", error=str(error))
        except Exception:
            log.exception("recovery_broke")
        await asyncio.sleep(settings.recovery_interval_s * random.uniform(0.8, 1.2))  # noqa: S311


async def recover_lost(pool: Pool, settings: JobSettings, lifecycle: Lifecycle) -> int:
    """Queue again what lost its worker or its job; returns how many sessions."""
    lost = await select_lost_sessions(pool, settings.lease_s, BATCH)
    lost += await select_sessions_without_job(pool, older_than_s=LOST_JOB_AGE_S)
    recovered = 0
    for session_id in lost:
        if await lifecycle.recover(session_id):
            recovered += 1
            log.warning("session_recovered", session_id=str(session_id))
    return recovered
