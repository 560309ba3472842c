"""Two hundred open streams, and what can happen between them and the database.

Whatever it is, no stream ends, and each has every event of its session, in order, once. What is
lost is time only, and how much of it is printed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import asyncpg
import psycopg
import pytest
from pydantic import SecretStr

from jobs.database import Pool, open_pool
from jobs.embedded import EmbeddedPostgres
from jobs.migrate import migrate
from jobs.publisher import StatusPublisher
from quartapp.settings import WebSettings
from quartapp.streaming.listener import Mode
from tests.faults import (
    OUTAGE_ERRORS,
    CommitTimes,
    Follower,
    Narrator,
    StrandingWire,
    followed,
    now,
    rows_of,
)
from tests.integration.streaming_fixtures import (
    Recording,
    Site,
    eventually,
    kill_listening,
    running_site,
)
from tests.net import free_port

STREAMS = 200
UPDATES_A_SECOND = 40.0  # on each half of them
LEAD_S = 1.0  # with updates, before the fault and after it
CANARY_HEARTBEAT_S = 0.25
OUTAGE_S = 20.0
DETECTED_S = 4.5  # probe interval and probe timeout, and time for a busy machine to see to it
# Of probe interval, probe timeout and poll interval together. An idle machine needs less than one.
MOST_DELAY_IN_TIMERS = 3


@dataclass
class Stage:
    """What a fault can be done to."""

    server: EmbeddedPostgres
    dsn: str
    wire: StrandingWire
    pool: Pool


@dataclass(frozen=True)
class Span:
    """What a fault did."""

    polled: tuple[float, float] | None = None  # surely without LISTEN from then until then
    database_back_at: float = 0.0
    crashed: bool = False  # events of the last moment before may be gone


async def cut(stage: Stage) -> Span:
    for _ in range(5):
        stage.wire.cut()
        await asyncio.sleep(0.5)
    return Span()


async def half_open(stage: Stage) -> Span:
    stage.wire.strand()
    await asyncio.sleep(5)
    return Span()


async def black_hole(stage: Stage) -> Span:
    stage.wire.freeze()
    frozen_at = now()
    await asyncio.sleep(6)
    span = Span(polled=(frozen_at + DETECTED_S, now()))
    stage.wire.thaw()
    return span


async def terminate(stage: Stage) -> Span:
    for _ in range(5):
        await kill_listening(stage.pool)
        await asyncio.sleep(0.5)
    return Span()


async def crash(stage: Stage) -> Span:
    return await outage(stage, pause_s=0)


async def outage(stage: Stage, pause_s: float = OUTAGE_S) -> Span:
    await asyncio.to_thread(stage.server.stop_now, "immediate")
    stopped_at = now()
    await asyncio.sleep(pause_s)
    restart_at = now()
    restarting = asyncio.create_task(asyncio.to_thread(stage.server.restart))
    back_at = await first_answer(stage.dsn)
    await restarting
    polled = (stopped_at + 1, restart_at) if pause_s else None
    return Span(polled=polled, database_back_at=back_at, crashed=True)


async def first_answer(dsn: str) -> float:
    """When the server accepts connections again."""
    async with asyncio.timeout(60):
        while True:
            with suppress(*OUTAGE_ERRORS):
                connection = await asyncpg.connect(dsn)
                answered_at = now()
                await connection.close()
                return answered_at
            await asyncio.sleep(0.01)


FAULTS = [cut, half_open, black_hole, terminate, crash, outage]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[EmbeddedPostgres, str]]:
    """A server that may be stopped, and the DSN of any database on it."""
    port = free_port()
    with TemporaryDirectory(prefix="quartapp-faults-") as directory:
        embedded = EmbeddedPostgres(Path(directory))
        embedded.start(tcp_port=port)
        yield embedded, f"postgresql://quartapp@127.0.0.1:{port}/{{}}"
        embedded.stop()


@asynccontextmanager
async def staged(
    server: tuple[EmbeddedPostgres, str], settings: WebSettings
) -> AsyncIterator[Stage]:
    """A database of its own, and a wire to it for LISTEN."""
    embedded, any_dsn = server
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(any_dsn.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    dsn = any_dsn.format(name)
    await migrate(dsn)
    wire = StrandingWire(dsn)
    async with wire, open_pool(dsn, settings) as pool:
        yield Stage(embedded, dsn, wire, pool)


async def make_recordings(
    site: Site, pool: Pool, count: int
) -> list[tuple[Recording, dict[str, str]]]:
    """Each with an account of its own, and published through a pool that is not the site's."""
    made = [await site.recording() for _ in range(count)]
    for recording, _ in made:
        recording.publisher = StatusPublisher(pool)
    return made


@pytest.mark.behaviour("MD-30")
@pytest.mark.behaviour("MD-31")
@pytest.mark.criterion("AC-3.1.6")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_every_stream_survives_with_every_event(
    fault: Callable[[Stage], Awaitable[Span]],
    server: tuple[EmbeddedPostgres, str],
    settings: WebSettings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with staged(server, settings) as stage:
        wired = settings.model_copy(
            update={
                "database_url": SecretStr(stage.dsn),
                "database_url_direct": SecretStr(stage.wire.dsn),
                "access_check_s": 4.0,
            }
        )
        hasty = wired.model_copy(update={"heartbeat_s": CANARY_HEARTBEAT_S})
        # Heartbeats read the table: those that are looked at must not help those that are timed.
        async with running_site(wired) as site, running_site(hasty) as canary_site:
            recordings = await make_recordings(site, stage.pool, STREAMS)
            canaries = await make_recordings(canary_site, stage.pool, 3)
            async with (
                followed(site, recordings) as followers,
                followed(canary_site, canaries) as birds,
            ):
                await eventually(lambda: all(each.ids for each in (*followers, *birds)))
                lively, quiet = narrators([recording for recording, _ in recordings])
                async with lively:
                    await asyncio.sleep(LEAD_S)
                    async with quiet:
                        span = await fault(stage)
                    await eventually(lambda: site.services.listener.mode is Mode.PUSH)
                    await asyncio.sleep(LEAD_S + STREAMS / 2 / UPDATES_A_SECOND)  # one each
                committed_at = lively.committed_at | quiet.committed_at
                await caught_up(stage.pool, followers, committed_at, span)
                assert not any(each.ended or each.others != ["hello"] for each in followers)
                assert site.services.listener.health().losses > 0
                if span.polled:
                    assert_polling_was_told(birds, *span.polled)
                if span.polled and not span.crashed:
                    assert_polling_worked(followers, *span.polled)
        delay_s = worst_delay_s(followers, committed_at, span)
        with capsys.disabled():
            events = sum(len(each.ids) for each in followers)
            print(f"\n{fault.__name__}: {events} events, worst added delay {delay_s:.2f} s")
        timers_s = (
            wired.listen_probe_interval_s + wired.listen_probe_timeout_s + wired.poll_interval_s
        )
        assert delay_s <= MOST_DELAY_IN_TIMERS * timers_s


def narrators(recordings: Sequence[Recording]) -> tuple[Narrator, Narrator]:
    """One that goes on after the fault, which shows a stream what it has missed; and one that does
    not, so that somebody has to tell."""
    middle = len(recordings) // 2
    lively, quiet = recordings[:middle], recordings[middle:]
    return (
        Narrator(lively, updates_a_second=UPDATES_A_SECOND),
        Narrator(quiet, updates_a_second=UPDATES_A_SECOND),
    )


async def caught_up(
    pool: Pool, followers: Sequence[Follower], committed_at: CommitTimes, span: Span
) -> None:
    """Wait until every stream has what the table has, and hold it to that."""
    kept = await rows_of(pool, [each.session_id for each in followers])
    await eventually(
        lambda: all(each.ids[-1] >= kept[each.session_id][-1] for each in followers),
        what="the last event on every stream",
    )
    for each in followers:
        assert each.ids == sorted(set(each.ids))
        there, lost = split(each.ids, kept[each.session_id])
        assert there == kept[each.session_id]
        # A crash takes what was not yet on disk; it may have been told, but to streams alone.
        assert span.crashed or not lost
        for one in lost:
            assert committed_at.get((each.session_id, one), 0) < span.database_back_at


def split(ids: Sequence[int], kept: Sequence[int]) -> tuple[list[int], list[int]]:
    """Those that the table has, and those that a crash took out of it."""
    known = set(kept)
    return [one for one in ids if one in known], [one for one in ids if one not in known]


def assert_polling_was_told(birds: Sequence[Follower], since: float, until: float) -> None:
    for each in birds:
        said = [transport for transport, at in each.heartbeats if since < at < until]
        assert len(said) > 2
        assert set(said) == {"poll"}
        assert not each.ended


def assert_polling_worked(followers: Sequence[Follower], since: float, until: float) -> None:
    received = [at for each in followers for _, at in each.events if since < at < until]
    assert len(received) > UPDATES_A_SECOND * (until - since) / 2


def worst_delay_s(followers: Sequence[Follower], committed_at: CommitTimes, span: Span) -> float:
    """The longest time from a commit (or from when the database was back) to the client."""
    return max(
        received_at - max(confirmed_at, span.database_back_at)
        for each in followers
        for event_id, received_at in each.events
        if (confirmed_at := committed_at.get((each.session_id, event_id))) is not None
    )
