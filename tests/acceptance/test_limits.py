"""What the product may cost: memory of uploads and of long recordings, measured on itself."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from tests import clips
from tests.product import Product
from tests.sessions import SESSIONS, address, finished, upload

MIB = 2**20


@pytest.fixture
def mine(dsn: str, tmp_path: Path) -> Iterator[Product]:
    product = Product(dsn, tmp_path).start()
    yield product
    product.stop()


def rss(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def zeros_as_wav(size_bytes: int) -> Iterator[bytes]:
    """A multipart form with a WAV file of silence that long, made as it is sent."""
    head = clips.wav_header_lying(size_bytes / 32_000)
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.wav"\r\n\r\n'
    yield head
    block = bytes(64 * 1024)
    for _ in range(size_bytes // len(block)):
        yield block
    yield b"\r\n--b--\r\n"


def test_a_large_upload_does_not_stay_in_memory(mine: Product) -> None:
    pid = mine.process.pid
    with mine.client(address()) as client:
        upload(client, clips.wav_of(clips.tone(1.0)))  # first use allocates once
        before = peak = rss(pid)
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.is_set():
                peak = max(peak, rss(pid))
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter()
        answer = client.post(
            SESSIONS,
            content=zeros_as_wav(300 * MIB),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
            timeout=300,
        )
        spent = time.perf_counter() - started
        done.set()
        watcher.join()
        assert answer.status_code == 201, answer.text
        assert answer.json()["size_bytes"] > 299 * MIB
        client.delete(answer.headers["location"])
    print(f"\n300 MiB in {spent:.1f} s; memory {before / MIB:.0f} → {peak / MIB:.0f} MiB at most")
    assert peak - before < 30 * MIB


def test_an_upload_beyond_the_limit_is_cut_off_and_leaves_nothing(dsn: str, tmp_path: Path) -> None:
    """Without a Content-Length it is known only on the way."""
    product = Product(dsn, tmp_path, {"QUARTAPP_MAX_UPLOAD_BYTES": str(5 * MIB)}).start()
    try:
        with product.client(address()) as client:
            answer = client.post(
                SESSIONS,
                content=zeros_as_wav(40 * MIB),
                headers={"Content-Type": "multipart/form-data; boundary=b"},
            )
            assert answer.status_code == 413
            assert answer.json()["code"] == "too_large"
            assert answer.json()["max_upload_bytes"] == 5 * MIB
        assert product.rows("SELECT count(*) FROM audio_chunks") == [(0,)]
    finally:
        product.stop()


def test_a_ten_minute_recording_goes_through_in_bounded_memory(
    mine: Product, tmp_path: Path
) -> None:
    minute = clips.samples_of(clips.speech(clips.LONG_TEXT, tmp_path))
    repeats = 600 * 16_000 // len(minute) + 1
    flac = clips.encoded(_joined(minute, repeats), "flac", "flac")
    pid = mine.process.pid
    with mine.client(address()) as client:
        session_id = upload(client, flac, "ten minutes.flac").json()["id"]
        highest = {"web": 0, "child": 0}
        events: list[int] = []
        with client.stream(
            "GET", f"{SESSIONS}/{session_id}/status/stream", params={"replay": "all"}
        ) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line[6:]).get("progress", -1))
                    highest["web"] = max(highest["web"], rss(pid))
                    for child in psutil.Process(pid).children():
                        highest["child"] = max(highest["child"], rss(child.pid))
        session = finished(client, session_id)
        assert session["status"] == "completed"
        assert session["duration_s"] >= 600
        latest = client.get(f"{SESSIONS}/{session_id}/status").json()
    told = [progress for progress in events if progress >= 0]
    assert told == sorted(told)
    milestones = [step for step in dict.fromkeys(told) if step in {10, 25, 50, 75, 90, 100}]
    assert milestones == [10, 25, 50, 75, 90, 100]
    print(
        f"\n{session['duration_s']:.0f} s of audio, {latest['message']!r}; at most "
        f"{highest['web'] / MIB:.0f} MiB in the web process, "
        f"{highest['child'] / MIB:.0f} MiB in the child"
    )
    assert highest["web"] < 150 * MIB
    assert 0 < highest["child"] < 300 * MIB


def _joined(samples: clips.Samples, times: int) -> clips.Samples:
    return np.tile(samples, times)


def test_no_header_of_a_client_lifts_its_limit(dsn: str, tmp_path: Path) -> None:
    limits = {"QUARTAPP_LOGIN_LIMIT": "3", "QUARTAPP_REQUEST_LIMIT": "5"}
    product = Product(dsn, tmp_path, limits).start()
    try:
        body = {"email": address(), "password": "wrong wrong"}
        answers = [
            httpx.post(
                f"{product.url}/api/v1/auth/login",
                json=body,
                headers={"X-Forwarded-For": f"10.0.0.{n}"},
            ).status_code
            for n in range(6)
        ]
        assert answers == [401, 401, 401, 429, 429, 429]
        # Every route has a limit, also where none is written beside it.
        plain = [httpx.get(f"{product.url}/api/v1/auth/me").status_code for _ in range(7)]
        assert plain == [401] * 5 + [429] * 2
    finally:
        product.stop()


def test_a_large_body_where_none_belongs_is_refused_at_once(product: Product) -> None:
    started = time.perf_counter()
    answer = httpx.post(
        f"{product.url}/api/v1/auth/login",
        content=b'{"email": "' + b"x" * 3_000_000 + b'"}',
        headers={"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    pieces = (b"x" * 65536 for _ in range(50))
    answer = httpx.post(
        f"{product.url}/api/v1/auth/login",
        content=pieces,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    assert time.perf_counter() - started < 20, "it was not waited for until a time-out"


def test_requests_beyond_the_limit_are_told_when_to_come_back(dsn: str, tmp_path: Path) -> None:
    product = Product(dsn, tmp_path, {"QUARTAPP_LOGIN_LIMIT": "3"}).start()
    try:
        body = {"email": address(), "password": "wrong wrong"}
        answers = [httpx.post(f"{product.url}/api/v1/auth/login", json=body) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
        assert answers[-1].json()["code"] == "rate_limited"
        assert int(answers[-1].headers["retry-after"]) > 0
    finally:
        product.stop()
