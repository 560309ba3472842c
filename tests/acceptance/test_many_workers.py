"""Two web and three worker processes on one database, one killed and one stopped for good on the
way: each recording is done once, and users take turns."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import httpx

from tests import clips
from tests.fleet import fleet
from tests.history import (
    check_completed,
    events_of,
    rows,
    standing_of,
    transcript_of,
    until,
)
from tests.product import Product
from tests.sessions import SESSIONS, address, upload

ENVIRONMENT = {"QUARTAPP_LEASE_S": "3", "QUARTAPP_RECOVERY_INTERVAL_S": "0.5"}
WORKERS = 3
UPLOADS = (30, 8, 8, 7, 7)  # of each user; the first one comes first
KILLED_AFTER, STOPPED_AFTER = 10, 20  # so many are over
PATIENCE_S = 120.0


def upload_all(
    webs: list[Product], clients: list[list[httpx.Client]], recording: bytes
) -> dict[str, int]:
    """Whose each recording is, by session; all that the first user has come first."""
    sites = cycle(range(len(webs)))
    owners: dict[str, int] = {}
    with ThreadPoolExecutor(len(webs)) as threads:
        for user, count in enumerate(UPLOADS):
            answers = threads.map(
                lambda site, user=user: upload(clients[site][user], recording),
                [next(sites) for _ in range(count)],
            )
            for answer in answers:
                assert answer.status_code == 201, answer.text
                owners[str(answer.json()["id"])] = user
    return owners


def users_in_turn(owners: dict[str, int], order: list[str], rounds_lost: int = 0) -> None:
    """Nobody's n-th recording waits for more than n of each other user, and those under way.

    Who lost a worker with a recording that it had only fetched has lost that round: it counts as
    taken until the loss is noticed.
    """
    begun: Counter[int] = Counter()
    for place, session_id in enumerate(order, 1):
        user = owners[session_id]
        begun[user] += 1
        most = (begun[user] + rounds_lost) * len(UPLOADS) + WORKERS
        assert place <= most, (place, user, begun)


def places(client: httpx.Client, owners: dict[str, int]) -> list[str]:
    """All sessions in the order that their owners are told."""
    told = {
        session_id: client.get(f"{SESSIONS}/{session_id}/status").json()["queue_position"]
        for session_id in owners
    }
    assert sorted(told.values()) == list(range(1, len(owners) + 1))
    return sorted(told, key=lambda session_id: told[session_id])


def wait_until_over(dsn: str, count: int) -> None:
    until(
        lambda: rows(dsn, "SELECT count(*) FROM sessions WHERE status = 'completed'")[0][0],
        lambda completed: completed >= count,
        PATIENCE_S,
    )


def freeze_at_work(dsn: str, worker: Product) -> str:
    """The session it had at that moment, in mid-work."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        worker.freeze()
        session_id = worker.said("attempt_started")[-1]["session_id"]
        if standing_of(dsn, session_id).status == "processing":
            return str(session_id)
        worker.thaw()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def signed_in(stack: ExitStack, webs: list[Product]) -> list[list[httpx.Client]]:
    """A client of each user at each site."""
    first = [stack.enter_context(webs[0].client(address())) for _ in UPLOADS]
    others = [
        [
            stack.enter_context(
                httpx.Client(base_url=web.url, headers=dict(client.headers), timeout=30)
            )
            for client in first
        ]
        for web in webs[1:]
    ]
    return [first, *others]


def check_attempts(
    dsn: str, owners: dict[str, int], workers: list[Product], lost: set[str]
) -> None:
    """Each is completed by one attempt, and has had but one unless it lost its worker."""
    completed = Counter(
        entry["session_id"] for worker in workers for entry in worker.said("attempt_completed")
    )
    assert completed == dict.fromkeys(owners, 1)
    begun = Counter(
        entry["session_id"] for worker in workers for entry in worker.said("attempt_started")
    )
    twice = {session_id for session_id, times in begun.items() if times > 1}
    assert twice == lost, [events_of(dsn, session_id) for session_id in twice - lost]
    again = {session_id for session_id in owners if standing_of(dsn, session_id).attempt > 1}
    assert lost <= again
    # A worker may also be lost between fetching a job and beginning it.
    assert len(again) <= 2 * len(lost)


def test_sixty_recordings_of_five_users_are_done_once_each_and_in_turn(
    dsn: str, tmp_path: Path
) -> None:
    recording = clips.speech("Hello.", tmp_path)
    with ExitStack() as stack:
        webs, _ = stack.enter_context(fleet(dsn, tmp_path, ENVIRONMENT, webs=2, workers=0))
        clients = signed_in(stack, webs)
        owners = upload_all(webs, clients, recording)
        administrator = stack.enter_context(webs[1].client(address(), role="admin"))
        users_in_turn(owners, places(administrator, owners))
        began_at = time.monotonic()
        _, workers = stack.enter_context(fleet(dsn, tmp_path, ENVIRONMENT, webs=0, workers=WORKERS))
        killed, stopped, spared = workers
        wait_until_over(dsn, KILLED_AFTER)
        lost = {freeze_at_work(dsn, killed)}
        killed.crash()
        wait_until_over(dsn, STOPPED_AFTER)
        lost.add(freeze_at_work(dsn, stopped))
        wait_until_over(dsn, len(owners))
        took_s = time.monotonic() - began_at
        check_attempts(dsn, owners, workers, lost)
        assert spared.process.poll() is None
        users_in_turn(owners, order_of_beginning(dsn), rounds_lost=len(lost))
        for session_id in owners:
            check_completed(events_of(dsn, session_id))
        texts = {str(transcript_of(dsn, session_id)) for session_id in owners}
        assert len(texts) == 1
        print(f"\n{len(owners)} recordings in {took_s:.1f} s, with two of three workers lost")


def order_of_beginning(dsn: str) -> list[str]:
    """Of first attempts."""
    found = rows(
        dsn,
        "SELECT session_id FROM processing_status WHERE status = 'processing' "
        "GROUP BY session_id ORDER BY min(id)",
    )
    return [str(row[0]) for row in found]
