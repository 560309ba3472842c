"""Flow control and the form reader, on the ASGI interface itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart, request

from jobs.admission import discard, finish
from jobs.database import Pool
from jobs.lifecycle import Lifecycle
from jobs.publisher import StatusPublisher
from jobs.storage import open_store
from quartapp.problems import Problem, register_problems
from quartapp.settings import WebSettings
from quartapp.uploads import (
    LINGER_BYTES,
    MAX_PARTS,
    WINDOW_BYTES,
    FlowControl,
    MultipartForm,
    body_chunks,
)
from tests.people import make_user, new_session

BOUNDARY = "x-boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    more = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


async def chunked(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read(data: bytes, size: int = 1000) -> tuple[str, bytes, dict[str, str]]:
    form = MultipartForm(CONTENT_TYPE, chunked(data, size))
    name = await form.file()
    content = b"".join([chunk async for chunk in form.file_chunks()])
    await form.finish()
    return name, content, form.fields


class TestForm:
    @given(content=st.binary(max_size=3000), size=st.integers(1, 700))
    async def test_however_it_is_cut_up_it_reads_the_same(self, content: bytes, size: int) -> None:
        data = part("title", "Über".encode()) + part("file", content, "a.wav")
        data += part("language", b"en") + END
        name, got, fields = await read(data, size)
        assert (name, got) == ("a.wav", content)
        assert fields == {"title": "Über", "language": "en"}

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (part("file", b"x", "a") + part("file", b"y", "b") + END, "unexpected_file"),
            (part("title", b"x" * 70_000) + part("file", b"y", "b") + END, "field_too_large"),
            (part("t", b"x") * (MAX_PARTS + 1) + part("file", b"y", "b") + END, "form_too_large"),
            (part("file", b"x", "a")[:-2], "malformed_form"),
            (b"--other--", "malformed_form"),
        ],
        ids=["two files", "long field", "many fields", "cut off", "other boundary"],
    )
    async def test_what_it_refuses(self, data: bytes, code: str) -> None:
        with pytest.raises(Problem) as raised:
            await read(data)
        assert raised.value.code == code


class Server:
    """Plays hypercorn: offers a body in pieces, and keeps what the app sends."""

    def __init__(self, pieces: list[bytes], *, endless: bool = False) -> None:
        self.pieces = pieces
        self.endless = endless
        self.taken = 0
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self.pieces and not self.endless:
            await asyncio.Event().wait()
        piece = self.pieces[0] if self.endless else self.pieces.pop(0)
        self.taken += len(piece)
        await asyncio.sleep(0)
        return {
            "type": "http.request",
            "body": piece,
            "more_body": self.endless or bool(self.pieces),
        }

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append({**message, "taken": self.taken})

    async def run(self, app: Quart) -> tuple[int, bytes]:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "asgi": {"spec_version": "2.3"},
            "extensions": {},
        }
        await FlowControl(app)(scope, self.receive, self.send)
        body = b"".join(message.get("body", b"") for message in self.sent)
        return self.sent[0]["status"], body


def make_app() -> Quart:
    app = Quart(__name__)
    app.config["MAX_CONTENT_LENGTH"] = None
    register_problems(app)
    return app


async def test_a_slow_reader_holds_the_sender_back() -> None:
    app = make_app()
    server = Server([b"x" * 65536] * 400)
    ahead: list[int] = []

    @app.post("/")
    async def post() -> str:
        read = 0
        async for chunk in body_chunks(request, idle_timeout_s=5):
            read += len(chunk)
            for _ in range(100):  # let the other side run as far as it may
                await asyncio.sleep(0)
            ahead.append(server.taken - read)
        return str(read)

    assert await server.run(app) == (200, str(400 * 65536).encode())
    assert WINDOW_BYTES - 65536 <= max(ahead) <= WINDOW_BYTES


async def test_an_early_answer_is_sent_before_the_rest_and_ended_after_it() -> None:
    app = make_app()

    @app.post("/")
    async def post() -> str:
        raise Problem(413, "too_large", "Too large.")

    server = Server([b"x" * 65536] * 100)
    status, body = await server.run(app)
    assert status == 413
    assert b"too_large" in body
    assert server.sent[-2]["body"], "the whole answer is out"
    assert server.sent[-2]["taken"] < 10 * 65536
    assert server.sent[-1]["more_body"] is False
    assert server.sent[-1]["taken"] == 100 * 65536


async def test_it_does_not_linger_for_ever() -> None:
    app = make_app()

    @app.post("/")
    async def post() -> str:
        raise Problem(413, "too_large", "Too large.")

    server = Server([b"x" * 2**20], endless=True)
    assert (await asyncio.wait_for(server.run(app), 20))[0] == 413
    assert server.taken <= LINGER_BYTES + 2 * 2**20


async def test_an_upload_that_stalls_is_given_up() -> None:
    app = make_app()

    @app.post("/")
    async def post() -> str:
        async for _ in body_chunks(request, idle_timeout_s=0.05):
            continue
        return "done"

    server = Server([b"x", b""])
    server.pieces.pop()
    original = server.receive

    async def first_then_nothing() -> dict[str, Any]:
        message = await original()
        return {**message, "more_body": True}

    server.receive = first_then_nothing  # type: ignore[method-assign]
    status, body = await asyncio.wait_for(server.run(app), 20)
    assert status == 408
    assert b"upload_stalled" in body


async def test_a_client_that_leaves_at_the_commit_loses_no_audio(
    pool: Pool, settings: WebSettings
) -> None:
    """Whenever the request is given up: a session has its recording, or there is neither."""
    store = open_store("postgres", pool)
    lifecycle = Lifecycle(pool, StatusPublisher(pool), settings)
    owner_id = await make_user(pool)

    async def admit() -> None:
        stored = await store.write(uuid4(), chunked(b"x" * 1000, 1000))
        try:
            await finish(lifecycle.create(replace(new_session(owner_id), audio_key=stored.key)))
        except BaseException:
            await finish(discard(pool, store, stored.key))
            raise

    for n in range(120):
        task = asyncio.create_task(admit())
        await asyncio.sleep(n * 0.0002)
        task.cancel()
        await asyncio.wait([task])
    orphans = await pool.fetchval(
        "SELECT count(*) FROM audio_chunks FULL JOIN sessions ON audio_key = audio_id::text "
        "WHERE audio_id IS NULL OR sessions.id IS NULL"
    )
    assert orphans == 0
    made = await pool.fetchval("SELECT count(*) FROM sessions")
    assert 0 < made < 120, "the moments of giving up fell on one side only"
