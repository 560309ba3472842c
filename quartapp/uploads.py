"""Request bodies that are larger than memory: flow control, and reading `multipart/form-data`.

Quart takes in a body as fast as it arrives, however slowly it is used, and an answer sent before
the body has been read is lost when the connection is then reset. `FlowControl`, around the app,
settles both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias, cast

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser
from quart import Request, request
from werkzeug.http import parse_options_header

from jobs.settings import KIB, MIB
from quartapp.problems import Problem

SCOPE_KEY = "quartapp.flow"
WINDOW_BYTES = 1 * MIB
MAX_FIELD_BYTES = 64 * KIB
MAX_HEADER_BYTES = 8 * KIB
MAX_PARTS = 20
FormEvent: TypeAlias = MultipartSegment | bytearray | bytes | None

LINGER_S = 3.0
LINGER_BYTES = 64 * MIB


class Flow:
    """How much of one request's body has arrived and not been used yet."""

    def __init__(self) -> None:
        self.pending_bytes = 0
        self.complete = False
        self._room = asyncio.Event()
        self._room.set()

    def arrived(self, size_bytes: int, complete: bool) -> None:
        self.pending_bytes += size_bytes
        self.complete = complete
        if self.pending_bytes >= WINDOW_BYTES:
            self._room.clear()

    def used(self, size_bytes: int) -> None:
        self.pending_bytes -= size_bytes
        if self.pending_bytes < WINDOW_BYTES:
            self._room.set()

    async def room(self) -> None:
        await self._room.wait()


class FlowControl:
    """ASGI wrapper: takes no more of a body than one window ahead of its reader, and lingers
    (RFC 9112 §9.6) over the rest of a body that was answered early, so that the answer arrives."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        flow = Flow()
        scope[SCOPE_KEY] = flow

        async def receive_with_room() -> Any:
            await flow.room()
            message = await receive()
            if message["type"] == "http.request":
                flow.arrived(len(message.get("body", b"")), not message.get("more_body", False))
            else:
                flow.complete = True
            return message

        async def send_after_body(message: Any) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if last and not flow.complete:
                if message.get("body"):
                    await send({**message, "more_body": True})
                    message = {**message, "body": b""}
                await _discard(receive)
            await send(message)

        await self._app(scope, receive_with_room, send_after_body)


async def _discard(receive: Any) -> None:
    taken = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while taken < LINGER_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def body_chunks(current: Request, idle_timeout_s: float) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises Problem 408 when nothing comes for so long."""
    flow = cast("Flow | None", current.scope.get(SCOPE_KEY))
    body = aiter(current.body)
    while True:
        try:
            async with asyncio.timeout(idle_timeout_s):
                chunk = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Problem(408, "upload_stalled", "The upload stopped sending data.") from None
        yield chunk
        if flow is not None:
            flow.used(len(chunk))


class MultipartForm:
    """Reads one form (RFC 7578) with one file, whose bytes pass through and are never gathered.

    Call `file()`, then iterate `file_chunks()`, then `finish()`; the text fields, wherever they
    stood, are then in `fields`. Raises Problem 400 for a form that is none, 413 for one too large,
    415 for another kind of body.
    """

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        media_type, options = parse_options_header(content_type)
        boundary = options.get("boundary", "")
        if media_type != "multipart/form-data" or not boundary:
            raise Problem(
                415,
                "not_multipart",
                "Send the recording as multipart/form-data, in a field named file.",
            )
        self.fields: dict[str, str] = {}
        self._events = _form_events(boundary, chunks)

    async def file(self) -> str:
        """Read up to the file; returns its name. Raises Problem 400 when there is none."""
        async for event in self._events:
            if isinstance(event, MultipartSegment):
                if event.filename is None:
                    await self._field(event.name)
                elif event.name == "file":
                    return str(event.filename)
                else:
                    raise Problem(
                        400, "unexpected_file", "The recording belongs in a field named file."
                    )
        raise Problem(400, "file_missing", "There is no file in the request.")

    async def file_chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the file."""
        async for event in self._events:
            if event is None:
                return
            if not isinstance(event, MultipartSegment):
                yield bytes(event)

    async def finish(self) -> None:
        """Read what follows the file."""
        async for event in self._events:
            if isinstance(event, MultipartSegment):
                if event.filename is not None:
                    raise Problem(400, "unexpected_file", "Send one file at a time.")
                await self._field(event.name)

    async def _field(self, name: str) -> None:
        value = bytearray()
        async for event in self._events:
            if event is None or isinstance(event, MultipartSegment):
                break
            value += event
            if len(value) > MAX_FIELD_BYTES:
                raise Problem(413, "field_too_large", f"The field {name} is too long.")
        self.fields[name] = value.decode("utf-8", "replace")


async def _form_events(boundary: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[FormEvent]:
    """A segment when one begins, then its bytes, then None; to the end of the body."""
    try:
        with PushMultipartParser(
            boundary, max_segment_count=MAX_PARTS, max_header_size=MAX_HEADER_BYTES
        ) as parser:
            async for chunk in chunks:
                if not parser.closed:
                    for event in parser.parse(chunk):
                        yield event
    except ParserLimitReached as error:
        raise Problem(413, "form_too_large", "The form has too many or too long parts.") from error
    except MultipartError as error:
        raise Problem(400, "malformed_form", "The form is damaged or ends too early.") from error


def form_of_request(idle_timeout_s: float) -> MultipartForm:
    """The form of the request at hand."""
    return MultipartForm(
        request.headers.get("Content-Type", ""),
        body_chunks(request, idle_timeout_s),
    )
