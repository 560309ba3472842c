"""A recogniser that dies, stalls or runs out of memory costs its recording a try, and nobody else
anything."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests import clips
from tests.conftest import make_database
from tests.fleet import Stage, stage_of
from tests.history import check_chain, check_completed, events_of, until, wait_for
from tests.product import Product
from tests.sessions import SESSIONS, address, finished

STALL_TIMEOUT_S = 10  # a healthy child of a busy machine is silent for seconds
ENVIRONMENT = {
    "QUARTAPP_RETRY_DELAY_S": "0.1",
    "QUARTAPP_STALL_TIMEOUT_S": str(STALL_TIMEOUT_S),
}
TRIES = 3
REQUESTS = 40
BETWEEN_REQUESTS_S = 0.05
# Answers may take so many times as long as without a fault, and no longer.
SLOWER_AT_MOST = 10


@pytest.fixture(scope="module")
def stage(
    server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    for dsn in make_database(server_dsn, template):
        with stage_of(dsn, tmp_path_factory.mktemp("crashes"), ENVIRONMENT) as made:
            yield made


def child_at_work(stage: Stage, session_id: str, attempt: int) -> psutil.Process:
    """The child that recognises this session, at that attempt."""
    wait_for(
        stage.dsn,
        session_id,
        lambda session: (session.stage, session.attempt) == ("transcribing", attempt),
    )
    [child] = stage.worker.recognisers()
    return child


def wait_until_left(stage: Stage, session_id: str, attempt: int) -> None:
    """Returns once that attempt is over."""
    wait_for(
        stage.dsn,
        session_id,
        lambda session: session.attempt > attempt or session.status == "failed",
    )


def wait_for_answer(stage: Stage, session_id: str) -> float:
    """How long the answer of a request for a status takes, in seconds."""
    time.sleep(BETWEEN_REQUESTS_S)
    began_at = time.monotonic()
    assert stage.client.get(f"{SESSIONS}/{session_id}/status").status_code == 200
    return time.monotonic() - began_at


def test_a_recording_that_kills_every_child_fails_and_the_others_go_on(stage: Stage) -> None:
    poisoned = stage.upload(stage.minute)
    others = [stage.upload(stage.moment) for _ in range(3)]
    for attempt in range(1, TRIES + 1):
        child_at_work(stage, poisoned, attempt).send_signal(signal.SIGSEGV)
        wait_until_left(stage, poisoned, attempt)
    over = finished(stage.client, poisoned)
    assert (over["status"], over["attempt"]) == ("failed", TRIES)
    assert over["error"] == {
        "code": "recogniser_crashed",
        "message": "The speech recogniser crashed (SIGSEGV). "
        "3 tries failed at the same place, at the beginning of the recording.",
    }
    events = events_of(stage.dsn, poisoned)
    check_chain(events)
    told = [event.message for event in events if "Trying again" in event.message]
    assert [message.rpartition("(")[2] for message in told] == ["try 2 of 3)", "try 3 of 3)"]
    for session_id in others:
        assert finished(stage.client, session_id)["status"] == "completed"
        check_completed(events_of(stage.dsn, session_id))


def test_one_that_kills_two_children_completes_with_the_third(stage: Stage) -> None:
    session_id = stage.upload(stage.minute)
    for attempt in (1, 2):
        child_at_work(stage, session_id, attempt).send_signal(signal.SIGSEGV)
    over = finished(stage.client, session_id)
    assert (over["status"], over["attempt"]) == ("completed", 3)
    check_completed(events_of(stage.dsn, session_id))


def test_a_child_that_stands_still_is_replaced_within_the_bound(stage: Stage) -> None:
    session_id = stage.upload(stage.minute)
    child = child_at_work(stage, session_id, 1)
    child.suspend()
    stopped_at = time.monotonic()
    wait_for(stage.dsn, session_id, lambda session: session.attempt == 2)
    noticed_s = time.monotonic() - stopped_at
    print(f"\nstopped, and noticed after {noticed_s:.1f} s of at most {STALL_TIMEOUT_S} s")
    assert not child.is_running()
    assert finished(stage.client, session_id)["status"] == "completed"
    events = events_of(stage.dsn, session_id)
    check_completed(events)
    assert f"no sign of life for {STALL_TIMEOUT_S} seconds" in next(
        event.message for event in events if event.attempt == 2
    )


def test_a_child_out_of_memory_is_an_error_of_its_recording_alone(stage: Stage) -> None:
    poisoned = stage.upload(stage.minute)
    other = stage.upload(stage.moment)
    for attempt in range(1, TRIES + 1):
        child = child_at_work(stage, poisoned, attempt)
        child.rlimit(psutil.RLIMIT_DATA, (1, 1))
        wait_until_left(stage, poisoned, attempt)
        until(child.is_running, lambda running: not running)
    over = finished(stage.client, poisoned)
    assert over["status"] == "failed"
    # As the engine's own, or of native code that did not look what it got.
    assert over["error"]["code"] in {"engine_failed", "recogniser_crashed"}
    print(f"\n{over['error']}")
    over = finished(stage.client, other)
    assert (over["status"], over["attempt"]) == ("completed", 1)
    assert stage.worker.process.poll() is None


def test_the_one_who_serves_answers_while_its_children_die(dsn: str, tmp_path: Path) -> None:
    """Here one process does both."""
    product = Product(dsn, tmp_path, {**ENVIRONMENT, "QUARTAPP_MAX_ATTEMPTS": "100"}).start()
    try:
        with product.client(address()) as client:
            minute = clips.speech(clips.LONG_TEXT, tmp_path)
            stage = Stage(product, product, client, minute, minute)
            session_id = stage.upload(minute)
            wait_for(dsn, session_id, lambda session: session.stage == "transcribing")
            quiet = [wait_for_answer(stage, session_id) for _ in range(REQUESTS)]
            troubled: list[float] = []
            killed: set[int] = set()
            while len(killed) < TRIES or len(troubled) < REQUESTS:
                troubled.append(wait_for_answer(stage, session_id))
                for child in product.recognisers():
                    with suppress(psutil.NoSuchProcess):
                        child.send_signal(signal.SIGSEGV)
                        killed.add(child.pid)
            ratio = statistics.median(troubled) / statistics.median(quiet)
            print(
                f"\nmedian answer {statistics.median(quiet) * 1000:.1f} ms undisturbed, "
                f"{statistics.median(troubled) * 1000:.1f} ms while children die: {ratio:.1f} times"
            )
            assert ratio < SLOWER_AT_MOST
            assert client.delete(f"{SESSIONS}/{session_id}").status_code == 204
    finally:
        product.end()


def test_children_give_way_to_those_who_serve(stage: Stage) -> None:
    session_id = stage.upload(stage.minute)
    child = child_at_work(stage, session_id, 1)
    parent = psutil.Process(stage.worker.process.pid)
    assert child.nice() > parent.nice()
    assert stage.client.delete(f"{SESSIONS}/{session_id}").status_code == 204
    until(child.is_running, lambda running: not running)
