"""Nothing is lost when a process is killed or stopped in mid-recording."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests import clips
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload, upload_begun

BACK_AT_WORK_S = 30


@pytest.fixture
def mine(dsn: str, tmp_path: Path) -> Iterator[Product]:
    """A product of one's own, to be killed."""
    product = Product(dsn, tmp_path).start()
    yield product
    if product.process.poll() is None:
        product.stop()


@pytest.fixture(scope="module")
def minutes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two minutes of speech: several chunks."""
    return clips.speech(clips.LONG_TEXT * 2, tmp_path_factory.mktemp("minutes"))


def token_of(client: httpx.Client) -> str:
    return str(client.headers["Authorization"])


def wait_for_text(client: httpx.Client, session_id: str) -> dict[str, Any]:
    """The session, in mid-recording with some text committed."""
    deadline = time.monotonic() + 60
    while True:
        session: dict[str, Any] = client.get(f"{SESSIONS}/{session_id}").json()
        if session["segments"] and session["status"] == "processing":
            return session
        assert time.monotonic() < deadline, session
        time.sleep(0.05)


def check_history(events: list[dict[str, Any]]) -> None:
    """One unbroken chain, progress never falling, from queued to completed."""
    assert [event["prev_id"] for event in events] == [0, *(event["id"] for event in events[:-1])]
    progress = [event["progress"] for event in events]
    assert progress == sorted(progress)
    assert {10, 25, 50, 75, 90, 100} <= set(progress)
    assert events[-1]["status"] == "completed"


def undisturbed_words(client: httpx.Client, recording: bytes) -> list[str]:
    session_id = upload(client, recording, "undisturbed.wav").json()["id"]
    assert finished(client, session_id)["status"] == "completed"
    return words(client, session_id)


def words(client: httpx.Client, session_id: str) -> list[str]:
    transcript = client.get(f"{SESSIONS}/{session_id}/transcript.json").json()
    segments = transcript["segments"]
    assert [segment["idx"] for segment in segments] == list(range(len(segments)))
    starts = [segment["start_s"] for segment in segments]
    assert starts == sorted(starts)
    text: str = transcript["text"]
    return text.split()


def test_killed_in_mid_recording_it_finishes_after_the_next_start(
    mine: Product, minutes: bytes
) -> None:
    with mine.client(address()) as client:
        session_id = upload(client, minutes, "long.wav").json()["id"]
        before = wait_for_text(client, session_id)
        headers = {"Authorization": token_of(client)}
    mine.kill()
    mine.start()
    restarted = time.monotonic()
    with httpx.Client(base_url=mine.url, headers=headers, timeout=30) as client:
        while client.get(f"{SESSIONS}/{session_id}").json()["attempt"] == before["attempt"]:
            assert time.monotonic() - restarted < BACK_AT_WORK_S
            time.sleep(0.1)
        over = finished(client, session_id)
        assert (over["status"], over["attempt"]) == ("completed", 2)
        events = client.get(f"{SESSIONS}/{session_id}/status/history?limit=1000").json()["events"]
        check_history(events)
        resumed = [event["message"] for event in events if event["attempt"] == 2]
        assert resumed[0] == "Continuing after a restart"
        assert any(message.startswith("Continuing from 0:") for message in resumed)
        assert words(client, session_id) == undisturbed_words(client, minutes)


def test_stopped_in_mid_recording_another_process_goes_on_at_once(
    mine: Product, minutes: bytes
) -> None:
    with mine.client(address()) as client:
        session_id = upload(client, minutes, "long.wav").json()["id"]
        wait_for_text(client, session_id)
        headers = {"Authorization": token_of(client)}
    children = psutil.Process(mine.process.pid).children(recursive=True)
    assert mine.stop(timeout_s=10) == 0
    assert not any(child.is_running() for child in children)
    rows = mine.rows("SELECT status, attempt, lease_owner FROM sessions WHERE id = %s", session_id)
    assert rows == [("queued", 2, None)]
    mine.start()
    started = time.monotonic()
    with httpx.Client(base_url=mine.url, headers=headers, timeout=30) as client:
        while client.get(f"{SESSIONS}/{session_id}").json()["status"] == "queued":
            assert time.monotonic() - started < 5
            time.sleep(0.05)
        assert finished(client, session_id)["status"] == "completed"
        events = client.get(f"{SESSIONS}/{session_id}/status/history?limit=1000").json()["events"]
        check_history(events)


def test_a_killed_child_costs_one_try_and_nothing_else(mine: Product, minutes: bytes) -> None:
    with mine.client(address()) as client:
        session_id = upload(client, minutes, "long.wav").json()["id"]
        wait_for_text(client, session_id)
        ready = [line for line in mine.log.splitlines() if '"engine": "pocketsphinx"' in line]
        pids = [json.loads(line)["pid"] for line in ready if "recogniser_ready" in line]
        psutil.Process(pids[-1]).kill()
        over = finished(client, session_id)
        assert (over["status"], over["attempt"]) == ("completed", 2)
        events = client.get(f"{SESSIONS}/{session_id}/status/history?limit=1000").json()["events"]
        check_history(events)
        assert any("Trying again (try 2 of 3)" in event["message"] for event in events)


def test_a_stopped_server_leaves_nothing_of_an_upload_on_its_way(
    mine: Product, minutes: bytes
) -> None:
    with mine.client(address()) as client:
        authorization = token_of(client)
    with upload_begun(mine.url, authorization, 50_000_000, minutes[:2_000_000]):
        deadline = time.monotonic() + 10
        while mine.rows("SELECT count(*) FROM audio_chunks") == [(0,)]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert mine.stop(timeout_s=10) == 0
    assert mine.rows("SELECT count(*) FROM audio_chunks") == [(0,)]
    assert "unhandled exception" not in mine.log


def test_streams_are_told_of_a_stop(mine: Product, minutes: bytes) -> None:
    with mine.client(address()) as client:
        session_id = upload(client, minutes, "long.wav").json()["id"]
        with client.stream("GET", f"{SESSIONS}/{session_id}/status/stream") as stream:
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("event: ")) == "event: hello"
            mine.process.send_signal(signal.SIGTERM)
            told = [line for line in lines if line.startswith("event: ")]
    assert told[-1] == "event: restarting"
    assert mine.process.wait(10) == 0
    mine.stop()


def test_no_child_outlives_a_killed_server(mine: Product, minutes: bytes) -> None:
    with mine.client(address()) as client:
        wait_for_text(client, upload(client, minutes, "long.wav").json()["id"])
    children = psutil.Process(mine.process.pid).children(recursive=True)
    assert children
    mine.process.send_signal(signal.SIGKILL)
    mine.process.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    mine.kill()


def test_two_servers_share_one_queue(mine: Product, minutes: bytes, tmp_path: Path) -> None:
    """Each recording is done once, by one of them, and either tells all of it."""
    (tmp_path / "second").mkdir()
    second = Product(mine.dsn, tmp_path / "second").start()
    try:
        with mine.client(address()) as client:
            made = [upload(client, minutes[: len(minutes) // 3]).json()["id"] for _ in range(3)]
            other = httpx.Client(base_url=second.url, headers=dict(client.headers), timeout=30)
            with other:
                for session_id in made:
                    over = finished(other, session_id)
                    assert (over["status"], over["attempt"]) == ("completed", 1)
    finally:
        second.stop()
