"""The event-stream codec: events to bytes (WHATWG HTML, section 9.2, server-sent events).

Strict where parsers are lenient: names come from a closed set, ids are digits, and one event is one
`data` line of JSON, so no text of a user can end a line, start a field or move a cursor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

from jobs.model import Status, StatusMessage

# A status event's id, or a place after it. 19 digits hold any bigint; at this length and alphabet a
# browser sends Last-Event-ID to another origin without a preflight request.
EVENT_ID = re.compile(r"[0-9]{1,19}(-[0-9]{1,9})?")
CONTROL = re.compile(r"[\x00-\x1f]+")


class EventName(StrEnum):
    """Every event a stream may carry. Never `error`: browsers raise their own `onerror` for it."""

    HELLO = "hello"  # the first
    PROGRESS = "progress"  # a status event after which more will come
    SEGMENT = "segment"  # a piece of the transcript
    COMPLETE = "complete"  # the last status event of a success
    FAILED = "failed"  # the last status event of a failure
    CANCELLED = "cancelled"  # the last status event of a cancelled session
    RESET = "reset"  # the cursor is not known; a snapshot follows
    HEARTBEAT = "heartbeat"  # nothing else to say
    IDLE = "idle"  # ended: nothing happened for long
    LIFETIME = "lifetime"  # ended: open for long enough
    RESTARTING = "restarting"  # ended: the server stops
    UNAUTHORIZED = "unauthorized"  # ended: signed out, expired, or access withdrawn
    GONE = "gone"  # ended: the session was deleted
    REPLACED = "replaced"  # ended: the same client opened another stream


LAST_EVENT = {
    Status.COMPLETED: EventName.COMPLETE,
    Status.FAILED: EventName.FAILED,
    Status.CANCELLED: EventName.CANCELLED,
}


@dataclass(frozen=True)
class ServerSentEvent:
    """One block of a stream: at most one event, with its id, a reconnect delay, or a comment.

    `data` is JSON on one line. Raises ValueError for anything that could be read as something else.
    """

    event: EventName
    data: str
    id: str | None = None
    retry_ms: int | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.event, EventName):
            raise ValueError("the name of an event comes from the closed set")
        if not self.data or CONTROL.search(self.data):
            raise ValueError("data is one line of JSON")
        if self.id is not None and not EVENT_ID.fullmatch(self.id):
            raise ValueError("an id is digits, or digits-digits")
        if self.retry_ms is not None and self.retry_ms < 0:
            raise ValueError("a delay is a whole number of milliseconds")
        if self.comment is not None and CONTROL.search(self.comment):
            raise ValueError("a comment is one line")

    @cached_property
    def encoded(self) -> bytes:
        """The block, made once however many streams send it."""
        lines = []
        if self.comment is not None:
            lines.append(f": {self.comment}")
        if self.retry_ms is not None:
            lines.append(f"retry: {self.retry_ms:d}")
        if self.id is not None:
            lines.append(f"id: {self.id}")
        lines.append(f"event: {self.event.value}")
        lines.append(f"data: {self.data}")
        return "\n".join((*lines, "", "")).encode()


@lru_cache(maxsize=1024)
def status_event(message: StatusMessage, *, last: bool) -> ServerSentEvent:
    """A status event as all streams send it.

    `last` says that the stream ends with it. A terminal status that a retry has since overtaken is
    progress like any other, so the names `complete`, `failed` and `cancelled` always mean the end.
    """
    name = LAST_EVENT[message.status] if last else EventName.PROGRESS
    return ServerSentEvent(name, one_line(message.text), id=str(message.id))


def one_line(text: str) -> str:
    """The same JSON on one line: outside strings, line ends and tabs are but white space, and
    inside strings JSON has none (RFC 8259, sections 2 and 7)."""
    return CONTROL.sub(" ", text)


def json_line(fields: Mapping[str, Any]) -> str:
    """JSON on one line."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
