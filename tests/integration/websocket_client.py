"""WebSocket clients for tests: a proper one, and bare wires for what no proper one does."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame
from websockets.typing import Origin

from tests.integration.streaming_fixtures import PATIENCE_S, Recording, Site

TEXT, PING, PONG, CLOSE = 0x1, 0x9, 0xA, 0x8


class Client(ClientConnection):
    """Remembers what kinds of frames came."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.opcodes: list[int] = []

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame):
            self.opcodes.append(event.opcode)
        super().process_event(event)


def socket_path(recording: Recording, query: str = "") -> str:
    return f"/api/v1/sessions/{recording.id}/status/ws{query}"


def connected(
    site: Site,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    origin: str | None = None,
    **options: Any,
) -> AbstractAsyncContextManager[Client]:
    """An open WebSocket. Raises InvalidStatus when the handshake is refused."""
    return connect(  # type: ignore[return-value]
        f"ws://127.0.0.1:{site.port}{path}",
        additional_headers=headers,
        origin=None if origin is None else Origin(origin),
        create_connection=Client,
        open_timeout=PATIENCE_S,
        close_timeout=1,
        ping_interval=None,
        proxy=None,
        **options,
    )


async def message(client: ClientConnection) -> dict[str, Any]:
    """The next message. Raises ConnectionClosed after the last."""
    async with asyncio.timeout(PATIENCE_S):
        text = await client.recv()
    assert isinstance(text, str)
    found: dict[str, Any] = json.loads(text)
    return found


async def until(client: ClientConnection, event: str) -> dict[str, Any]:
    """The next message of that event; others are passed over."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await message(client))["event"] != event:
            pass
    return found


async def rest(client: ClientConnection) -> list[dict[str, Any]]:
    """All messages to the end."""
    found = []
    with suppress(ConnectionClosed):
        while True:
            found.append(await message(client))
    return found


async def assert_closed(client: ClientConnection, code: int, reason: str) -> None:
    """It is over without another word, and was closed so."""
    assert await rest(client) == []
    assert (client.close_code, client.close_reason) == (code, reason)


async def refused(
    site: Site, path: str, headers: Mapping[str, str] | None = None, origin: str | None = None
) -> tuple[int, str, Mapping[str, str]]:
    """Status, code and headers of a handshake that is refused, with a problem document."""
    with pytest.raises(InvalidStatus) as raised:
        async with connected(site, path, headers, origin=origin):
            pass
    response = raised.value.response
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = json.loads(response.body)
    assert problem["status"] == response.status_code
    return response.status_code, problem["code"], response.headers


class BareSocket:
    """A WebSocket whose frames are written by hand, and read only when asked for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        """A frame. Its mask is zero, which masks nothing."""
        self.writer.write(frame_head(opcode, len(payload), fin=fin) + payload)

    async def ended(self) -> bytes:
        """Whatever comes to the end of the connection."""
        found = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                while data := await self.reader.read(65536):
                    found += data
        return found


def frame_head(opcode: int, length: int, *, fin: bool = True) -> bytes:
    """The head of a client's frame (RFC 6455, section 5.2)."""
    first = opcode | (0x80 if fin else 0)
    return struct.pack("!BBQ4x", first, 0xFF, length)


def handshake(site: Site, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{site.port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join((*lines, "", "")).encode()


@asynccontextmanager
async def bare_socket(
    site: Site,
    path: str,
    headers: Mapping[str, str],
    *,
    receive_bytes: int | None = None,
    early: bytes = b"",
) -> AsyncIterator[tuple[BareSocket, bytes]]:
    """A WebSocket and the head of the answer; `early` is sent together with the handshake."""
    raw = socket.socket()
    if receive_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", site.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=receive_bytes or 65536)
    try:
        writer.write(handshake(site, path, headers) + early)
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        yield BareSocket(reader, writer), head
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
