"""A recording in a language that nobody here understands is refused at the upload."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jobs.database import Pool
from jobs.workers import Worker, upsert_worker
from tests import clips
from tests.product import Product
from tests.sessions import SESSIONS, address, upload


@pytest.fixture(scope="module")
def recording() -> bytes:
    return clips.wav_of(clips.tone(1))


@pytest.fixture
def site(dsn: str, tmp_path: Path) -> Iterator[Product]:
    """One that serves the web and transcribes nothing itself."""
    product = Product(dsn, tmp_path, {"QUARTAPP_ROLE": "web"})
    try:
        yield product.start()
    finally:
        product.end()


@pytest.fixture
def client(site: Product) -> Iterator[httpx.Client]:
    with site.client(address()) as made:
        yield made


async def transcribing(pool: Pool, *engines: str) -> None:
    await pool.execute("DELETE FROM workers")
    for engine in engines:
        await upsert_worker(pool, Worker(f"worker with {engine}", "elsewhere", engine, 1))


async def test_workers_elsewhere_decide_what_a_site_takes_in(
    pool: Pool, site: Product, client: httpx.Client, recording: bytes
) -> None:
    def answer(language: str) -> tuple[int, str | None]:
        given = upload(client, recording, language=language)
        return given.status_code, given.json().get("code")

    refused, taken = (422, "language_unsupported"), (201, None)
    await transcribing(pool, "pocketsphinx")
    assert [answer(tag) for tag in ("de", "tlh", "en", "en-GB")] == [refused, refused, taken, taken]
    await transcribing(pool, "pocketsphinx", "faster-whisper")
    assert [answer(tag) for tag in ("de", "de-AT", "tlh")] == [taken, taken, refused]
    await transcribing(pool)
    assert answer("tlh") == taken, "whoever comes may understand it"
    await transcribing(pool, "pocketsphinx")
    await pool.execute("UPDATE workers SET seen_at = now() - interval '1 hour'")
    assert answer("tlh") == taken, "of workers that are gone nothing is known"


@pytest.mark.parametrize("language_first", [True, False])
async def test_nothing_is_left_of_what_was_refused(
    pool: Pool, site: Product, client: httpx.Client, recording: bytes, language_first: bool
) -> None:
    await transcribing(pool, "pocketsphinx")
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="language"\r\n\r\nde\r\n',
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + recording
        + b"\r\n",
    ]
    body = b"".join(parts if language_first else reversed(parts)) + b"--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b"}
    given = await asyncio.to_thread(client.post, SESSIONS, content=body, headers=headers)
    assert (given.status_code, given.json()["code"]) == (422, "language_unsupported")
    assert "de" in given.json()["detail"].split()
    for table in ("sessions", "audio_chunks", "processing_status", "saq_jobs"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0
