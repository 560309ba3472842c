"""Hypercorn's side of a WebSocket, made safe for clients that talk and cheap for those that listen.

Hypercorn has no setting for any of this, so its class is replaced by one derived from it;
tests/integration/test_websocket.py holds that to the installed release.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from hypercorn.protocol import h2, h11
from hypercorn.protocol.events import Event, StreamClosed
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


def replace_websockets() -> None:
    """Have every WebSocket of this process be one of these."""
    for protocol in (h11, h2):
        protocol.WSStream = BoundedStream  # type: ignore[attr-defined]
