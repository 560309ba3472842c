"""Quart's request and its ASGI connection, with the two rules they lack."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from quart import Quart, Request, Response
from quart.asgi import ASGIHTTPConnection, ASGIWebsocketConnection
from quart.sessions import SessionInterface, SessionMixin
from quart.utils import cancel_tasks, raise_task_exceptions
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.wrappers import Response as WerkzeugResponse

from jobs.settings import KIB
from quartapp.hypercorn_wire import replace_protocols

MAX_BODY_BYTES = 64 * KIB
UPLOAD = ("POST", "/api/v1/sessions")

replace_protocols()


class NoSessions(SessionInterface):
    """Sign-ins are not kept in Quart's session, whose signing is not set up for each request."""

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> None:
        return None

    async def save_session(
        self, app: Quart, session: SessionMixin, response: Response | WerkzeugResponse | None
    ) -> None:
        pass


class LimitedRequest(Request):
    """A body is small, but for the one route that reads it as it arrives and limits it itself."""

    def __init__(self, method: str, scheme: str, path: str, *args: Any, **options: Any) -> None:
        self.closers: list[Callable[[], None]] = []
        options["max_content_length"] = None if (method, path) == UPLOAD else MAX_BODY_BYTES
        super().__init__(method, scheme, path, *args, **options)

    def on_close(self, closer: Callable[[], None]) -> None:
        """Have this called when the request is over: answered to the end, or given up, or left."""
        self.closers.append(closer)


class Connection(ASGIHTTPConnection):
    """One request. When the server gives it up, its handler is ended too, and before the services
    it works with are closed."""

    async def __call__(self, receive: Any, send: Any) -> None:
        request = self._create_request_from_scope(send)
        try:
            await _first_of(
                self.handle_messages(request, receive), self.handle_request(request, send)
            )
        finally:
            for closer in cast(LimitedRequest, request).closers:
                closer()


class Socket(ASGIWebsocketConnection):
    """One WebSocket, on which the client has nothing to say. What it says all the same is dropped;
    Quart would keep it until it is asked for."""

    async def __call__(self, receive: Any, send: Any) -> None:
        websocket = self._create_websocket_from_scope(send)
        await _first_of(self.handle_messages(receive), self.handle_websocket(websocket, send))

    async def handle_messages(self, receive: Any) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass


async def _first_of(*parts: Coroutine[Any, Any, None]) -> None:
    """Run them until one is done, and end the others."""
    tasks = {asyncio.ensure_future(part) for part in parts}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_tasks({task for task in tasks if not task.done()})
    raise_task_exceptions(done)
