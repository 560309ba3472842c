"""A cancel and a delete have one clear outcome in every state, and free the worker at once."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeAlias

import httpx
import pytest

from tests.barrier import barrier
from tests.conftest import make_database
from tests.fleet import Stage, stage_of
from tests.history import (
    TERMINAL,
    check_chain,
    events_of,
    rows,
    transcript_of,
    until,
    wait_for,
)
from tests.sessions import SESSIONS, finished

# A retry that is waited for stays in sight of the test.
SLOW_RETRY = {"QUARTAPP_RETRY_DELAY_S": "600"}
ROUNDS = int(os.environ.get("QUARTAPP_TEST_CANCEL_ROUNDS", "12"))
TAKES_EFFECT_S = 2.0  # promised
SLACK_S = 3.0  # of a machine that has more to do

TABLES = (
    ("sessions", "id"),
    ("processing_status", "session_id"),
    ("transcript_segments", "session_id"),
    ("idempotency_keys", "session_id"),
)


@pytest.fixture(scope="module")
def stage(
    server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    for dsn in make_database(server_dsn, template):
        with stage_of(dsn, tmp_path_factory.mktemp("cancel"), SLOW_RETRY) as made:
            yield made


State: TypeAlias = Callable[[Stage], Iterator[str]]


def waiting_in_the_queue(stage: Stage) -> Iterator[str]:
    running = stage.upload(stage.minute)
    wait_for(stage.dsn, running, lambda session: session.status == "processing")
    yield stage.upload(stage.minute)
    assert stage.delete(running).status_code == 204


def waiting_to_be_tried_again(stage: Stage) -> Iterator[str]:
    session_id = stage.upload(stage.minute)
    wait_for(stage.dsn, session_id, lambda session: session.stage == "transcribing")
    stage.child().kill()
    wait_for(stage.dsn, session_id, lambda session: session.attempt == 2)
    yield session_id


def model_being_loaded(stage: Stage) -> Iterator[str]:
    for child in stage.worker.recognisers():
        child.kill()
    known = len(stage.worker.said("recogniser_ready"))
    session_id = stage.upload(stage.minute)
    stage.child().suspend()
    assert len(stage.worker.said("recogniser_ready")) == known, "it was loaded too soon"
    wait_for(stage.dsn, session_id, lambda session: session.stage == "decoding")
    yield session_id


def decoding(stage: Stage) -> Iterator[str]:
    finished(stage.client, stage.upload(stage.moment))  # so that there is an idle child
    stage.child().suspend()
    session_id = stage.upload(stage.minute)
    wait_for(stage.dsn, session_id, lambda session: session.stage == "decoding")
    yield session_id


def in_mid_chunk(stage: Stage) -> Iterator[str]:
    session_id = stage.upload(stage.minute)
    wait_for(stage.dsn, session_id, lambda session: session.stage == "transcribing")
    yield session_id


def with_text_already(stage: Stage) -> Iterator[str]:
    session_id = stage.upload(stage.minute)
    wait_for(stage.dsn, session_id, lambda session: session.committed_s > 0)
    yield session_id


def finalizing(stage: Stage) -> Iterator[str]:
    with barrier(stage.dsn, status="processing", stage="finalizing") as before:
        session_id = stage.upload(stage.moment)
        before.wait_for_somebody()
        stage.worker.freeze()
        before.open()
        try:
            yield session_id
        finally:
            stage.worker.thaw()


RUNNING = [model_being_loaded, decoding, in_mid_chunk, with_text_already, finalizing]
UNFINISHED = [waiting_in_the_queue, waiting_to_be_tried_again, *RUNNING]


@contextmanager
def in_state(state: State, stage: Stage) -> Iterator[str]:
    """A session in that state. Leaving proves that the worker goes on to the next recording."""
    worked = state(stage)
    session_id = next(worked)
    try:
        yield session_id
    finally:
        next(worked, None)
    over = finished(stage.client, stage.upload(stage.moment))
    assert over["status"] == "completed"


def check_cancelled(stage: Stage, session_id: str, pieces: int) -> None:
    """It is cancelled for good, in one event, and what text there was is there."""
    events = events_of(stage.dsn, session_id)
    check_chain(events)
    assert events[-1].status == "cancelled"
    assert len(transcript_of(stage.dsn, session_id)) == pieces == events[-1].segments
    assert jobs_waiting(stage, session_id) == 0


def jobs_waiting(stage: Stage, session_id: str) -> int:
    found = rows(
        stage.dsn,
        "SELECT FROM saq_jobs WHERE status = 'queued' AND key LIKE %s",
        f"%{session_id}%",
    )
    return len(found)


@contextmanager
def freeing_the_worker(stage: Stage, state: State) -> Iterator[None]:
    """Leaving proves that what worked on it is gone soon."""
    # With its worker frozen, a child has nothing to do any more.
    children = [] if state is finalizing else stage.worker.recognisers()
    assert children or state not in RUNNING[:-1]
    if state is waiting_in_the_queue:  # the child works on another
        children = []
    began_at = time.monotonic()
    yield
    until(lambda: not any(child.is_running() for child in children), bool, TAKES_EFFECT_S + SLACK_S)
    if children:
        print(f"\n{state.__name__}: the child is gone after {time.monotonic() - began_at:.2f} s")


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_cancel_ends_it_and_its_work_and_keeps_its_text(stage: Stage, state: State) -> None:
    with in_state(state, stage) as session_id:
        with freeing_the_worker(stage, state):
            answer = stage.cancel(session_id)
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
            pieces = len(transcript_of(stage.dsn, session_id))
        assert stage.cancel(session_id).status_code == 200, "twice is the same as once"
    check_cancelled(stage, session_id, pieces)
    path = f"{SESSIONS}/{session_id}/transcript.json"
    assert stage.client.get(path).status_code == (200 if pieces else 404)


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_delete_leaves_nothing_of_it_and_ends_its_work(stage: Stage, state: State) -> None:
    with in_state(state, stage) as session_id:
        audio = rows(stage.dsn, "SELECT audio_key::uuid FROM sessions WHERE id = %s", session_id)
        with freeing_the_worker(stage, state):
            assert stage.delete(session_id).status_code == 204
        assert stage.client.get(f"{SESSIONS}/{session_id}").status_code == 404
        assert stage.delete(session_id).status_code == 404
        assert stage.cancel(session_id).status_code == 404
    for table, column in TABLES:  # once the worker has gone on to another recording
        assert rows(stage.dsn, f"SELECT FROM {table} WHERE {column} = %s", session_id) == []
    assert rows(stage.dsn, "SELECT FROM audio_chunks WHERE audio_id = %s", *audio[0]) == []
    assert jobs_waiting(stage, session_id) == 0


def bound_to_fail(stage: Stage) -> str:
    """A session in a language that its worker does not know, taken in for another."""
    with contextmanager(waiting_in_the_queue)(stage) as session_id:
        change = "UPDATE sessions SET language = 'de' WHERE id = %s RETURNING status"
        assert rows(stage.dsn, change, session_id) == [("queued",)]
    return session_id


def test_what_is_over_cannot_be_cancelled_and_can_be_deleted(stage: Stage) -> None:
    completed = stage.upload(stage.moment)
    assert finished(stage.client, completed)["status"] == "completed"
    failed = bound_to_fail(stage)
    assert finished(stage.client, failed)["error"]["code"] == "language_unsupported"
    for session_id in (completed, failed):
        before = events_of(stage.dsn, session_id)
        answer = stage.cancel(session_id)
        assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
        assert events_of(stage.dsn, session_id) == before
        assert stage.delete(session_id).status_code == 204
        assert events_of(stage.dsn, session_id) == []


def test_a_cancel_that_races_completion_has_one_winner(stage: Stage) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    wait_s = 0.2  # nears the time after which one is as likely to win as the other
    outcomes = {"completed": 0, "cancelled": 0}
    for _ in range(ROUNDS):
        session_id = stage.upload(stage.moment)
        wait_for(stage.dsn, session_id, lambda session: session.status != "queued")
        time.sleep(wait_s * chance.uniform(0.8, 1.2))
        outcome = check_one_winner(stage, session_id, stage.cancel(session_id))
        outcomes[outcome] += 1
        wait_s *= 1.3 if outcome == "cancelled" else 0.7
    print(f"\nseed {seed}: {outcomes}")


@pytest.mark.parametrize("moment", ["finalizing", "done"])
def test_a_cancel_in_the_very_moment_of_completion_has_one_winner(
    stage: Stage, moment: str
) -> None:
    """The cancel waits for the row that the worker is writing."""
    status = "completed" if moment == "done" else "processing"
    with ThreadPoolExecutor(1) as thread:
        with barrier(stage.dsn, status=status, stage=moment) as before:
            session_id = stage.upload(stage.moment)
            before.wait_for_somebody()
            answer = thread.submit(stage.cancel, session_id)
            until(lambda: waiting_for_a_row(stage.dsn), bool)
            before.open()
        outcome = check_one_winner(stage, session_id, answer.result())
    assert moment == "finalizing" or outcome == "completed"


def waiting_for_a_row(dsn: str) -> bool:
    return bool(rows(dsn, "SELECT FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"))


def check_one_winner(stage: Stage, session_id: str, answer: httpx.Response) -> str:
    """What became of it, which is what the cancel was told."""
    status = str(finished(stage.client, session_id)["status"])
    assert {200: "cancelled", 409: "completed"}[answer.status_code] == status
    if status == "cancelled":
        assert answer.json()["status"] == "cancelled"
    events = events_of(stage.dsn, session_id)
    check_chain(events)
    assert [event.status for event in events if event.status in TERMINAL] == [status]
    assert len(transcript_of(stage.dsn, session_id)) == events[-1].segments
    return status
