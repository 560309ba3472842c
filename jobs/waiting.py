"""What is said to those who wait: their place in the queue, and when their turn comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.database import Connection, Pool
from jobs.forecast import Expected, Pace, Slot, Waiting, expected_turns
from jobs.lifecycle import Lifecycle
from jobs.runs import select_pace
from jobs.turns import Turn, select_turns
from jobs.workers import Worker, select_live_workers

# A recording that waits no longer than this is told nothing: it is begun before one has read it.
QUIET_WAIT_S = 2.0
# Of a long queue those at its head are told; the others can ask.
TOLD = 100
# Behind so many places, only a tenth of the way is news.
EXACT_POSITIONS = 10
NO_WORKER = 0  # as a position, that there is nobody to begin anything


@dataclass(frozen=True, slots=True)
class Running:
    """A recording that is being transcribed."""

    owner: str  # the worker's id
    audio_s: float | None  # after its committed text; None while the length is unknown
    estimated_completion: datetime | None


@dataclass(frozen=True, slots=True)
class ExpectedTurn:
    """One that waits, and what it can expect."""

    turn: Turn
    expected: Expected


@dataclass(frozen=True, slots=True)
class Outlook:
    """All that wait, in order."""

    workers: bool  # whether there is any
    turns: tuple[ExpectedTurn, ...]


async def select_outlook(db: Connection | Pool, *, alive_s: float, limit: int | None) -> Outlook:
    """The queue as it stands. A worker counts that was heard of in the last `alive_s` seconds."""
    turns = await select_turns(db, limit)
    if not turns:
        return Outlook(workers=True, turns=())
    now: datetime = await db.fetchval("SELECT now()")
    workers = await select_live_workers(db, alive_s)
    paces = {
        (worker.engine, worker.host): await select_pace(db, worker.engine, worker.host)
        for worker in workers
    }
    slots = slots_of(workers, paces, await _select_running(db), now)
    waiting = [Waiting(max(turn.due_at, now), turn.audio_s) for turn in turns]
    expected = expected_turns(slots, waiting)
    return Outlook(bool(workers), tuple(map(ExpectedTurn, turns, expected)))


def slots_of(
    workers: Sequence[Worker],
    paces: dict[tuple[str, str], Pace | None],
    running: Iterable[Running],
    now: datetime,
) -> list[Slot]:
    """The slots whose next free moment is known; none while that of any is not."""
    slots: list[Slot] = []
    at_work = list(running)
    for worker in workers:
        pace = paces[worker.engine, worker.host]
        if pace is None:
            return []
        own = [each for each in at_work if each.owner == worker.id][: worker.slots]
        for each in own:
            free_at = each.estimated_completion
            if free_at is None and each.audio_s is not None:
                free_at = now + timedelta(seconds=pace.work_s(each.audio_s))
            if free_at is None:
                return []
            slots.append(Slot(max(free_at, now), pace))
        slots += [Slot(now, pace)] * (worker.slots - len(own))
    return slots


async def tell_waiting(pool: Pool, lifecycle: Lifecycle, *, alive_s: float) -> int:
    """Publish to those whose place has changed; returns how many were told."""
    outlook = await select_outlook(pool, alive_s=alive_s, limit=TOLD)
    told = 0
    for each in outlook.turns:
        turn = each.turn
        position = turn.position if outlook.workers else NO_WORKER
        if (
            not turn.due
            or turn.waited_s < QUIET_WAIT_S
            or not is_news(turn.told_position, position)
        ):
            continue
        sentence = waiting_message(position)
        told += await lifecycle.tell_position(turn, position, sentence, each.expected.completion)
    return told


def is_news(told: int | None, position: int) -> bool:
    """Whether a place differs enough from the one last told."""
    if told is None or NO_WORKER in (told, position):
        return told != position
    return abs(told - position) >= max(1, min(told, position) // EXACT_POSITIONS)


def waiting_message(position: int) -> str:
    """The sentence for a place in the queue; the web client reads the place from it."""
    if position == NO_WORKER:
        return "Waiting for a worker: none is running"
    if position == 1:
        return "Next in line"
    return f"Waiting for its turn: {position - 1} before it"


async def _select_running(db: Connection | Pool) -> list[Running]:
    rows = await db.fetch(
        "SELECT lease_owner, greatest(duration_s - committed_s, 0), estimated_completion "
        "FROM sessions LEFT JOIN processing_status AS event "
        "  ON event.session_id = sessions.id AND event.id = sessions.last_status_id "
        "WHERE sessions.status = 'processing'"
    )
    return [Running(*row.values()) for row in rows]
