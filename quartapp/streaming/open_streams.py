"""The streams this process has open, and what concerns all of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class OpenStreams:
    """Wakes every open stream when the server begins to drain.

    One task waits on behalf of all, and only while a stream is open.
    """

    def __init__(self, drain: asyncio.Event) -> None:
        self._drain = drain
        self._wakers: dict[object, Callable[[], None]] = {}
        self._watching: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._wakers)

    @property
    def draining(self) -> bool:
        return self._drain.is_set()

    @contextmanager
    def opened(self, wake: Callable[[], None]) -> Iterator[None]:
        """Count one more; `wake` is called when the drain begins."""
        key = object()
        self._wakers[key] = wake
        if self._watching is None:
            self._watching = asyncio.create_task(self._wake_at_drain(), name="drain-watch")
        try:
            yield
        finally:
            del self._wakers[key]
            if not self._wakers:
                self._watching.cancel()
                self._watching = None

    async def _wake_at_drain(self) -> None:
        await self._drain.wait()
        for wake in list(self._wakers.values()):
            wake()
