"""One recording, end to end: every container, every word, every milestone, on every channel."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from httpx_sse import connect_sse
from pocketsphinx import Decoder

from tests import clips
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload

MILESTONES = [10, 25, 50, 75, 90, 100]
SHARED_AUDIO = Path(__file__).resolve().parents[3] / "shared" / "audio"

STORY = """
The ship left the harbor at seven in the morning with forty men and a cargo of salt. For three days
the weather was calm and the men sang while they worked. On the fourth day a black cloud came from
the north and the captain ordered the sails down. The storm lasted two nights. When the sun came up
again the ship was far from land and most of the water was gone. They found a small island with
palm trees and a spring of fresh water. The captain wrote everything down in a brown book. Years
later his daughter found the book in a wooden box under the stairs. She read it in one evening and
decided to look for the island herself. Her friends told her that she was crazy. She sold the house
and bought a boat with two masts and a red flag. In the spring of the next year she sailed away and
nobody in the village ever saw her again.
"""


@pytest.fixture(scope="module")
def owner(product: Product) -> Iterator[httpx.Client]:
    with product.client(address()) as client:
        yield client


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """About a minute and a half of speech."""
    return clips.speech(STORY, tmp_path_factory.mktemp("story"))


def moment(message: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(message["timestamp"])


def follow(client: httpx.Client, session_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(event, id, data) of the whole stream, from the first event to the server's end of it."""
    with connect_sse(
        client,
        "GET",
        f"{SESSIONS}/{session_id}/status/stream",
        params={"replay": "all"},
        timeout=httpx.Timeout(60, read=60),
    ) as stream:
        return [(event.event, event.id, json.loads(event.data)) for event in stream.iter_sse()]


@pytest.mark.criterion("AC-1.1.4")
@pytest.mark.criterion("AC-1.3.1")
@pytest.mark.criterion("AC-1.3.4")
@pytest.mark.criterion("AC-1.3.5")
@pytest.mark.criterion("SH-1")
def test_the_stream_tells_the_whole_way_in_order(owner: httpx.Client, story: bytes) -> None:
    session_id = upload(owner, story, "story.wav").json()["id"]
    events = follow(owner, session_id)
    assert events[0][0] == "hello"
    told = [event for event in events if event[0] in {"progress", "complete"}]
    ids = [int(event[1]) for event in told]
    assert ids == sorted(set(ids))
    assert [data["id"] for _, _, data in told] == ids
    assert [data["prev_id"] for _, _, data in told] == [0, *ids[:-1]]
    progress = [data["progress"] for _, _, data in told]
    assert progress == sorted(progress)
    firsts = [step for step in dict.fromkeys(progress) if step in MILESTONES]
    assert firsts == MILESTONES
    assert told[-1][0] == "complete"
    assert told[-1][2]["segments"] > 3
    work = [data for _, _, data in told if data["stage"] == "transcribing"]
    spent_s = (moment(work[-1]) - moment(work[0])).total_seconds()
    assert told[-1][2]["processing_speed"] == pytest.approx(
        told[-1][2]["duration_total"] / spent_s, rel=0.4
    )
    estimates = [data["estimated_completion"] for _, _, data in told]
    assert estimates[0] is None
    assert any(estimates)
    for _, _, data in told:
        if data["estimated_completion"] is not None and data["stage"] == "transcribing":
            left_s = (
                datetime.fromisoformat(data["estimated_completion"]) - moment(data)
            ).total_seconds()
            really_s = (moment(told[-1][2]) - moment(data)).total_seconds()
            assert left_s == pytest.approx(really_s, rel=0.6, abs=3)
    history = owner.get(f"{SESSIONS}/{session_id}/status/history?limit=1000").json()["events"]
    assert [data for _, _, data in told] == history


def test_no_word_is_lost_by_cutting_into_chunks(owner: httpx.Client, story: bytes) -> None:
    engine = Decoder(samprate=16000, loglevel="FATAL")
    engine.start_utt()
    engine.process_raw(clips.samples_of(story).tobytes(), full_utt=True)
    engine.end_utt()
    alone = [word.word.split("(")[0] for word in engine.seg() if word.word[0].isalpha()]
    assert len(alone) > 150
    session_id = upload(owner, story, "story.wav").json()["id"]
    assert finished(owner, session_id)["status"] == "completed"
    text = owner.get(f"{SESSIONS}/{session_id}/transcript.json").json()["text"].split()
    missing = [word for word in alone if word not in set(text)]
    assert missing == []
    assert text == alone


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("flac", "flac", {"sample_rate_hz": 44_100, "channels": 2}),
        ("mp3", "libmp3lame", {"sample_rate_hz": 48_000}),
        ("ipod", "aac", {"sample_rate_hz": 44_100, "channels": 2}),
        ("ogg", "libopus", {"sample_rate_hz": 48_000}),
        ("webm", "libopus", {"sample_rate_hz": 48_000}),
        ("mp4", "aac", {"sample_rate_hz": 44_100, "video": True}),
        ("wav", "pcm_mulaw", {"sample_rate_hz": 8_000}),
    ],
    ids=["flac", "mp3", "m4a", "ogg", "webm", "film", "telephone"],
)
def test_any_container_becomes_a_transcript(
    owner: httpx.Client, tmp_path: Path, container: str, codec: str, options: dict[str, Any]
) -> None:
    spoken = clips.samples_of(clips.speech(clips.SHORT_TEXT, tmp_path))
    data = clips.encoded(spoken, container, codec, **options)
    answer = upload(owner, data, f"clip.{container}")
    assert answer.status_code == 201, answer.text
    session = finished(owner, answer.json()["id"])
    assert session["status"] == "completed"
    assert session["duration_s"] == pytest.approx(len(spoken) / 16_000, abs=0.3)
    text = owner.get(f"{SESSIONS}/{session['id']}/transcript.txt").text
    assert {"built", "grandfather"} <= set(text.split())


def test_a_browsers_recording_has_an_honest_percentage(owner: httpx.Client, story: bytes) -> None:
    """It does not state its length; the percentage is measured all the same."""
    data = clips.encoded(
        clips.samples_of(story), "webm", "libopus", sample_rate_hz=48_000, live=True
    )
    session = upload(owner, data, "recorded.webm").json()
    assert session["duration_s"] is None
    events = [data for name, _, data in follow(owner, session["id"]) if name == "progress"]
    working = [event for event in events if event["stage"] == "transcribing"]
    for event in working:
        assert event["progress_kind"] == "measured"
        share = 100 * event["duration_processed"] / event["duration_total"]
        assert share == pytest.approx(event["progress"], abs=12)
    assert {10, 25, 50, 75, 90} <= {event["progress"] for event in working}


@pytest.mark.skipif(not SHARED_AUDIO.is_dir(), reason="the reference recordings are not here")
@pytest.mark.parametrize("name", ["jfk.flac", "librivox-0870.wav", "librivox-0930.wav"])
def test_real_recordings_go_all_the_way(owner: httpx.Client, name: str) -> None:
    session_id = upload(owner, (SHARED_AUDIO / name).read_bytes(), name).json()["id"]
    events = follow(owner, session_id)
    assert events[-1][0] == "complete"
    progress = dict.fromkeys(data["progress"] for _, _, data in events if "progress" in data)
    assert [step for step in progress if step in MILESTONES] == MILESTONES
    assert owner.get(f"{SESSIONS}/{session_id}/transcript.txt").text.strip()


@pytest.mark.criterion("SH-2")
@pytest.mark.criterion("SH-3")
def test_channel_table_and_stream_carry_the_same_messages(
    product: Product, owner: httpx.Client, tmp_path: Path
) -> None:
    """What `LISTEN` in psql shows, what the table holds and what the browser gets are one."""
    heard: list[str] = []
    waiting = upload(owner, clips.speech(clips.LONG_TEXT, tmp_path), "first.wav").json()["id"]
    session_id = upload(owner, clips.speech(clips.SHORT_TEXT, tmp_path), "second.wav").json()["id"]
    with psycopg.connect(product.dsn, autocommit=True) as connection:
        connection.execute(f'LISTEN "transcription:status:{session_id}"')
        for notification in connection.notifies(timeout=90):
            heard.append(notification.payload)
            if json.loads(notification.payload)["status"] == "completed":
                break
    assert finished(owner, waiting)["status"] == "completed"
    stored = product.rows(
        "SELECT status_message(event)::text FROM processing_status AS event "
        "WHERE session_id = %s ORDER BY id",
        session_id,
    )
    assert heard == [row[0] for row in stored][1:]  # the first was published before LISTEN
    streamed = [data for name, _, data in follow(owner, session_id) if name != "hello"]
    assert streamed == [json.loads(row[0]) for row in stored]


@pytest.mark.criterion("AC-1.1.7")
def test_a_stream_opened_while_queued_waits_and_then_streams(
    owner: httpx.Client, tmp_path: Path
) -> None:
    waiting = upload(owner, clips.speech(clips.LONG_TEXT, tmp_path), "first.wav").json()["id"]
    while owner.get(f"{SESSIONS}/{waiting}").json()["status"] == "queued":
        time.sleep(0.05)
    session_id = upload(owner, clips.speech(clips.SHORT_TEXT, tmp_path), "second.wav").json()["id"]
    assert owner.get(f"{SESSIONS}/{session_id}/status").json()["queue_position"] == 1
    events = follow(owner, session_id)
    statuses = [data["status"] for name, _, data in events if name in {"progress", "complete"}]
    assert statuses[0] == "queued"
    assert "processing" in statuses
    assert statuses[-1] == "completed"
    finished(owner, waiting)


@pytest.mark.criterion("AC-1.1.8")
def test_a_stream_opened_after_the_end_tells_it_and_closes(
    owner: httpx.Client, tmp_path: Path
) -> None:
    spoken = clips.speech(clips.SHORT_TEXT, tmp_path)
    session_id = upload(owner, spoken).json()["id"]
    finished(owner, session_id)
    with connect_sse(owner, "GET", f"{SESSIONS}/{session_id}/status/stream") as stream:
        events = [event.event for event in stream.iter_sse()]
    assert events == ["hello", "complete"]


@pytest.mark.criterion("AC-1.1.6")
@pytest.mark.criterion("AC-4.3.3")
def test_serving_stays_quick_while_a_job_uses_a_core(
    product: Product, owner: httpx.Client, story: bytes
) -> None:
    session_id = upload(owner, story, "story.wav").json()["id"]
    while owner.get(f"{SESSIONS}/{session_id}").json()["progress"] < 5:
        time.sleep(0.05)
    answers, first_bytes = [], []
    for _ in range(40):
        started = time.perf_counter()
        assert httpx.get(f"{product.url}/healthz").status_code == 200
        answers.append(time.perf_counter() - started)
        started = time.perf_counter()
        with owner.stream("GET", f"{SESSIONS}/{session_id}/status/stream") as stream:
            next(stream.iter_raw())
            first_bytes.append(time.perf_counter() - started)
    session = owner.get(f"{SESSIONS}/{session_id}").json()
    assert session["status"] == "processing", "the job ended before the measurement did"
    print(
        f"\nhealthz median {sorted(answers)[20] * 1000:.1f} ms, "
        f"first stream bytes median {sorted(first_bytes)[20] * 1000:.1f} ms, "
        f"p95 {sorted(first_bytes)[37] * 1000:.1f} ms"
    )
    assert sorted(answers)[20] < 0.1
    assert sorted(first_bytes)[20] < 0.1
    assert sorted(first_bytes)[37] < 0.2
    owner.delete(f"{SESSIONS}/{session_id}")


def test_a_default_product_holds_few_connections(
    product: Product, owner: httpx.Client, story: bytes
) -> None:
    """Counted while a job runs, streams are open and requests come in."""
    session_id = upload(owner, story, "story.wav").json()["id"]
    counts: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=product.url, headers=dict(owner.headers)) as client:
            while not stop.is_set():
                client.get(f"{SESSIONS}/{session_id}/status")
                client.get(SESSIONS)

    askers = [threading.Thread(target=ask) for _ in range(6)]
    for asker in askers:
        asker.start()
    try:
        with owner.stream("GET", f"{SESSIONS}/{session_id}/status/stream"):
            for _ in range(50):
                ((count,),) = product.rows(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND application_name LIKE 'quartapp%%'"
                )
                counts.append(count)
                time.sleep(0.05)
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    print(f"\nconnections: at most {max(counts)}")
    assert 3 <= max(counts) <= 10
    owner.delete(f"{SESSIONS}/{session_id}")
