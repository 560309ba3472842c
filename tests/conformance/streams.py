"""What tests of open streams do beside reading them: leave, vanish, insist, and look at the end."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import psutil
from quart import Quart

from quartapp.accounts import insert_login
from quartapp.auth import COOKIE_NAME, credentials
from tests.integration.streaming_fixtures import PATIENCE_S, RawStream, Recording, Site


async def send(stream: RawStream, start: str, headers: dict[str, str]) -> None:
    """Another request on the same connection; `start` has its first lines."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    stream.writer.write(f"{start}{lines}\r\n".encode())
    await stream.writer.drain()


async def assert_told(stream: RawStream, event: str, most_ms: int = 5000) -> None:
    """The stream ends, cleanly, with this event as its last word, and says when to come back."""
    blocks = [block for block in await stream.rest() if block["event"] != "progress"]
    assert [block["event"] for block in blocks[-1:]] == [event]
    assert "id" not in blocks[-1]
    assert 1000 <= int(blocks[-1]["retry"]) <= most_ms
    assert stream.ended


async def history(site: Site, recording: Recording) -> list[int]:
    """The ids in the table."""
    rows = await site.services.pool.fetch(
        "SELECT id FROM processing_status WHERE session_id = $1 ORDER BY id", recording.id
    )
    return [row["id"] for row in rows]


def fin(stream: RawStream) -> None:
    """Close."""
    stream.writer.close()


def reset(stream: RawStream) -> None:
    """Close as a process does that is killed with unread bytes."""
    raw: socket.socket = stream.writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.writer.transport.abort()


def half_close(stream: RawStream) -> None:
    """Say that no more will be said, and go on listening."""
    stream.writer.write_eof()


def connections(site: Site) -> int:
    """TCP connections the server holds, descriptors with them."""
    own = psutil.Process(os.getpid()).net_connections(kind="tcp4")
    return sum(
        connection.laddr.port == site.port and connection.fd >= 0
        for connection in own
        if connection.status != psutil.CONN_LISTEN
    )


@asynccontextmanager
async def requested_slowly(
    site: Site, path: str, headers: dict[str, str], *, receive_bytes: int = 4096
) -> AsyncIterator[RawStream]:
    """A request of a client that takes few bytes at a time, and none unless it is asked to."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", site.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=receive_bytes)
    stream = RawStream(reader, writer)
    try:
        await send(stream, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n", headers)
        async with asyncio.timeout(PATIENCE_S):
            await stream.read_head()
        yield stream
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def tokens(site: Site, user_id: UUID) -> tuple[str, str]:
    """A new sign-in of this account: its cookie, as the header says it, and its bearer token."""
    login_id = str(await insert_login(site.services.pool, user_id, 3600))
    return await sign(site.app, login_id)


async def sign(app: Quart, login_id: str) -> tuple[str, str]:
    async with app.app_context():
        cookie = credentials().cookie.dump_token(login_id)
        return f"{COOKIE_NAME}={cookie}", credentials().bearer.dump_token(login_id)
