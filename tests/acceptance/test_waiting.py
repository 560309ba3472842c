"""What people who wait are told, through the API, while workers come and go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import clips
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload

WORKER = ("worker",)
ATTENTIVE = {"QUARTAPP_LEASE_S": "3", "QUARTAPP_RECOVERY_INTERVAL_S": "0.5"}


@pytest.fixture
def web(dsn: str, tmp_path: Path) -> Iterator[Product]:
    """A process that serves and does not transcribe."""
    product = Product(dsn, tmp_path, {"QUARTAPP_ROLE": "web", **ATTENTIVE}).start()
    yield product
    product.stop()


def worker_for(web: Product) -> Product:
    return Product(web.dsn, web.directory, ATTENTIVE, arguments=WORKER).start()


def status_of(client: httpx.Client, session_id: str) -> dict[str, Any]:
    status: dict[str, Any] = client.get(f"{SESSIONS}/{session_id}/status").json()
    return status


def until_told(client: httpx.Client, session_id: str, message: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while (status := status_of(client, session_id))["message"] != message:
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    return status


def test_no_worker_and_no_progress_look_different(web: Product, tmp_path: Path) -> None:
    with web.client(address()) as client:
        session_id = upload(client, clips.speech(clips.LONG_TEXT, tmp_path)).json()["id"]
        waiting = until_told(client, session_id, "Waiting for a worker: none is running")
        assert (waiting["status"], waiting["worker_seen_at"]) == ("queued", None)
        worker = worker_for(web)
        try:
            deadline = time.monotonic() + 60
            while (status := status_of(client, session_id))["status"] != "processing":
                assert time.monotonic() < deadline, status
            assert status["worker_seen_at"] is not None
        finally:
            worker.kill()
        # Nobody is left: the web process finds the lost lease, and says that there is no worker.
        lost = until_told(client, session_id, "Waiting for a worker: none is running")
        assert lost["status"] == "queued"
        assert lost["worker_seen_at"] is not None, "it was heard of, if no longer"
        worker = worker_for(web)
        try:
            assert finished(client, session_id)["status"] == "completed"
        finally:
            assert worker.stop() == 0
        events = client.get(f"{SESSIONS}/{session_id}/status/history?limit=1000").json()["events"]
        messages = [event["message"] for event in events]
        assert "Continuing after a restart" in messages


def test_each_sees_its_place_everywhere(web: Product, tmp_path: Path) -> None:
    short = clips.speech(clips.SHORT_TEXT, tmp_path)
    with web.client(address()) as many, web.client(address()) as other:
        made = [upload(many, short).json()["id"] for _ in range(3)]
        (late,) = [upload(other, short).json()["id"]]
        order = [made[0], late, *made[1:]]
        for position, session_id in enumerate(order, 1):
            client = other if session_id == late else many
            assert status_of(client, session_id)["queue_position"] == position
            session = client.get(f"{SESSIONS}/{session_id}").json()
            assert (session["queue_position"], session["estimated_start"]) == (position, None)
        listed = {each["id"]: each for each in many.get(SESSIONS).json()["sessions"]}
        assert [listed[each]["queue_position"] for each in made] == [1, 3, 4]
        worker = worker_for(web)
        try:
            for session_id in made:
                done = finished(many, session_id)
                assert (done["status"], done["queue_position"]) == ("completed", None)
            assert finished(other, late)["status"] == "completed"
        finally:
            worker.stop()
    begun = web.rows("SELECT id::text FROM sessions ORDER BY started_at")
    assert [row[0] for row in begun] == order
