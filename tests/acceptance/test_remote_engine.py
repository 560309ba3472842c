"""Recordings that a speech service elsewhere transcribes, through the product as it is started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from psycopg import sql

from tests import clips
from tests.conftest import make_database
from tests.history import check_completed, events_of
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload
from tests.speech_service import KEY, SpeechService, only_plain, refusing, speech_service

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
WORDS_A_SECOND = 0.5  # as that service hears them


@pytest.fixture(scope="module")
def service() -> Iterator[SpeechService]:
    with speech_service() as running:
        yield running


@pytest.fixture(scope="module")
def site(
    service: SpeechService,
    server_dsn: str,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Product]:
    environment = {
        "QUARTAPP_ENGINE": "openai",
        "QUARTAPP_OPENAI_BASE_URL": service.url,
        "QUARTAPP_OPENAI_API_KEY": KEY,
        "QUARTAPP_STATUS_INTERVAL_S": "0",
    }
    for dsn in make_database(server_dsn, template):
        product = Product(dsn, tmp_path_factory.mktemp("remote"), environment).start()
        yield product
        product.end()


@pytest.fixture
def owner(site: Product) -> Iterator[httpx.Client]:
    with site.client(address()) as client:
        yield client


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.speech(clips.LONG_TEXT, tmp_path_factory.mktemp("minute"))


def rows_of_everything(dsn: str) -> str:
    """Every row of every table, as text."""
    with psycopg.connect(dsn) as connection:
        tables = [name for (name,) in connection.execute(TABLES)]
        assert "processing_status" in tables
        rows = [
            connection.execute(
                sql.SQL("SELECT row::text FROM {} AS row").format(sql.Identifier(name))
            ).fetchall()
            for name in tables
        ]
    return str(rows)


def test_a_recording_is_transcribed_piece_by_piece_with_measured_progress(
    site: Product, owner: httpx.Client, service: SpeechService, minute: bytes
) -> None:
    service.next.append(refusing(503, Retry_After="0"))
    session_id = upload(owner, minute, language="en-GB").json()["id"]
    over = finished(owner, session_id)
    assert over["status"] == "completed"
    check_completed(events_of(site.dsn, session_id))

    answered = service.requests[1:]
    duration_s = len(clips.samples_of(minute)) / clips.SAMPLE_RATE_HZ
    assert len(answered) >= 2
    assert sum(request.duration_s for request in answered) == pytest.approx(duration_s, abs=0.01)
    assert {request.fields["language"][0] for request in answered} == {"en"}

    status = owner.get(f"{SESSIONS}/{session_id}/status/history?limit=1000").json()["events"]
    measured = {event["duration_processed"] for event in status if event["stage"] == "transcribing"}
    assert len(measured) > len(answered)
    assert {event["progress_kind"] for event in status} == {"measured"}

    transcript = owner.get(f"{SESSIONS}/{session_id}/transcript.json").json()
    assert transcript["engine"] == "openai"
    expected = [int(request.duration_s * WORDS_A_SECOND) for request in answered]
    assert [len(segment["words"]) for segment in transcript["segments"]] == expected
    ends = [segment["end_s"] for segment in transcript["segments"]]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(duration_s, abs=0.01)


def test_a_model_without_times_gives_a_piece_of_text_for_each_chunk(
    owner: httpx.Client, service: SpeechService, minute: bytes
) -> None:
    service.always = only_plain
    service.requests.clear()
    session_id = upload(owner, minute).json()["id"]
    assert finished(owner, session_id)["status"] == "completed"
    plain = [request for request in service.requests if not request.timed]
    # It is asked for times no more than once by a child, and the first may know already.
    assert len(service.requests) - len(plain) <= 1
    segments = owner.get(f"{SESSIONS}/{session_id}/transcript.json").json()["segments"]
    assert len(segments) == len(plain) >= 2
    assert not any(segment["words"] for segment in segments)


def test_a_service_that_is_away_for_long_costs_no_try(
    site: Product, owner: httpx.Client, service: SpeechService
) -> None:
    service.next.append(refusing(503, Retry_After="3600"))
    session_id = upload(owner, clips.wav_of(clips.tone(3))).json()["id"]
    over = finished(owner, session_id)
    assert (over["status"], over["attempt"]) == ("completed", 2)
    events = events_of(site.dsn, session_id)
    check_completed(events)
    again = "The speech service is out of order (503). Trying again"
    assert [event.message for event in events if event.status == "queued"][1:] == [again]


def test_the_key_is_nowhere_but_in_the_requests(
    site: Product, owner: httpx.Client, service: SpeechService
) -> None:
    """Even of a service that says it back."""
    service.always = refusing(401, "Incorrect API key provided: {key}. {key}")
    service.next.append(refusing(500, "broken by {key}"))
    session_id = upload(owner, clips.wav_of(clips.tone(3))).json()["id"]
    over = finished(owner, session_id)
    assert (over["status"], over["attempt"]) == ("failed", 1)
    assert over["error"] == {
        "code": "engine_unavailable",
        "message": "The speech service denies this server access (401).",
    }
    assert service.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    assert len(site.said("remote_transcription_refused")) >= 2
    assert KEY not in site.log + site.output + rows_of_everything(site.dsn)
    for child in psutil.Process(site.process.pid).children(recursive=True):
        if "jobs.recogniser_child" in child.cmdline():
            assert KEY not in str(child.environ()) + str(child.cmdline())


def test_a_missing_key_is_one_line_at_the_start(dsn: str, tmp_path: Path) -> None:
    product = Product(dsn, tmp_path, {"QUARTAPP_ENGINE": "openai"}, ("worker",))
    done = subprocess.run(
        [sys.executable, "-m", "quartapp", *product.arguments],
        env=product._environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert errors == [
        "Error: QUARTAPP_OPENAI_API_KEY is not set, and api.openai.com answers nobody without one."
    ]
