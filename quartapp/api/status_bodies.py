"""The bodies of the status: what polling answers, and what each event of a stream carries."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from jobs.model import ProgressKind, Stage, Status
from quartapp.api.bodies import ErrorBody, SegmentBody
from quartapp.streaming.encoder import EventName


class StatusBody(BaseModel):
    """One status event; seconds are floats, times are UTC, unknown values are null."""

    session_id: UUID
    id: int
    prev_id: int
    attempt: int
    status: Status
    stage: Stage
    progress: int
    progress_kind: ProgressKind
    message: str
    timestamp: datetime
    duration_processed: float | None
    duration_total: float | None
    estimated_completion: datetime | None
    processing_speed: float | None
    segments: int
    error: ErrorBody | None


class LatestStatusBody(StatusBody):
    """While it waits, also its place in the queue (1 is begun next), and when any worker was last
    heard of; while it is worked on, when its own was."""

    queue_position: int | None
    worker_seen_at: datetime | None


class HistoryBody(BaseModel):
    events: list[StatusBody]
    next_after: int | None


class HistoryQuery(BaseModel):
    after: int = Field(0, ge=0, le=2**53)
    limit: int = Field(200, ge=1, le=1000)


class TicketBody(BaseModel):
    """`ticket` goes into `?ticket=` of one stream of that session, and is then used up."""

    ticket: str
    expires_at: datetime
    expires_in_s: int


class RosterQuery(BaseModel):
    """Where a stream of all sessions begins, and whose it is."""

    last_event_id: str | None = Field(None, description="As `Last-Event-ID`, which wins.")
    client_id: str | None = Field(
        None, max_length=64, description="One for each tab; takes over its own old slot."
    )


class DialectQuery(RosterQuery):
    """Where the stream of one session begins, and whose it is."""

    replay: Literal["all"] | None = Field(None, description="Begin with the first event.")
    ticket: str | None = Field(None, description="Instead of a header; good once.")


class StreamQuery(DialectQuery):
    """What a stream of one session brings as well."""

    segments: bool | None = Field(None, description="Send pieces of the transcript too.")


class HelloBody(BaseModel):
    """The first event: what to expect of this stream. `poll`: the database is asked now and then,
    since it cannot tell by itself."""

    stream_id: UUID
    server_time: datetime
    heartbeat_s: float
    idle_timeout_s: float
    max_lifetime_s: float
    transport: Literal["push", "poll"]


class HeartbeatBody(BaseModel):
    """There is nothing else to say; while it is worked on, when its worker was last heard of."""

    timestamp: datetime
    worker_seen_at: datetime | None
    transport: Literal["push", "poll"]


class ResetBody(BaseModel):
    """The cursor is not known; a snapshot follows."""

    reason: Literal["cursor_unknown"]


class EndingBody(BaseModel):
    """The stream ends with this event, and its name says why."""

    timestamp: datetime


class GoneBody(BaseModel):
    """This session was deleted, or may not be seen any more; the stream goes on."""

    session_id: UUID


STATUS_EVENTS = (EventName.PROGRESS, EventName.COMPLETE, EventName.FAILED, EventName.CANCELLED)

SESSION_EVENTS: dict[str, type[BaseModel]] = {
    EventName.HELLO: HelloBody,
    **dict.fromkeys(STATUS_EVENTS, StatusBody),
    EventName.SEGMENT: SegmentBody,
    EventName.RESET: ResetBody,
    EventName.HEARTBEAT: HeartbeatBody,
    EventName.IDLE: EndingBody,
    EventName.LIFETIME: EndingBody,
    EventName.RESTARTING: EndingBody,
    EventName.UNAUTHORIZED: EndingBody,
    EventName.GONE: EndingBody,
    EventName.REPLACED: EndingBody,
}

ROSTER_EVENTS = {
    name: body for name, body in SESSION_EVENTS.items() if name != EventName.SEGMENT
} | {EventName.GONE: GoneBody}
