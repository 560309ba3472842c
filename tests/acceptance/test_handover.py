"""A recording passes from a worker that is frozen, or told to stop, to another: nothing is lost,
and the first writes nothing more."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests import clips
from tests.barrier import barrier
from tests.conftest import make_database
from tests.faults import RefusingWire
from tests.fleet import WORKER, fleet
from tests.history import (
    Piece,
    check_completed,
    check_pieces,
    events_of,
    rows,
    transcript_of,
    until,
    wait_for,
)
from tests.product import Product
from tests.sessions import address, finished, upload

LEASE_S = 3.0
SHORT_LEASE = {
    "QUARTAPP_LEASE_S": str(LEASE_S),
    "QUARTAPP_RECOVERY_INTERVAL_S": "0.5",
}
STOPPED_WITHIN_S = 10.0
RESTARTING = "Continuing after a restart"

# Everything there is of a session, but the tasks of the queue: each belongs to one attempt, and is
# struck off by the worker that had it.
TRACES = (
    "SELECT to_jsonb(one)::text FROM sessions AS one WHERE id = %s",
    "SELECT to_jsonb(one)::text FROM processing_status AS one WHERE session_id = %s ORDER BY id",
    "SELECT to_jsonb(one)::text FROM transcript_segments AS one WHERE session_id = %s ORDER BY idx",
    "SELECT to_jsonb(one)::text FROM transcription_runs AS one WHERE session_id = %s ORDER BY id",
    "SELECT idx, md5(data) FROM audio_chunks WHERE audio_id = "
    "(SELECT audio_key::uuid FROM sessions WHERE id = %s) ORDER BY idx",
)


class Scene:
    """A site, two workers, somebody who uploads, and a recording with its undisturbed text."""

    def __init__(
        self, web: Product, workers: list[Product], client: httpx.Client, directory: Path
    ) -> None:
        self.dsn = web.dsn
        self.workers = workers
        self.client = client
        self.minute = clips.speech(clips.LONG_TEXT, directory)
        self.moment = clips.speech("Hello.", directory)
        self.undisturbed: list[Piece] = []

    def upload(self, recording: bytes | None = None) -> str:
        answer = upload(self.client, recording or self.minute)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def owner(self, session_id: str) -> Product:
        """The worker that has it."""
        return until(lambda: self._owners(session_id), bool)[0]

    def other(self, worker: Product) -> Product:
        [other] = [each for each in self.workers if each is not worker]
        return other

    def check(self, session_id: str) -> None:
        """It is completed, once, as if nothing had been."""
        check_completed(events_of(self.dsn, session_id))
        assert transcript_of(self.dsn, session_id) == self.undisturbed

    def _owners(self, session_id: str) -> list[Product]:
        return [
            worker
            for worker in self.workers
            if any(entry["session_id"] == session_id for entry in worker.said("attempt_started"))
        ]


@pytest.fixture(scope="module")
def scene(
    server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Leases are short here."""
    directory = tmp_path_factory.mktemp("scene")
    for dsn in make_database(server_dsn, template):
        with (
            fleet(dsn, directory, SHORT_LEASE, webs=1, workers=2) as ([web], workers),
            web.client(address()) as client,
        ):
            scene = Scene(web, workers, client, directory)
            session_id = scene.upload()
            assert finished(client, session_id)["status"] == "completed"
            scene.undisturbed = transcript_of(dsn, session_id)
            check_pieces(scene.undisturbed)
            yield scene


def traces(scene: Scene, session_id: str) -> list[list[tuple[object, ...]]]:
    return [rows(scene.dsn, query, session_id) for query in TRACES]


def check_it_stops_quietly(scene: Scene, session_id: str, frozen: Product) -> None:
    """Once thawed it writes nothing, its child ends or has ended, and it works on what is new."""
    before = traces(scene, session_id)
    frozen.thaw()
    scene.other(frozen).freeze()
    try:
        following = scene.upload(scene.moment)
        wait_for(scene.dsn, following, lambda session: session.status == "processing")
        assert scene.owner(following) is frozen
        assert finished(scene.client, following)["status"] == "completed"
        assert len(frozen.recognisers()) == 1
    finally:
        scene.other(frozen).thaw()
    assert traces(scene, session_id) == before
    scene.check(session_id)


@contextmanager
def frozen_at_work(scene: Scene, worker: Product) -> Iterator[None]:
    """Leaving thaws it in any case: what it has locked may be waited for."""
    worker.freeze()
    try:
        yield
    finally:
        worker.thaw()


def test_one_frozen_in_mid_recording_finds_it_finished_by_another(scene: Scene) -> None:
    session_id = scene.upload()
    wait_for(scene.dsn, session_id, lambda session: session.committed_s > 0)
    frozen = scene.owner(session_id)
    children = frozen.recognisers()
    with frozen_at_work(scene, frozen):
        frozen_at = time.monotonic()
        wait_for(
            scene.dsn,
            session_id,
            lambda session: session.attempt == 2 and session.status == "processing",
        )
        print(f"\ntaken over after {time.monotonic() - frozen_at:.1f} s of a lease of {LEASE_S} s")
        assert finished(scene.client, session_id)["attempt"] == 2
        check_it_stops_quietly(scene, session_id, frozen)
    until(lambda: [child for child in children if child.is_running()], lambda left: not left)


def test_one_thawed_while_another_is_at_work_leaves_it_to_the_other(scene: Scene) -> None:
    """What its child has recognised meanwhile is ready to be written, and is not."""
    session_id = scene.upload()
    wait_for(scene.dsn, session_id, lambda session: session.committed_s > 0)
    frozen = scene.owner(session_id)
    other = scene.other(frozen)
    [child] = frozen.recognisers()
    with frozen_at_work(scene, frozen):
        until(child.status, lambda status: status == psutil.STATUS_SLEEPING)
        wait_for(
            scene.dsn,
            session_id,
            lambda session: session.attempt == 2 and session.status == "processing",
        )
    assert finished(scene.client, session_id)["attempt"] == 2
    until(child.is_running, lambda running: not running)
    scene.check(session_id)
    for worker, completed in ((frozen, False), (other, True)):
        sessions = {entry["session_id"] for entry in worker.said("attempt_completed")}
        assert (session_id in sessions) is completed


def test_one_frozen_between_its_last_two_writes_does_not_complete_it_twice(scene: Scene) -> None:
    with barrier(scene.dsn, status="processing", stage="finalizing") as before_completion:
        session_id = scene.upload()
        before_completion.wait_for_somebody()
        frozen = scene.owner(session_id)
        with frozen_at_work(scene, frozen):
            before_completion.open()
            assert finished(scene.client, session_id)["attempt"] == 2
            check_it_stops_quietly(scene, session_id, frozen)


def test_one_frozen_within_a_transaction_holds_its_recording_back_only_for_a_while(
    scene: Scene,
) -> None:
    """It has locked the session to begin it, and said nothing more."""
    frozen, other = scene.workers
    with barrier(scene.dsn, status="processing", stage="decoding") as before_commit:
        with frozen_at_work(scene, other):
            session_id = scene.upload()
            before_commit.wait_for_somebody()
            frozen.freeze()
        with frozen_at_work(scene, frozen):
            before_commit.open()
            frozen_at = time.monotonic()
            assert finished(scene.client, session_id)["attempt"] == 2
            print(f"\nfinished by another after {time.monotonic() - frozen_at:.1f} s")
            check_it_stops_quietly(scene, session_id, frozen)


def test_one_told_to_stop_hands_over_at_once(scene: Scene) -> None:
    """It gives its recording back itself: no lease is waited for."""
    session_id = scene.upload()
    wait_for(scene.dsn, session_id, lambda session: session.committed_s > 0)
    stopped = scene.owner(session_id)
    children = stopped.recognisers()
    kept = transcript_of(scene.dsn, session_id)
    began_at = time.monotonic()
    stopped.process.send_signal(signal.SIGTERM)
    taken = wait_for(
        scene.dsn,
        session_id,
        lambda session: session.attempt == 2 and session.status == "processing",
    )
    taken_s = time.monotonic() - began_at
    code = stopped.process.wait(STOPPED_WITHIN_S)
    stopped_s = time.monotonic() - began_at
    assert code == 0, stopped.log
    assert not [child for child in children if child.is_running()]
    assert taken.committed_s > 0
    assert finished(scene.client, session_id)["attempt"] == 2
    events = events_of(scene.dsn, session_id)
    queued, begun = [event for event in events if event.attempt == 2][:2]
    assert (queued.status, queued.message) == ("queued", RESTARTING)
    assert begun.status == "processing"
    assert [entry["released"] for entry in stopped.said("attempt_released")] == [True]
    waited_s = (begun.id - queued.id) / 1e6
    print(
        f"\ntaken over {taken_s:.1f} s after SIGTERM, {waited_s:.2f} s after it was given back; "
        f"the process was gone after {stopped_s:.1f} s"
    )
    assert transcript_of(scene.dsn, session_id)[: len(kept)] == kept
    scene.check(session_id)
    stopped.stop()
    stopped.start()


@pytest.mark.parametrize("how", ["silent", "refusing"])
async def test_one_told_to_stop_while_its_database_is_away_stops_in_time(
    dsn: str, tmp_path: Path, how: str
) -> None:
    """Its recording is gone on with by another once the lease is over."""
    minute = clips.speech(clips.LONG_TEXT, tmp_path)
    async with RefusingWire(dsn) as wire:
        with (
            fleet(dsn, tmp_path, SHORT_LEASE, webs=1, workers=0) as ([web], _),
            web.client(address()) as client,
        ):
            (tmp_path / "cut").mkdir()
            cut = Product(wire.dsn, tmp_path / "cut", SHORT_LEASE, WORKER)
            try:
                await asyncio.to_thread(cut.start)
                session_id = str(upload(client, minute).json()["id"])
                await asyncio.to_thread(
                    wait_for, dsn, session_id, lambda session: session.committed_s > 0
                )
                if how == "silent":
                    wire.freeze()
                else:
                    wire.refuse()
                stopping_at = time.monotonic()
                cut.process.send_signal(signal.SIGTERM)
                code = await asyncio.to_thread(cut.process.wait, STOPPED_WITHIN_S * 3)
                stopped_s = time.monotonic() - stopping_at
                print(f"\nits database {how}, it stopped after {stopped_s:.1f} s")
                assert code == 0, cut.log
                assert stopped_s < STOPPED_WITHIN_S
            finally:
                await asyncio.to_thread(cut.end)
            if how == "silent":
                with fleet(dsn, tmp_path / "next", SHORT_LEASE, webs=0, workers=1):
                    over = await asyncio.to_thread(finished, client, session_id)
                assert (over["status"], over["attempt"]) == ("completed", 2)
                check_completed(events_of(dsn, session_id))
