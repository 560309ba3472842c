"""The cable between a browser and the product: it can be cut, and shows what was asked over it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came over the cable."""

    path: str
    headers: dict[str, str]
    at: float  # of a clock of seconds


class Cable:
    """A TCP proxy in front of a server."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._ends: set[asyncio.StreamWriter] = set()
        self._flows: set[asyncio.Task[None]] = set()
        self.asked: list[Asked] = []

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._flows, return_exceptions=True)

    @property
    def url(self) -> str:
        """The server, at the end of this cable."""
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def asked_for(self, path: str) -> list[Asked]:
        """The requests for that path, whatever their query."""
        return [asked for asked in self.asked if asked.path.partition("?")[0] == path]

    def cut(self) -> None:
        """End every connection without a word."""
        for end in list(self._ends):
            end.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._flows.add(task)
        back: asyncio.StreamWriter | None = None
        try:
            back_reader, back = await asyncio.open_connection(
                self._target.hostname, self._target.port
            )
            self._ends |= {writer, back}
            await asyncio.gather(
                self._carry_requests(reader, back), self._carry(back_reader, writer)
            )
        except OSError:
            pass
        finally:
            self._flows.discard(task)
            for end in filter(None, (writer, back)):
                self._ends.discard(end)
                end.close()

    async def _carry_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Requests without a body; the browser sends no others here."""
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                start, *lines = head.decode("latin-1").split("\r\n")
                fields = [line.partition(": ") for line in lines if line]
                headers = {name.lower(): value for name, _, value in fields}
                self.asked.append(Asked(start.split(" ")[1], headers, time.monotonic()))
                writer.write(head)
                await writer.drain()
        writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
