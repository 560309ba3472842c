"""The hold of an attempt on its session: kept by a task of its own, noticed when it is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from jobs.attempt import Fenced, Workshop
from jobs.database import CONNECT_ERRORS
from jobs.sessions import Session, select_lease_held, update_lease

log = structlog.get_logger()

WATCH_INTERVAL_S = 1.0


@dataclass
class Lease:
    """A lease that is held; `closing` once the last event of its attempt is being written, after
    which the session is expected not to be held any more."""

    closing: bool = False


@asynccontextmanager
async def held_lease(shop: Workshop, session: Session) -> AsyncIterator[Lease]:
    """Keep the lease while the block runs; end the block when it is lost.

    Raises Fenced when another has the session, or what went wrong with the holding itself.
    """
    body = asyncio.current_task()
    assert body is not None  # noqa: S101 - an async function always runs in a task
    lease = Lease()
    end: Exception | None = None

    async def hold() -> None:
        nonlocal end
        try:
            await _until_lost(shop, session)
            end = None if lease.closing else Fenced()
        except Exception as error:
            end = error
        if end is not None:
            body.cancel()

    holder = asyncio.create_task(hold(), name=f"lease:{session.id}")
    try:
        yield lease
    except asyncio.CancelledError:
        if end is not None and body.uncancel() == 0:
            raise end from None
        raise
    finally:
        holder.cancel()
        await asyncio.wait([holder])


async def _until_lost(shop: Workshop, session: Session) -> None:
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
        except CONNECT_ERRORS as error:
            log.warning("lease_unreachable", session_id=str(session.id), error=str(error))
