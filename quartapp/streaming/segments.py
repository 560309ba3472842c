"""Segments of transcripts for all streams of a process: what several want is read once."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias
from uuid import UUID

import structlog

from jobs.database import DATABASE_ERRORS, Pool, connection_within
from jobs.model import Segment
from jobs.segments import select_segments
from quartapp.streaming.encoder import EventName, ServerSentEvent, json_line

log = structlog.get_logger()

PAGE_SIZE = 100
KEPT_PAGES = 256
RETRY_MIN_S = 0.2
RETRY_MAX_S = 1.0

Page: TypeAlias = tuple[Segment, ...]
Want: TypeAlias = tuple[UUID, int, int]


class SegmentReader:
    """Reads segments by their places. They never change once written, so pages are kept a while."""

    def __init__(self, pool: Pool, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._reads: OrderedDict[Want, asyncio.Task[Page]] = OrderedDict()

    async def read(self, session_id: UUID, first: int, end: int) -> Page:
        """Those from `first` up to and without `end`; fewer when there are no more.

        Raises what the database raises.
        """
        want = (session_id, first, end)
        task = self._reads.get(want)
        if task is None:
            task = self._reads[want] = asyncio.create_task(self._read(want), name="segments")
            task.add_done_callback(_retrieve)
            while len(self._reads) > KEPT_PAGES:
                self._reads.popitem(last=False)
        try:
            page = await asyncio.shield(task)
        except Exception:
            if self._reads.get(want) is task:
                del self._reads[want]
            raise
        if len(page) < end - first and self._reads.get(want) is task:
            del self._reads[want]  # there may be more another time
        return page

    async def _read(self, want: Want) -> Page:
        async with connection_within(self._pool, self._timeout_s) as connection:
            return tuple(await select_segments(connection, *want))


def _retrieve(task: asyncio.Task[Page]) -> None:
    """Whoever asked may have left."""
    if not task.cancelled():
        task.exception()


class SegmentFeed:
    """The segments of one session to one stream, each once: `begin` names how many there are by
    now, `take` gives those that are here, and `on_ready` is called when there are some to take."""

    def __init__(
        self, reader: SegmentReader, session_id: UUID, sent: int, on_ready: Callable[[], None]
    ) -> None:
        """`sent`: how many the client has."""
        self._reader = reader
        self._session_id = session_id
        self._on_ready = on_ready
        self._sent = sent
        self._until = sent
        self._reading: asyncio.Task[Page] | None = None

    def begin(self, until: int) -> None:
        """Bring those up to and without the one of this number."""
        self._until = max(self._until, until)
        self._continue()

    @property
    def pending(self) -> bool:
        """Whether some have still to be taken."""
        return self._sent < self._until

    def take(self) -> Page:
        """Those that have been read; none while they are being read."""
        if self._reading is None or not self._reading.done():
            return ()
        page = self._reading.result()
        self._reading = None
        self._sent += len(page)
        if not page:  # deleted with their session, of which others will tell
            self._sent = self._until
        self._continue()
        return page

    def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()

    def _continue(self) -> None:
        if self.pending and self._reading is None:
            end = min(self._until, self._sent + PAGE_SIZE)
            self._reading = asyncio.create_task(self._read(end), name="segment-feed")
            self._reading.add_done_callback(lambda _: self._on_ready())

    async def _read(self, end: int) -> Page:
        while True:
            try:
                return await self._reader.read(self._session_id, self._sent, end)
            except DATABASE_ERRORS as error:
                log.debug("segments_not_read", session_id=str(self._session_id), error=repr(error))
            except Exception:  # its stream waits for nothing else, so it must go on
                log.exception("segment_read_broke", session_id=str(self._session_id))
            await asyncio.sleep(random.uniform(RETRY_MIN_S, RETRY_MAX_S))  # noqa: S311


@lru_cache(maxsize=1024)
def segment_event(after: int, segment: Segment) -> ServerSentEvent:
    """A segment as all streams send it. Its id is the place of a reader that has the status events
    up to `after` (0: none yet), and the segments up to this one."""
    data = json_line(segment.fields())
    return ServerSentEvent(EventName.SEGMENT, data, id=f"{after}-{segment.idx + 1}")
