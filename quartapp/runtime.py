"""Starts and stops the parts of a process in order, around whatever it serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from jobs.attempt import Workshop
from jobs.database import Pool, database_url, direct_url, open_pool
from jobs.engines import resolve
from jobs.lifecycle import Lifecycle
from jobs.migrate import migrate
from jobs.publisher import StatusPublisher
from jobs.recognisers import RecogniserPool, answering
from jobs.recovery import run_recovery
from jobs.settings import JobSettings, process_id
from jobs.storage import AudioStore, open_store
from jobs.worker import run_worker
from jobs.workers import Worker, host_name, registered
from quartapp.accounts import select_allowed
from quartapp.services import Services
from quartapp.settings import WebSettings
from quartapp.streaming.listener import Listener
from quartapp.streaming.open_streams import OpenStreams
from quartapp.streaming.segments import SegmentReader
from quartapp.streaming.subscriber import StatusSubscriber

log = structlog.get_logger()

# A child that opens uploads starts in a third of a second, and is memory that the engine may need.
PROBER_IDLE_S = 5.0


@dataclass(frozen=True)
class Base:
    """What every process has: a migrated database and what writes to it."""

    dsn: str
    listen_dsn: str
    pool: Pool
    publisher: StatusPublisher
    lifecycle: Lifecycle
    store: AudioStore


@asynccontextmanager
async def running_base(settings: JobSettings) -> AsyncIterator[Base]:
    """The database, up to date. Raises DatabaseUnavailable, SchemaTooNew."""
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(database_url(settings))
        listen_dsn = direct_url(settings, dsn)
        for name in await migrate(listen_dsn):
            log.info("migration_applied", name=name)
        pool = await stack.enter_async_context(open_pool(dsn, settings))
        publisher = StatusPublisher(pool)
        lifecycle = Lifecycle(pool, publisher, settings)
        yield Base(
            dsn, listen_dsn, pool, publisher, lifecycle, open_store(settings.audio_store, pool)
        )


@asynccontextmanager
async def running_worker(base: Base, settings: JobSettings) -> AsyncIterator[str]:
    """Transcription in this process; yields the engine with its model, as told to people. On
    leaving, running sessions go back to the queue. Raises EngineUnavailableError."""
    engine = await asyncio.to_thread(resolve, settings)
    async with answering(engine, settings) as ask:
        recognisers = RecogniserPool(
            settings,
            engine=engine,
            size=max(1, settings.job_slots),
            idle_s=settings.recogniser_idle_s,
            ask=ask,
        )
        async with _running_worker(base, settings, recognisers):
            yield engine.title


@asynccontextmanager
async def _running_worker(
    base: Base, settings: JobSettings, recognisers: RecogniserPool
) -> AsyncIterator[None]:
    stop = asyncio.Event()
    shop = Workshop(
        pool=base.pool,
        settings=settings,
        publisher=base.publisher,
        lifecycle=base.lifecycle,
        store=base.store,
        recognisers=recognisers,
        owner=process_id(),
        host=host_name(),
        stopping=stop,
    )
    known_as = Worker(shop.owner, shop.host, recognisers.engine, max(1, settings.job_slots))
    async with registered(base.pool, known_as, settings.lease_s / 4):
        worker = asyncio.create_task(run_worker(shop, base.dsn, stop), name="worker")
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait([worker])
            await recognisers.close()


@asynccontextmanager
async def running_recovery(base: Base, settings: JobSettings) -> AsyncIterator[None]:
    """Upkeep of the queue, in every process: one that only serves the web must notice, too, when
    there is no worker left. Raises StorageError when recordings cannot be kept."""
    await base.store.check()
    recovery = asyncio.create_task(
        run_recovery(base.pool, settings, base.lifecycle), name="recovery"
    )
    try:
        yield
    finally:
        recovery.cancel()
        await asyncio.wait([recovery])


@asynccontextmanager
async def running_services(base: Base, settings: WebSettings) -> AsyncIterator[Services]:
    """What the routes need."""
    drain = asyncio.Event()
    listener = Listener(dsn=base.listen_dsn, pool=base.pool, settings=settings)
    prober = RecogniserPool(settings, engine=None, size=settings.probe_slots, idle_s=PROBER_IDLE_S)
    streams = OpenStreams(
        pool=base.pool,
        settings=settings,
        process_id=process_id(),
        drain=drain,
        may_still_see=select_allowed,
    )
    await listener.start()
    await streams.start()
    try:
        yield Services(
            settings=settings,
            pool=base.pool,
            publisher=base.publisher,
            lifecycle=base.lifecycle,
            store=base.store,
            prober=prober,
            listener=listener,
            subscriber=StatusSubscriber(listener=listener, pool=base.pool, settings=settings),
            segments=SegmentReader(base.pool, settings.read_timeout_s),
            streams=streams,
            drain=drain,
        )
    finally:
        await prober.close()
        await streams.stop()
        await listener.stop()
