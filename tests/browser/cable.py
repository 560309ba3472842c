"""The cable between a browser and the product: it breaks in every way, and shows what was asked."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

STREAM = re.compile(r"/status/stream(\?|$)")
REFUSAL = "HTTP/1.1 {} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
PIECE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came over the cable."""

    method: str
    path: str
    headers: dict[str, str]
    at: float  # of a clock of seconds

    @property
    def is_stream(self) -> bool:
        return STREAM.search(self.path) is not None


@dataclass(eq=False)
class Way:
    """One connection of the browser's, and that of the proxy behind it."""

    browser: asyncio.StreamWriter
    server: asyncio.StreamWriter
    thawed: asyncio.Event
    streams: bool = False  # what is being answered
    told_head: bool = False
    held: bytearray = field(default_factory=bytearray)

    def flush(self) -> None:
        """Let the held bytes go."""
        if self.held:
            self.browser.write(bytes(self.held))
            self.held.clear()


class Cable:
    """A TCP proxy in front of a server; it stays at its address when the server comes and goes."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._ways: set[Way] = set()
        self._flows: set[asyncio.Task[None]] = set()
        self._thawed = _set_event()
        self._plugged = True
        self._holds = False
        self._holds_heads = True
        self._bytes_per_s = 0.0
        self._refusal = ""
        self.asked: list[Asked] = []

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._flows:
            task.cancel()
        await asyncio.gather(*self._flows, return_exceptions=True)

    @property
    def url(self) -> str:
        """The server, at the end of this cable."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def asked_for(self, path: str) -> list[Asked]:
        """The requests for that path, whatever their query."""
        return [asked for asked in self.asked if asked.path.partition("?")[0] == path]

    @property
    def streams_asked(self) -> list[Asked]:
        """The requests for streams."""
        return [asked for asked in self.asked if asked.is_stream]

    def cut(self) -> None:
        """End every connection without a word."""
        for way in list(self._ways):
            way.browser.transport.abort()
            way.server.transport.abort()

    def unplug(self) -> None:
        """Cut, and let nobody in until `plug`."""
        self._plugged = False
        self.cut()

    def plug(self) -> None:
        self._plugged = True

    def freeze(self) -> None:
        """Carry nothing more until `thaw`, and say nothing of it: no connection ends."""
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    def strand_streams(self) -> None:
        """Leave the streams there are for dead, and say nothing of it; all else works."""
        for way in self._ways:
            if way.streams:
                way.thawed = asyncio.Event()

    def hold(self, *, heads: bool = True) -> None:
        """Keep back what streams send, as a proxy does that collects answers; or but their heads
        are let through."""
        self._holds = True
        self._holds_heads = heads

    def let_lump_go(self) -> None:
        """Pass on what was kept back, and go on keeping back."""
        for way in self._ways:
            way.flush()

    def release(self) -> None:
        """Pass on what was kept back, and all that comes."""
        self._holds = False
        self.let_lump_go()

    def slow_down(self, bytes_per_s: float) -> None:
        """Streams get no more than that."""
        self._bytes_per_s = bytes_per_s

    def refuse_streams(self, status: int | None) -> None:
        """Answer that to whoever asks for a stream; None: let them through again."""
        self._refusal = "" if status is None else REFUSAL.format(status)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._flows.add(task)
        way: Way | None = None
        try:
            if not self._plugged:
                raise ConnectionResetError
            back_reader, back = await asyncio.open_connection(
                self._target.hostname, self._target.port
            )
            way = Way(writer, back, self._thawed)
            self._ways.add(way)
            await asyncio.gather(
                self._carry_requests(way, reader), self._carry_answers(way, back_reader)
            )
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._flows.discard(task)
            writer.close()
            if way is not None:
                self._ways.discard(way)
                way.server.close()

    async def _carry_requests(self, way: Way, reader: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                asked = _asked(head)
                self.asked.append(asked)
                await way.thawed.wait()
                way.streams = asked.is_stream
                way.told_head = False
                if asked.is_stream and self._refusal:
                    way.browser.write(self._refusal.encode())
                    break
                way.server.write(head)
                await self._carry_body(way, reader, int(asked.headers.get("content-length", 0)))
        await way.thawed.wait()
        way.server.close()

    async def _carry_body(self, way: Way, reader: asyncio.StreamReader, left_bytes: int) -> None:
        while left_bytes > 0:
            data = await reader.read(min(left_bytes, 65536))
            if not data:
                raise ConnectionResetError
            left_bytes -= len(data)
            await way.thawed.wait()
            way.server.write(data)
            await way.server.drain()

    async def _carry_answers(self, way: Way, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            await way.thawed.wait()
            if way.streams:
                await self._carry_stream(way, data)
            else:
                way.browser.write(data)
            await way.browser.drain()
        await way.thawed.wait()
        way.flush()
        way.browser.close()

    async def _carry_stream(self, way: Way, data: bytes) -> None:
        if not way.told_head and not self._holds_heads:
            head, blank, data = data.partition(b"\r\n\r\n")
            way.browser.write(head + blank)
        way.told_head = True
        if self._holds:
            way.held += data
            return
        if not self._bytes_per_s:
            way.browser.write(data)
            return
        for start in range(0, len(data), PIECE_BYTES):
            way.browser.write(data[start : start + PIECE_BYTES])
            await asyncio.sleep(PIECE_BYTES / self._bytes_per_s)


def _asked(head: bytes) -> Asked:
    start, *lines = head.decode("latin-1").split("\r\n")
    fields = [line.partition(": ") for line in lines if line]
    headers = {name.lower(): value for name, _, value in fields}
    method, path, _ = start.split(" ", 2)
    return Asked(method, path, headers, time.monotonic())


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
