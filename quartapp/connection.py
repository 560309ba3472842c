"""Quart's request and its ASGI connection, with the two rules they lack."""

from __future__ import annotations

import asyncio
from typing import Any

from quart import Request
from quart.asgi import ASGIHTTPConnection
from quart.utils import cancel_tasks, raise_task_exceptions

from jobs.settings import KIB

MAX_BODY_BYTES = 64 * KIB
UPLOAD = ("POST", "/api/v1/sessions")


class LimitedRequest(Request):
    """A body is small, but for the one route that reads it as it arrives and limits it itself."""

    def __init__(self, method: str, scheme: str, path: str, *args: Any, **options: Any) -> None:
        options["max_content_length"] = None if (method, path) == UPLOAD else MAX_BODY_BYTES
        super().__init__(method, scheme, path, *args, **options)


class Connection(ASGIHTTPConnection):
    """One request. When the server gives it up, its handler is ended too, and before the services
    it works with are closed."""

    async def __call__(self, receive: Any, send: Any) -> None:
        request = self._create_request_from_scope(send)
        tasks = {
            asyncio.ensure_future(self.handle_messages(request, receive)),
            asyncio.ensure_future(self.handle_request(request, send)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_tasks({task for task in tasks if not task.done()})
        raise_task_exceptions(done)
