"""What a session went through, told again from `processing_status`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

from jobs.database import Pool
from jobs.model import StatusMessage, status_channel
from jobs.statuses import select_statuses_after

PAGE = 500


async def history(pool: Pool, session_id: UUID) -> AsyncIterator[StatusMessage]:
    """Every event, oldest first."""
    after = 0
    while page := await select_statuses_after(pool, session_id, after, PAGE):
        for message in page:
            yield message
        after = page[-1].id


async def in_rhythm(
    messages: AsyncIterator[StatusMessage], speed: float | None
) -> AsyncIterator[StatusMessage]:
    """The same messages with the pauses they came with, divided by `speed`; at once without one."""
    last: datetime | None = None
    async for message in messages:
        at = message.at
        if speed is not None and last is not None:
            await asyncio.sleep(max(0.0, (at - last).total_seconds()) / speed)
        last = at
        yield message


async def publish_again(pool: Pool, message: StatusMessage) -> None:
    """Send a message once more to the session's live channel, with `"replay": true` in it.

    Streams drop it by its id; who listens on the channel itself sees it.
    """
    again = json.dumps({**message.fields(), "replay": True}, ensure_ascii=False)
    await pool.execute("SELECT pg_notify($1, $2)", status_channel(message.session_id), again)


def timeline_line(message: StatusMessage, start: datetime) -> str:
    """`+0:12.4   75 %  processing  transcribing  Transcribing… 7:30 of 10:00`."""
    fields: Any = message.fields()
    offset = (message.at - start).total_seconds()
    minutes, seconds = divmod(offset, 60)
    speed = fields["processing_speed"]
    tail = f"  ({speed:g}x)" if speed else ""
    attempt = f"  attempt {fields['attempt']}" if fields["attempt"] > 1 else ""
    return (
        f"+{int(minutes)}:{seconds:04.1f}  {fields['progress']:>3} %  {fields['status']:<10}  "
        f"{fields['stage']:<12}  {fields['message']}{tail}{attempt}"
    )
