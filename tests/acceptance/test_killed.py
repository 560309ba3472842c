"""Whatever is killed, whenever: every recording is completed as if nothing had been.

For longer runs by hand: `QUARTAPP_TEST_KILLS=100 QUARTAPP_TEST_ENGINE=pocketsphinx
QUARTAPP_TEST_TEXTS=3,15 scripts/test tests/acceptance/test_killed.py -s -o faulthandler_timeout=0`.
`QUARTAPP_TEST_SEED` repeats what was chosen, though not the moment it fell on.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import psutil
import psycopg

from jobs.embedded import EmbeddedPostgres
from tests import clips
from tests.fleet import fleet
from tests.history import (
    TERMINAL,
    Piece,
    check_completed,
    check_pieces,
    events_of,
    rows,
    transcript_of,
    until,
)
from tests.net import free_port
from tests.product import Product
from tests.sessions import address, upload
from tests.tiny_whisper import Shape, make_tiny_whisper

KILLS = int(os.environ.get("QUARTAPP_TEST_KILLS", "30"))
SEED = int(os.environ.get("QUARTAPP_TEST_SEED", str(random.randrange(10**6))))
# Lengths of the recordings, in spoken texts of 40 s, in turns.
TEXTS = tuple(map(int, os.environ.get("QUARTAPP_TEST_TEXTS", "3,5").split(",")))
# Speech that is understood, by hand; in the course of all tests there is no time for that.
ENGINE = os.environ.get("QUARTAPP_TEST_ENGINE", "faster-whisper")
MODEL = Shape(layers=150)  # takes about a second for a window of 30 s
AT_WORK = 3  # recordings that are not over, at least, at each kill
PAUSE_S = 1.0  # before a kill, at most

LEASE_S = 2.0
RECOVERY_INTERVAL_S = 0.5
SHORT_LEASE = {
    "QUARTAPP_LEASE_S": str(LEASE_S),
    "QUARTAPP_RECOVERY_INTERVAL_S": str(RECOVERY_INTERVAL_S),
    # More is done to these recordings than a recording should have to bear.
    "QUARTAPP_RETRY_DELAY_S": "0",
    "QUARTAPP_MAX_ATTEMPTS": "1000",
    "QUARTAPP_MAX_INTERRUPTIONS": "1000",
}
BACK_AT_WORK_S = 30.0
STANDSTILL_S = 60.0  # without news of any recording
POLL_S = 0.1

Kill = Callable[[], None]


@dataclass(frozen=True)
class Bereaved:
    """A session whose worker was killed."""

    session_id: str
    attempt: int
    killed_us: int  # as ids of events are


class Database:
    """A server of one's own, to be killed."""

    def __init__(self, directory: Path) -> None:
        self._server = EmbeddedPostgres(directory)
        self._port = free_port()
        self.dsn = f"postgresql://quartapp@127.0.0.1:{self._port}/quartapp"

    def start(self) -> None:
        self._server.start(tcp_port=self._port)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # only processes are killed here
            connection.execute("SELECT pg_reload_conf()")

    def kill(self) -> None:
        """SIGKILL to the postmaster, and a start at once."""
        pid = self._server.postmaster_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
        self._server.restart()

    def stop(self) -> None:
        self._server.stop()


@dataclass
class Theatre:
    """A database, a site and two workers, all of which may die, and what is being transcribed."""

    database: Database
    web: Product
    workers: list[Product]
    chance: random.Random
    recordings: Mapping[int, bytes] = field(default_factory=dict)  # by length
    sessions: dict[str, int] = field(default_factory=dict)  # by id; the length
    returns_s: dict[str, list[float]] = field(default_factory=dict)  # by victim
    bereaved: list[Bereaved] = field(default_factory=list)

    @property
    def dsn(self) -> str:
        return self.database.dsn

    def victims(self) -> dict[str, Kill]:
        return {
            "web": lambda: restart(self.web),
            "worker": self.kill_worker,
            "child": self.kill_child,
            "database": self.database.kill,
        }

    def kill_worker(self) -> None:
        worker = self.chance.choice(self.workers)
        killed_us = time.time_ns() // 1000
        worker.crash()
        for entry in worker.said("attempt_started")[-1:]:
            lost = Bereaved(entry["session_id"], entry["attempt"], killed_us)
            if lost.session_id in self.unfinished():
                self.bereaved.append(lost)
        worker.start()

    def kill_child(self) -> None:
        """One that recognises, if there is one at this moment."""
        children = [child for worker in self.workers for child in worker.recognisers()]
        if children:
            with suppress(psutil.NoSuchProcess):
                self.chance.choice(children).kill()

    def unfinished(self) -> list[str]:
        over = rows(self.dsn, "SELECT id FROM sessions WHERE status = ANY (%s)", list(TERMINAL))
        return [each for each in self.sessions if each not in {str(row[0]) for row in over}]

    def newest_work(self) -> int:
        """When work was last seen: the id of an event of one that is processed, or is over."""
        found = rows(
            self.dsn, "SELECT coalesce(max(id), 0) FROM processing_status WHERE status <> 'queued'"
        )
        return int(found[0][0])

    def kill_one(self) -> None:
        """Kill something, start it again, and wait until work goes on."""
        name = self.chance.choice(list(self.victims()))
        time.sleep(self.chance.uniform(0, PAUSE_S))
        self.victims()[name]()
        restarted_us = time.time_ns() // 1000
        seen_us = until(
            self.newest_work,
            lambda work_us: work_us > restarted_us or not self.unfinished(),
            BACK_AT_WORK_S,
        )
        self.returns_s.setdefault(name, []).append((seen_us - restarted_us) / 1e6)


def restart(product: Product) -> None:
    product.crash()
    product.start()


def engine_environment(directory: Path) -> dict[str, str]:
    if ENGINE != "faster-whisper":
        return {"QUARTAPP_ENGINE": ENGINE}
    return {
        "QUARTAPP_ENGINE": ENGINE,
        "QUARTAPP_FASTER_WHISPER_MODEL": str(make_tiny_whisper(directory / "model", MODEL)),
        "QUARTAPP_FASTER_WHISPER_THREADS": "1",
    }


@contextmanager
def theatre(directory: Path, environment: dict[str, str]) -> Iterator[Theatre]:
    # Not among pytest's own directories: the server's account must be let in.
    with TemporaryDirectory(prefix="quartapp-tests-") as cluster:
        database = Database(Path(cluster))
        database.start()
        try:
            with fleet(database.dsn, directory, environment, webs=1, workers=2) as ([web], workers):
                yield Theatre(database, web, workers, random.Random(SEED))
        finally:
            database.stop()


@dataclass(frozen=True)
class Uploader:
    """Somebody who does not give up: what is uploaded is accepted in the end."""

    stage: Theatre
    authorization: str

    def upload(self, texts: int) -> None:
        """The same key for each try, so that none is accepted twice."""
        key = f"key-{random.getrandbits(64):x}"
        session_id = until(lambda: self._try(self.stage.recordings[texts], key), bool)
        self.stage.sessions[session_id] = texts

    def _try(self, recording: bytes, key: str) -> str:
        headers = {"Authorization": self.authorization}
        with (
            suppress(httpx.TransportError),
            httpx.Client(base_url=self.stage.web.url, headers=headers, timeout=30) as client,
        ):
            answer = upload(client, recording, headers={"Idempotency-Key": key})
            if answer.status_code == 201:
                return str(answer.json()["id"])
            assert answer.status_code >= 500 or answer.status_code == 409, answer.text
        return ""


def recordings_of(directory: Path) -> dict[int, bytes]:
    """One for each length: speech, spoken again and again."""
    samples = clips.samples_of(clips.speech(clips.LONG_TEXT, directory))
    return {texts: clips.wav_of(np.tile(samples, texts)) for texts in set(TEXTS)}


def undisturbed_texts(stage: Theatre, uploader: Uploader) -> dict[int, list[Piece]]:
    """What the recordings give when nothing is killed."""
    for texts in stage.recordings:
        uploader.upload(texts)
    complete(stage)
    found = {
        texts: transcript_of(stage.dsn, session_id) for session_id, texts in stage.sessions.items()
    }
    for pieces in found.values():
        check_pieces(pieces)
        assert pieces
    return found


def complete(stage: Theatre) -> None:
    """Wait until all are over; completed, that is. However slow the machine, work goes on."""
    work_us = stage.newest_work()
    while left := stage.unfinished():
        seen_us, deadline = work_us, time.monotonic() + STANDSTILL_S
        while (work_us := stage.newest_work()) == seen_us and stage.unfinished():
            assert time.monotonic() < deadline, [events_of(stage.dsn, each)[-20:] for each in left]
            time.sleep(POLL_S)
    statuses = rows(stage.dsn, "SELECT status, error::text FROM sessions")
    assert {status for status, _ in statuses} == {"completed"}, statuses


def check_bereaved(stage: Theatre) -> list[float]:
    """How long each that lost its worker was in dead hands, in seconds."""
    waits_s = []
    for lost in stage.bereaved:
        events = events_of(stage.dsn, lost.session_id)
        news = [event for event in events if event.id > lost.killed_us]
        freed = next(event for event in news if event.attempt > lost.attempt)
        waits_s.append((freed.id - lost.killed_us) / 1e6)
    return waits_s


def test_every_recording_survives_whatever_is_killed(tmp_path: Path) -> None:
    print(f"\n{KILLS} kills, seed {SEED}")
    with theatre(tmp_path, SHORT_LEASE | engine_environment(tmp_path)) as stage:
        with stage.web.client(address()) as client:
            uploader = Uploader(stage, client.headers["Authorization"])
        stage.recordings = recordings_of(tmp_path)
        undisturbed = undisturbed_texts(stage, uploader)
        lengths = cycle(TEXTS)
        with ThreadPoolExecutor(1) as thread:
            for _ in range(KILLS):
                while len(stage.unfinished()) < AT_WORK - 1:
                    uploader.upload(next(lengths))
                if len(stage.unfinished()) < AT_WORK:  # and this upload may be what is disturbed
                    uploading = thread.submit(uploader.upload, next(lengths))
                    stage.kill_one()
                    uploading.result()
                else:
                    stage.kill_one()
        complete(stage)
        waits_s = check_bereaved(stage)
        print(f"{len(stage.sessions)} recordings completed")
        for name, times_s in stage.returns_s.items():
            print(f"{name}: {len(times_s)} times, at work again after {max(times_s):.1f} s")
        print(f"out of dead hands after {max(waits_s, default=0):.1f} s at most")
        for session_id, texts in stage.sessions.items():
            check_completed(events_of(stage.dsn, session_id))
            pieces = transcript_of(stage.dsn, session_id)
            check_pieces(pieces)
            assert pieces == undisturbed[texts]
        accepted = {str(row[0]) for row in rows(stage.dsn, "SELECT id FROM sessions")}
        assert accepted == set(stage.sessions), "each upload is accepted once"
        assert max(waits_s, default=0) < BACK_AT_WORK_S
