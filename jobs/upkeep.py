"""Upkeep: one round over all that is kept for a time only, begun by the queue's clock."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass

import structlog
from prometheus_client import Counter

from jobs import retention
from jobs.database import CONNECT_ERRORS, Pool
from jobs.errors import JobError
from jobs.lifecycle import Lifecycle
from jobs.retention import Batches
from jobs.settings import DAYS, MINUTES, SECONDS, JobSettings
from jobs.storage import AudioStore

log = structlog.get_logger()

# For each kind; what is left then is for the next round. A round takes far less than its job may.
BUDGET_S = 30 * SECONDS
ROUND_TIMEOUT_S = int(10 * MINUTES)

# No setting: what is in these tables is of no use at this age.
EXPIRED_TICKET_S = 1 * MINUTES
LOST_WORKER_S = 1 * DAYS

REMOVED = Counter("quartapp_upkeep_removed", "What was kept long enough and deleted", ["kind"])


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What is looked after, and for how long it is kept."""

    pool: Pool
    settings: JobSettings
    lifecycle: Lifecycle
    store: AudioStore

    async def run(self) -> dict[str, int]:
        """One round: how much was removed, by kind. A database or store that is away is no error:
        the next round will do."""
        return {kind: await _removed(kind, batches) for kind, batches in self._kinds().items()}

    async def delete_audio(self) -> int:
        """The recordings of completed sessions that have been kept for long enough."""
        return await _removed("audio", self._audio_of_completed())

    def _kinds(self) -> dict[str, Batches]:
        settings, pool = self.settings, self.pool
        kinds = {
            "audio": self._audio_of_completed(),
            "unfinished_audio": retention.delete_audio(
                pool,
                self.store,
                retention.UNFINISHED_AUDIO,
                settings.unfinished_audio_retention_s,
            ),
            "statuses": retention.delete_rows(
                pool, retention.STATUSES, settings.status_retention_s
            ),
            "logins": retention.delete_rows(pool, retention.LOGINS, settings.login_retention_s),
            "stream_tickets": retention.delete_rows(pool, retention.TICKETS, EXPIRED_TICKET_S),
            "idempotency_keys": retention.delete_rows(
                pool, retention.IDEMPOTENCY_KEYS, settings.idempotency_retention_s
            ),
            "transcription_runs": retention.delete_rows(
                pool, retention.RUNS, settings.run_retention_s
            ),
            "workers": retention.delete_rows(pool, retention.WORKERS, LOST_WORKER_S),
            "orphan_audio": retention.delete_orphans(self.store, settings.orphan_audio_s),
        }
        if settings.session_retention_s is None:
            return kinds
        return {
            "sessions": retention.delete_sessions(
                pool, self.lifecycle, self.store, settings.session_retention_s
            ),
            **kinds,
        }

    def _audio_of_completed(self) -> Batches:
        return retention.delete_audio(
            self.pool, self.store, retention.COMPLETED_AUDIO, self.settings.audio_retention
        )


async def _removed(kind: str, batches: Batches) -> int:
    """Work batches off until there are no more, or the time is spent."""
    removed = 0
    until = time.monotonic() + BUDGET_S
    try:
        async with aclosing(batches):
            async for count in batches:
                removed += count
                if time.monotonic() > until:
                    log.info("upkeep_unfinished", kind=kind)
                    break
    except (*CONNECT_ERRORS, JobError) as error:
        log.warning("upkeep_postponed", kind=kind, error=str(error))
    finally:
        if removed:
            REMOVED.labels(kind).inc(removed)
            log.info("upkeep_removed", kind=kind, count=removed)
    return removed
