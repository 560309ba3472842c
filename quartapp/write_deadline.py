"""Cuts streams whose client does not read.

A write waits without limit once the buffers on the way are full, and whoever writes waits with it:
no timer of the stream itself can act. So the deadline is here, around the write.
"""

from __future__ import annotations

import asyncio
from typing import Any

STREAM_TYPE = b"text/event-stream"

# In the scope of a request: a function to call when its client is cut off.
ON_SLOW = "quartapp.on_slow"


class SlowReader(TimeoutError):
    """The client took nothing for too long; the answer is over."""


class WriteDeadline:
    """ASGI wrapper: an event stream or a WebSocket whose client takes nothing for `timeout_s` ends
    with SlowReader. The connection goes when the kernel gives its client up (`TCP_USER_TIMEOUT`).
    """

    def __init__(self, app: Any, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        streaming = scope["type"] == "websocket"
        cut = False

        async def send_in_time(message: Any) -> None:
            nonlocal streaming, cut
            if cut:
                return
            if message["type"] == "http.response.start":
                streaming = is_stream(message)
            if not streaming:
                await send(message)
                return
            try:
                async with asyncio.timeout(self._timeout_s):
                    await send(message)
            except TimeoutError as error:
                cut = True
                scope.get(ON_SLOW, _nobody)()
                raise SlowReader from error

        await self._app(scope, receive, send_in_time)


def is_stream(start: Any) -> bool:
    """Whether an answer that starts so is an event stream."""
    return any(
        name.lower() == b"content-type" and value.startswith(STREAM_TYPE)
        for name, value in start["headers"]
    )


def _nobody() -> None:
    pass
