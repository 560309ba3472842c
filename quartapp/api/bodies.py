"""The bodies of requests and answers, as the OpenAPI document shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from quart_schema.pydantic import File

from jobs.model import ProgressKind, Role, Segment, Stage, Status
from jobs.sessions import Session
from jobs.subtitles import to_text
from jobs.waiting import ExpectedTurn
from quartapp.accounts import User, parse_address
from quartapp.passwords import MAX_LENGTH, MIN_LENGTH


def _printable(value: str) -> str:
    if "\0" in value:
        raise ValueError("a NUL character stands for nothing")
    return value


PlainText = Annotated[str, AfterValidator(_printable)]


class RequestBody(BaseModel):
    """Unknown fields are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid")


class Registration(RequestBody):
    email: Annotated[str, Field(max_length=254), AfterValidator(parse_address)]
    password: SecretStr = Field(min_length=MIN_LENGTH, max_length=MAX_LENGTH)


class Login(RequestBody):
    email: PlainText = Field(max_length=254)
    password: SecretStr = Field(max_length=MAX_LENGTH)


class UserBody(BaseModel):
    id: UUID
    email: str
    role: Role
    created_at: datetime

    @classmethod
    def of(cls, user: User) -> UserBody:
        return cls(id=user.id, email=user.email, role=user.role, created_at=user.created_at)


class SignedIn(BaseModel):
    """`token` is for `Authorization: Bearer`; the cookie of the same sign-in is set beside it."""

    token: str
    user: UserBody


class UserList(BaseModel):
    users: list[UserBody]
    next_cursor: str | None


class UserQuery(BaseModel):
    cursor: PlainText | None = Field(None, max_length=254)
    limit: int = Field(100, ge=1, le=500)


class Assignment(BaseModel):
    therapist_id: UUID
    patient_id: UUID


class AssignmentList(BaseModel):
    assignments: list[Assignment]


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


class ErrorBody(BaseModel):
    code: str
    message: str


class ProblemBody(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    code: str
    detail: str


class SessionBody(BaseModel):
    id: UUID
    owner_id: UUID
    title: str
    file_name: str
    language: str | None
    engine: str | None
    size_bytes: int
    duration_s: float | None
    status: Status
    stage: Stage
    progress: int
    attempt: int
    segments: int
    error: ErrorBody | None
    has_audio: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    queue_position: int | None = Field(None, description="While it waits; 1 is begun next.")
    estimated_start: datetime | None = Field(
        None, description="While it waits; null without ground for an estimate."
    )

    @classmethod
    def of(cls, session: Session, turn: ExpectedTurn | None = None) -> SessionBody:
        return cls(
            id=session.id,
            owner_id=session.owner_id,
            title=session.title,
            file_name=session.file_name,
            language=session.language,
            engine=session.engine,
            size_bytes=session.size_bytes,
            duration_s=session.duration_s,
            status=session.status,
            stage=session.stage,
            progress=session.progress,
            attempt=session.attempt,
            segments=session.segment_count,
            error=ErrorBody(code=session.error.code, message=session.error.message)
            if session.error
            else None,
            has_audio=session.audio_key is not None,
            created_at=session.created_at,
            started_at=session.started_at,
            finished_at=session.finished_at,
            queue_position=turn.turn.position if turn else None,
            estimated_start=turn.expected.start if turn else None,
        )


class UploadForm(BaseModel):
    """The form of an upload; only its documentation, since it is read as it arrives."""

    file: File = Field(description="The recording: any audio, or video with a sound track.")
    title: str | None = Field(None, max_length=300)
    language: str | None = Field(None, description="A language tag such as `en`.")
    patient_id: UUID | None = Field(None, description="Whose session it is to be.")


class SessionList(BaseModel):
    sessions: list[SessionBody]
    next_cursor: str | None


class SessionQuery(BaseModel):
    cursor: str | None = Field(None, max_length=200)
    limit: int = Field(50, ge=1, le=200)


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


class TranscriptBody(BaseModel):
    session_id: UUID
    language: str | None
    engine: str | None
    duration_s: float | None
    text: str
    segments: list[dict[str, Any]]


def transcript_body(session: Session, segments: Sequence[Segment]) -> dict[str, Any]:
    """The transcript as JSON has it."""
    return {
        "session_id": str(session.id),
        "language": session.language or session.detected_language,
        "engine": session.engine,
        "duration_s": session.duration_s,
        "text": to_text(segments).strip(),
        "segments": [segment.fields() for segment in segments],
    }
