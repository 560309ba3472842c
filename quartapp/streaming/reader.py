"""Reads of status events for all streams of a process: what is wanted together is one query."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TypeAlias
from uuid import UUID

from jobs.database import Pool, connection_within
from jobs.statuses import StatusPage, select_status_pages

MAX_BATCH = 50  # times the page size: the most rows held at once

Want: TypeAlias = tuple[UUID, int | None]


class StatusReader:
    """Answers reads in batches, one at a time, so that a thousand streams that open together, or
    come back together, take one connection of the pool and not all of them.

    Equal reads share one answer. A read never joins a query that is already under way: that one may
    have looked before the event that caused the read.
    """

    def __init__(self, pool: Pool, *, page_size: int, timeout_s: float) -> None:
        self._pool = pool
        self._page_size = page_size
        self._timeout_s = timeout_s
        self._wanted: dict[Want, asyncio.Future[StatusPage]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def read(self, session_id: UUID, after: int | None) -> StatusPage:
        """The events after `after`, one page of them; for None the newest alone.

        Raises what the database raises, TimeoutError included.
        """
        want = (session_id, after)
        answer = self._wanted.get(want)
        if answer is None:
            answer = self._wanted[want] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all(), name="status-reader")
        return await asyncio.shield(answer)

    async def _read_all(self) -> None:
        try:
            while self._wanted:
                batch = dict(islice(self._wanted.items(), MAX_BATCH))
                for want in batch:
                    del self._wanted[want]
                await self._answer(batch)
        finally:
            self._reading = None

    async def _answer(self, batch: dict[Want, asyncio.Future[StatusPage]]) -> None:
        try:
            async with connection_within(self._pool, self._timeout_s) as connection:
                pages = await select_status_pages(connection, list(batch), self._page_size)
        except Exception as error:  # each asker gets it, and decides
            for answer in batch.values():
                answer.set_exception(error)
                answer.exception()  # whoever asked may have left
        else:
            for answer, page in zip(batch.values(), pages, strict=True):
                answer.set_result(page)
