"""Hypercorn's side of a connection, made safe for clients that say more than they are asked.

Hypercorn has no setting for any of this, so its classes are replaced by some derived from them;
tests/integration/test_websocket.py and tests/conformance/test_leaving.py hold that to the installed
release.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import hypercorn.protocol
from h11 import IDLE, SERVER, Connection
from hypercorn.events import Closed
from hypercorn.events import Event as WireEvent
from hypercorn.protocol import h2, h11
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.typing import WebsocketAcceptEvent
from wsproto.events import Ping
from wsproto.frame_protocol import CloseReason


class BoundedStream(WSStream):
    """A WebSocket that keeps nothing for a client that says too much, or too early, and leaves
    nothing running once it is over."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._over = asyncio.Event()

    async def handle(self, event: Event) -> None:
        if isinstance(event, StreamClosed):
            self._over.set()
        await super().handle(event)
        if self.closed and not self._over.is_set():
            # Refused by Hypercorn itself, for a handshake that is none, or for what followed it too
            # early. It would tell the app nothing, which would go on to serve nobody, and would
            # keep the connection.
            self._over.set()
            if self.app_put is not None:
                await self.app_put(
                    {"type": "websocket.disconnect", "code": CloseReason.ABNORMAL_CLOSURE.value}
                )
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        # Uncompressed: the state of a compressor is many times that of a stream, and what is small
        # on the wire may unpack to megabytes.
        self.handshake.extensions = None
        await super()._accept(message)

    async def _handle_events(self) -> None:
        await super()._handle_events()
        if self.buffer.length > self.buffer.max_length:
            # The client has been told that its message is too big. It would be collected further.
            self.buffer.clear()
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_pings(self) -> None:
        # Until the stream is over, and not for one more interval, with its connection kept for it.
        while not self._over.is_set():
            await self._send_wsproto_event(Ping())
            with suppress(TimeoutError):
                async with asyncio.timeout(self.config.websocket_ping_interval):
                    await self._over.wait()


class EndingH11(H11Protocol):
    """HTTP/1 whose reader ends with its connection. A request sent before the last one was answered
    waits for its turn, and Hypercorn would have it wait when there is none to come."""

    async def handle(self, event: WireEvent) -> None:
        await super().handle(event)
        if isinstance(event, Closed):
            await self._let_go()

    async def _maybe_recycle(self) -> None:
        await super()._maybe_recycle()
        if self.connection.our_state is not IDLE:  # no further request will be answered
            await self._let_go()

    async def _let_go(self) -> None:
        self.connection = Connection(SERVER)
        await self.can_read.set()


def replace_protocols() -> None:
    """Have every connection of this process be served by these."""
    hypercorn.protocol.H11Protocol = EndingH11  # type: ignore[attr-defined]
    for protocol in (h11, h2):
        protocol.WSStream = BoundedStream  # type: ignore[attr-defined]
