"""A cast and a stage for tests of streams: sessions, cut wires, a server, a bare HTTP client."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self, cast
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import asyncpg
import httpx
from httpx_sse import EventSource
from hypercorn.asyncio import serve
from quart import Quart

from jobs.database import Pool
from jobs.model import (
    ErrorDetail,
    Role,
    Segment,
    Stage,
    Status,
    StatusMessage,
    StatusUpdate,
    Word,
)
from jobs.publisher import StatusPublisher
from jobs.sessions import NewSession, insert_session
from quartapp.accounts import insert_login, insert_user
from quartapp.app import asgi_app, create_app
from quartapp.auth import credentials
from quartapp.runtime import running_base, running_services
from quartapp.serve import server_config
from quartapp.services import Services
from quartapp.settings import WebSettings
from quartapp.sockets import bind
from quartapp.streaming.listener import Listener, Mode
from quartapp.streaming.settings import StreamSettings

PATIENCE_S = 20.0


async def eventually(
    holds: Callable[[], bool], within_s: float = PATIENCE_S, what: str = "it"
) -> None:
    """Return as soon as it holds; fail when it has not within the time."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + within_s
    while not holds():
        assert loop.time() < give_up_at, f"{what} did not come about within {within_s} s"
        await asyncio.sleep(0.005)


def segment(idx: int) -> Segment:
    """A piece of a transcript."""
    start_s = 2.0 * idx
    word = Word(f"word{idx}", start_s, start_s + 1, None)
    return Segment(idx, start_s, start_s + 2, f"This is piece {idx}\nof “it”.", (word,))


@dataclass
class Recording:
    """A session, and what a worker would say of it."""

    id: UUID
    owner_id: UUID
    publisher: StatusPublisher
    attempt: int = 1
    published: list[StatusMessage] = field(default_factory=list)
    pieces: int = 0

    async def publish(
        self,
        status: Status = Status.PROCESSING,
        progress: int = 0,
        message: str = "Transcribing",
        pieces: int = 0,
    ) -> StatusMessage:
        """One event, which brings so many segments. It must not be fenced out."""
        stage = Stage.QUEUED if status is Status.QUEUED else Stage.TRANSCRIBING
        error = ErrorDetail("engine_failed", message) if status is Status.FAILED else None
        sent = await self.publisher.publish(
            self.id,
            self.attempt,
            StatusUpdate(
                status,
                Stage.DONE if status.terminal else stage,
                message,
                progress=100 if status is Status.COMPLETED else progress,
                error=error,
            ),
            segments=[segment(self.pieces + number) for number in range(pieces)],
        )
        assert sent is not None
        self.pieces += pieces
        self.published.append(sent)
        return sent

    @property
    def ids(self) -> list[int]:
        return [message.id for message in self.published]


async def make_recording(pool: Pool, *, owner_id: UUID | None = None) -> Recording:
    """A session in the queue, with its first event."""
    if owner_id is None:
        user = await insert_user(pool, f"{uuid4()}@example.com", "!", Role.PATIENT)
        assert user is not None
        owner_id = user.id
    recording = Recording(uuid4(), owner_id, StatusPublisher(pool))
    async with pool.acquire() as connection:
        await insert_session(
            connection,
            NewSession(
                id=recording.id,
                owner_id=owner_id,
                title="A talk",
                file_name="talk.wav",
                language=None,
                audio_key=str(uuid4()),
                audio_type="audio/wav",
                size_bytes=1,
                sha256="",
                duration_s=600.0,
            ),
        )
    await recording.publish(Status.QUEUED, message="Waiting for its turn")
    return recording


async def restart_recording(pool: Pool, recording: Recording) -> None:
    """What a retry does to a finished session."""
    recording.attempt += 1
    await pool.execute(
        "UPDATE sessions SET status = 'queued', stage = 'queued', attempt = $2, "
        "finished_at = NULL, error = NULL WHERE id = $1",
        recording.id,
        recording.attempt,
    )
    await recording.publish(Status.QUEUED, message="Waiting for its turn again")


@asynccontextmanager
async def running_listener(
    dsn: str, pool: Pool, settings: StreamSettings, *, live: bool = True
) -> AsyncIterator[Listener]:
    """A listener, once it hears (or, with `live` false, at once)."""
    listener = Listener(dsn=dsn, pool=pool, settings=settings)
    await listener.start()
    try:
        if live:
            await eventually(lambda: listener.mode is Mode.PUSH, what="LISTEN")
        yield listener
    finally:
        await listener.stop()


async def listening_backends(pool: Pool) -> list[int]:
    """Process ids of this database's LISTEN connections."""
    rows = await pool.fetch(
        "SELECT pid FROM pg_stat_activity "
        "WHERE application_name = 'quartapp-listen' AND datname = current_database()"
    )
    return [row["pid"] for row in rows]


async def kill_listening(pool: Pool) -> None:
    """End every LISTEN connection of this database, from the server's side."""
    for pid in await listening_backends(pool):
        await pool.execute("SELECT pg_terminate_backend($1)", pid)


class Wire:
    """A TCP proxy in front of the database, that can be frozen, cut, or robbed of notifications."""

    def __init__(self, dsn: str) -> None:
        self._target = urlsplit(dsn)
        self._flows: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self.mute = False  # withhold notifications, as a transaction pooler does
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._flows, return_exceptions=True)

    @property
    def dsn(self) -> str:
        """The database, by this wire."""
        port = self._server.sockets[0].getsockname()[1]
        return urlunsplit(
            self._target._replace(
                netloc=f"{self._target.username}@127.0.0.1:{port}", query="sslmode=disable"
            )
        )

    def freeze(self) -> None:
        """Carry nothing any more, in connections old and new, and say nothing of it."""
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            with suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        for flow in self._flows:
            flow.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._flows.add(task)
        back: asyncio.StreamWriter | None = None
        try:
            back_reader, back = await asyncio.open_connection(
                self._target.hostname, self._target.port
            )
            self._writers |= {writer, back}
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, back))
                group.create_task(self._carry_answers(back_reader, writer))
        except (ExceptionGroup, OSError, asyncio.CancelledError):
            pass
        finally:
            self._flows.discard(task)
            for end in filter(None, (writer, back)):
                self._writers.discard(end)
                end.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._thawed.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _carry_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Whole messages of the server: one byte of type, four of length (itself included)."""
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
                await self._thawed.wait()
                if self.mute and head[:1] == b"A":
                    continue
                writer.write(head + body)
                await writer.drain()
        raise ConnectionResetError


@dataclass
class Site:
    """The app as it is served, on a port of 127.0.0.1, in this very loop."""

    app: Quart
    services: Services
    port: int

    async def sign_in(self, role: Role = Role.PATIENT) -> tuple[UUID, dict[str, str]]:
        """A new account; its id, and the header that proves it."""
        user = await insert_user(self.services.pool, f"{uuid4()}@example.com", "!", role)
        assert user is not None
        login_id = await insert_login(self.services.pool, user.id, 3600)
        async with self.app.app_context():
            token = credentials().bearer.dump_token(str(login_id))
        return user.id, {"Authorization": f"Bearer {token}"}

    async def recording(self, role: Role = Role.PATIENT) -> tuple[Recording, dict[str, str]]:
        """A session of a new account, and the header that opens it."""
        user_id, headers = await self.sign_in(role)
        return await make_recording(self.services.pool, owner_id=user_id), headers

    def open_streams(self) -> int:
        return len(self.services.streams)


@asynccontextmanager
async def running_site(settings: WebSettings) -> AsyncIterator[Site]:
    """Started and stopped as `quartapp serve` does it."""
    async with running_base(settings) as base, running_services(base, settings) as services:
        app = create_app(services)
        listening = bind("127.0.0.1", 0, write_timeout_s=settings.stream_write_timeout_s)
        listening.listen()  # so that nobody is refused before hypercorn does it
        port = listening.getsockname()[1]
        config = server_config(listening)
        stop = asyncio.Event()

        async def stopped() -> None:
            await stop.wait()
            services.drain.set()

        server = asyncio.create_task(
            serve(cast(Any, asgi_app(app)), config, shutdown_trigger=stopped, mode="asgi")
        )
        await eventually(lambda: services.listener.mode is Mode.PUSH, what="LISTEN")
        try:
            yield Site(app, services, port)
        finally:
            stop.set()
            await server


class Block(dict[str, str]):
    """The fields of one block of a stream; comments are under the empty name."""

    @property
    def json(self) -> Any:
        return httpx.Response(200, text=self["data"]).json()

    @property
    def row(self) -> int:
        """The id of the status event."""
        return int(self["id"])


class RawStream:
    """One request over a bare socket, and the body as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.version = ""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.ended = False  # with the last chunk, or for HTTP/1.0 by close
        self._parsed = 0

    def header(self, name: str) -> str | None:
        """A header that comes once, or not at all."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) <= 1, found
        return found[0] if found else None

    async def read_head(self) -> None:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.version, code, *_ = head[0].split(" ")
        self.status = int(code)
        self.headers = [(line.split(": ")[0], line.split(": ", 1)[1]) for line in head[1:-2]]

    async def _read_more(self) -> None:
        if self.header("Transfer-Encoding") == "chunked":
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            assert data.endswith(b"\r\n")
            self.ended = size == 0
            self.body += data[:-2]
        elif (length := self.header("Content-Length")) is not None:
            self.body += await self.reader.readexactly(int(length))
            self.ended = True
        else:
            data = await self.reader.read(65536)
            self.ended = not data
            self.body += data

    async def block(self, timeout_s: float = PATIENCE_S) -> Block:
        """The next block. Raises EOFError at the end of the body."""
        async with asyncio.timeout(timeout_s):
            while (end := self.body.find(b"\n\n", self._parsed)) < 0:
                if self.ended:
                    assert self._parsed == len(self.body), "half a block at the end"
                    raise EOFError
                await self._read_more()
        lines = self.body[self._parsed : end].decode().split("\n")
        self._parsed = end + 2
        fields = [line.partition(":") for line in lines]
        return Block({name: value.removeprefix(" ") for name, _, value in fields})

    async def until(self, event: str, timeout_s: float = PATIENCE_S) -> Block:
        """The next block of that event; others are passed over."""
        async with asyncio.timeout(timeout_s):
            while (block := await self.block(timeout_s))["event"] != event:
                pass
        return block

    async def rest(self, timeout_s: float = PATIENCE_S) -> list[Block]:
        """All blocks to the end of the body."""
        blocks: list[Block] = []
        async with asyncio.timeout(timeout_s):
            with suppress(EOFError):
                while True:
                    blocks.append(await self.block(timeout_s))
        return blocks

    async def to_end(self) -> bytes:
        """The body of an answer that is no stream."""
        while not self.ended:
            await self._read_more()
        return self.body

    def as_parsed_by_httpx_sse(self) -> list[tuple[str, str, str]]:
        """(event, data, id) of all of the body so far, as another parser sees it."""
        response = httpx.Response(
            200, headers={"Content-Type": "text/event-stream"}, content=self.body
        )
        found = EventSource(response).iter_sse()
        return [(event.event, event.data, event.id) for event in found]

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def requested_at(
    port: int,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    version: str = "1.1",
) -> AsyncIterator[RawStream]:
    """A request over a socket of its own, answered as far as the end of the head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stream = RawStream(reader, writer)
    lines = [f"{method} {path} HTTP/{version}", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    try:
        writer.write("\r\n".join((*lines, "", "")).encode("latin-1"))
        async with asyncio.timeout(PATIENCE_S):
            await stream.read_head()
        yield stream
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def requested(
    site: Site,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    version: str = "1.1",
) -> AbstractAsyncContextManager[RawStream]:
    """A request to a site."""
    return requested_at(site.port, path, headers, method=method, version=version)


def stream_path(recording: Recording, query: str = "") -> str:
    return f"/api/v1/sessions/{recording.id}/status/stream{query}"


async def notify(pool: Pool, channel: str, payload: str) -> None:
    await pool.execute("SELECT pg_notify($1, $2)", channel, payload)


async def connect_as_listener(dsn: str) -> asyncpg.Connection[Any]:
    """A plain connection, for tests that listen beside the product."""
    return await asyncpg.connect(dsn)


def jitter(most_s: float) -> float:
    return random.uniform(0, most_s)
