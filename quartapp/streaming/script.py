"""What a stream says of itself: the first event, heartbeats, and why it ends."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from quartapp.streaming.encoder import EventName, ServerSentEvent, json_line
from quartapp.streaming.open_streams import OpenStream
from quartapp.streaming.settings import StreamSettings

# An EventSource comes back by itself, and two tabs of one name would replace each other for ever.
REPLACED_RETRY_MS = 3_600_000


def hello(stream: OpenStream, settings: StreamSettings, transport: str) -> ServerSentEvent:
    """The first event of every stream."""
    return make_event(
        EventName.HELLO,
        retry_ms=_retry_ms(settings.retry_min_ms, settings.retry_max_ms),
        stream_id=str(stream.id),
        server_time=_timestamp(datetime.now(UTC)),
        heartbeat_s=settings.heartbeat_s,
        idle_timeout_s=settings.idle_timeout_s,
        max_lifetime_s=settings.max_lifetime_s,
        transport=transport,
    )


def heartbeat(transport: str, worker_seen_at: datetime | None) -> ServerSentEvent:
    """There is nothing else to say."""
    return make_event(
        EventName.HEARTBEAT,
        comment="heartbeat",
        timestamp=_timestamp(datetime.now(UTC)),
        worker_seen_at=None if worker_seen_at is None else _timestamp(worker_seen_at),
        transport=transport,
    )


def last_event(ending: EventName, settings: StreamSettings) -> ServerSentEvent:
    """Why the stream ends, and after how long to come back."""
    retry_ms = _retry_ms(settings.retry_min_ms, settings.retry_max_ms)
    if ending is EventName.RESTARTING:
        retry_ms = _retry_ms(settings.retry_min_ms, settings.restart_retry_max_ms)
    elif ending is EventName.REPLACED:
        retry_ms = REPLACED_RETRY_MS
    return make_event(
        ending,
        retry_ms=retry_ms,
        timestamp=_timestamp(datetime.now(UTC)),
    )


def make_event(
    name: EventName, *, retry_ms: int | None = None, comment: str | None = None, **fields: Any
) -> ServerSentEvent:
    return ServerSentEvent(name, json_line(fields), retry_ms=retry_ms, comment=comment)


def _retry_ms(shortest_ms: int, longest_ms: int) -> int:
    return random.randint(shortest_ms, max(shortest_ms, longest_ms))  # noqa: S311 - spreads load


def _timestamp(moment: datetime) -> str:
    """As in status messages: UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
