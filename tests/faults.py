"""Streams that are followed and sessions that are told of, through whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import TypeAlias
from uuid import UUID

import asyncpg
from pydantic import SecretStr
from quart import Quart

from jobs.database import DATABASE_ERRORS, Pool
from quartapp.accounts import insert_login
from quartapp.auth import Credentials
from quartapp.settings import WebSettings
from tests.integration.streaming_fixtures import (
    RawStream,
    Recording,
    Site,
    Wire,
    make_recording,
    stream_path,
)

# A driver's own word for a connection that died at an awkward moment.
OUTAGE_ERRORS = (*DATABASE_ERRORS, asyncpg.InternalClientError)
RETRY_S = 0.1
PROGRESS_MAX = 99

# Of events, by session and id.
CommitTimes: TypeAlias = dict[tuple[UUID, int], float]


def now() -> float:
    """Of the running loop, in seconds."""
    return asyncio.get_running_loop().time()


@dataclass
class Follower:
    """Reads one stream to its end and keeps what it said, with the time of each."""

    session_id: UUID
    events: list[tuple[int, float]] = field(default_factory=list)
    heartbeats: list[tuple[str, float]] = field(default_factory=list)  # of which transport
    others: list[str] = field(default_factory=list)
    ended: bool = False

    @property
    def ids(self) -> list[int]:
        return [event_id for event_id, _ in self.events]

    async def follow(self, stream: RawStream) -> None:
        """Raises nothing of the stream's: `ended` says that there will be no more."""
        try:
            with suppress(EOFError, OSError):
                while True:
                    block = await stream.block(timeout_s=600)
                    if block.get("id"):
                        self.events.append((block.row, now()))
                    elif block["event"] == "heartbeat":
                        self.heartbeats.append((block.json["transport"], now()))
                    else:
                        self.others.append(block["event"])
        finally:
            self.ended = True


@asynccontextmanager
async def requested(port: int, path: str, headers: Mapping[str, str]) -> AsyncIterator[RawStream]:
    """A GET over a socket of its own, answered as far as the end of the head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join((*lines, "", "")).encode("ascii"))
        stream = RawStream(reader, writer)
        await stream.read_head()
        yield stream
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def followed(
    site: Site, recordings: Sequence[tuple[Recording, dict[str, str]]]
) -> AsyncIterator[list[Follower]]:
    """A follower of each, all streams open at a time."""
    followers: list[Follower] = []
    tasks: list[asyncio.Task[None]] = []
    async with AsyncExitStack() as stack:
        for recording, headers in recordings:
            stream = await stack.enter_async_context(
                requested(site.port, stream_path(recording), headers)
            )
            assert stream.status == 200, await stream.to_end()
            follower = Follower(recording.id)
            followers.append(follower)
            tasks.append(asyncio.create_task(follower.follow(stream)))
        try:
            yield followers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Narrator:
    """Publishes on its recordings in turn, and tries again when the database is away.

    A try that failed may have been committed all the same, so the table alone knows which events
    there are; `committed_at` has the time of those that were confirmed.
    """

    def __init__(self, recordings: Sequence[Recording], *, updates_a_second: float) -> None:
        self.committed_at: CommitTimes = {}
        self._recordings = recordings
        self._pause_s = 1 / updates_a_second
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Narrator:
        self._task = asyncio.create_task(self._narrate())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """No more events. Whether the one under way is committed, nobody knows."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _narrate(self) -> None:
        due_at = now()
        for count, recording in enumerate(cycle(self._recordings)):
            progress = min(count // len(self._recordings), PROGRESS_MAX)
            await self._publish(recording, progress)
            due_at = max(due_at + self._pause_s, now())
            await asyncio.sleep(due_at - now())

    async def _publish(self, recording: Recording, progress: int) -> None:
        while True:
            with suppress(*OUTAGE_ERRORS):
                async with asyncio.timeout(5):
                    sent = await recording.publish(progress=progress)
                self.committed_at[recording.id, sent.id] = now()
                return
            await asyncio.sleep(RETRY_S)


class StrandingWire(Wire):
    """A wire whose connections can be left for dead, one and all, while new ones work."""

    def strand(self) -> None:
        """Carry nothing any more in the connections there are, and say nothing of it."""
        self._thawed.clear()
        self._thawed = asyncio.Event()
        self._thawed.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        thawed = self._thawed  # of the time when this connection was made
        while data := await reader.read(65536):
            await thawed.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _carry_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._carry(reader, writer)


class RefusingWire(Wire):
    """A wire that can be taken away: what there is breaks, and nothing new is let in."""

    def refuse(self) -> None:
        self._server.close()
        self.cut()


async def rows_of(pool: Pool, session_ids: Sequence[UUID]) -> dict[UUID, list[int]]:
    """The ids of every status event there is, in order."""
    rows = await pool.fetch(
        "SELECT session_id, array_agg(id ORDER BY id) AS ids FROM processing_status "
        "WHERE session_id = ANY($1::uuid[]) GROUP BY session_id",
        list(session_ids),
    )
    return {row["session_id"]: row["ids"] for row in rows}


@dataclass(frozen=True)
class Viewer:
    """An account, the one session it has, and the header that opens it."""

    recording: Recording
    headers: dict[str, str]


async def make_viewers(pool: Pool, secret: str, count: int) -> list[Viewer]:
    """Accounts straight into the database, signed in with the key of the product that is to serve
    them."""
    app = Quart("viewers")
    app.secret_key = secret
    credentials = Credentials(app, WebSettings(secret_key=SecretStr(secret)))

    async def make() -> Viewer:
        recording = await make_recording(pool)
        login_id = await insert_login(pool, recording.owner_id, 3600)
        async with app.app_context():
            token = credentials.bearer.dump_token(str(login_id))
        return Viewer(recording, {"Authorization": f"Bearer {token}"})

    return await asyncio.gather(*(make() for _ in range(count)))
