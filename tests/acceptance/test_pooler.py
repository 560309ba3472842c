"""Behind a PgBouncer in transaction mode, where LISTEN is accepted and nothing ever arrives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from httpx_sse import connect_sse

from jobs.database import DIRECT_SETTINGS, Pool
from jobs.model import Status
from quartapp.settings import WebSettings
from quartapp.streaming.listener import Mode
from quartapp.streaming.subscriber import StatusSubscriber
from tests import clips
from tests.integration.streaming_fixtures import eventually, make_recording, running_listener
from tests.pgbouncer import PgBouncer, pgbouncer
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload


@pytest.fixture
def pooler(dsn: str) -> Iterator[PgBouncer]:
    with pgbouncer(dsn) as running:
        yield running


@contextmanager
def serving(dsn: str, directory: Path, direct: str) -> Iterator[Product]:
    """The product over these two addresses, stopped in the end as it should be."""
    product = Product(dsn, directory, {"DATABASE_URL_DIRECT": direct}).start()
    try:
        yield product
        assert product.stop() == 0
    finally:
        if product.process.poll() is None:
            product.kill()


def streamed(client: httpx.Client, session_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Everything a stream says of a session, from the first event to the last."""
    url = f"{SESSIONS}/{session_id}/status/stream?replay=all"
    with connect_sse(client, "GET", url) as source:
        return [(event.event, event.json()) for event in source.iter_sse()]


def check_stream(client: httpx.Client, session_id: str, transport: str) -> None:
    """It says how events come, and then every event that there is."""
    (name, hello), *events = streamed(client, session_id)
    assert (name, hello["transport"]) == ("hello", transport)
    history = client.get(f"{SESSIONS}/{session_id}/status/history?limit=1000").json()["events"]
    said = [event for name, event in events if name != "heartbeat"]
    assert [event["id"] for event in said] == [event["id"] for event in history]
    assert events[-1][0] == "complete"


def warnings(product: Product) -> list[dict[str, Any]]:
    logged = [json.loads(line) for line in product.log.splitlines() if line.startswith("{")]
    return [line for line in logged if line["level"] in {"warning", "error"}]


@pytest.mark.criterion("AC-3.1.6")
async def test_a_listener_behind_a_pooler_polls_and_says_once_what_to_set(
    pooler: PgBouncer, pool: Pool, settings: WebSettings
) -> None:
    with structlog.testing.capture_logs() as logged:
        async with running_listener(pooler.dsn, pool, settings, live=False) as listener:
            subscriber = StatusSubscriber(listener=listener, pool=pool, settings=settings)
            recording = await make_recording(pool)
            async with subscriber.subscribe(recording.id, 0) as subscription:
                assert await anext(subscription) == recording.published[0]
                for progress in (10, 20, 30):
                    sent = await recording.publish(progress=progress)
                    assert await anext(subscription) == sent
                await eventually(lambda: listener.health().losses >= 3)
                last = await recording.publish(Status.COMPLETED)
                assert await anext(subscription) == last
            assert listener.mode is Mode.POLL
            assert listener.health().connects == 0
    (warning,) = [line for line in logged if line["log_level"] == "warning"]
    assert warning["event"] == "listen_lost"
    assert "DATABASE_URL_DIRECT" in warning["reason"]


@pytest.mark.criterion("AC-3.1.6")
def test_the_product_polls_when_its_direct_address_leads_to_a_pooler(
    dsn: str, tmp_path: Path
) -> None:
    with (
        pgbouncer(dsn, ignored=tuple(DIRECT_SETTINGS)) as lenient,
        serving(dsn, tmp_path, lenient.dsn) as product,
        product.client(address()) as client,
    ):
        session_id = upload(client, clips.speech(clips.SHORT_TEXT, tmp_path)).json()["id"]
        check_stream(client, session_id, "poll")
        assert client.get("/readyz").json()["listener"] == "poll"
    (warning,) = warnings(product)
    assert "DATABASE_URL_DIRECT" in warning["reason"]


def test_the_whole_product_works_through_a_pooler_with_a_direct_address_for_listen(
    pooler: PgBouncer, dsn: str, tmp_path: Path
) -> None:
    recording = clips.speech(clips.SHORT_TEXT, tmp_path)
    with serving(pooler.dsn, tmp_path, dsn) as product, product.client(address()) as client:
        for name in ("first.wav", "second.wav"):
            session_id = upload(client, recording, name).json()["id"]
            check_stream(client, session_id, "push")
            assert finished(client, session_id)["status"] == "completed"
            assert client.get(f"{SESSIONS}/{session_id}/transcript.txt").text
        assert client.get("/readyz").json()["listener"] == "push"
    assert warnings(product) == []


def test_with_a_pooler_alone_it_does_not_start_and_says_so_in_a_line(
    pooler: PgBouncer, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "quartapp", "serve", "--port", "0"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "DATABASE_URL": pooler.dsn,
            "SECRET_KEY": "a secret for tests and nothing else",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: Cannot use the database ")
    assert "DATABASE_URL_DIRECT" in line
