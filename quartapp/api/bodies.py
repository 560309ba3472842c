"""The bodies of requests and answers, as the OpenAPI document shows them: sessions and results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from quart_schema.pydantic import File

from jobs.model import Segment, Stage, Status
from jobs.sessions import Session
from jobs.subtitles import to_text
from jobs.waiting import ExpectedTurn
from quartapp.problems import MEDIA_TYPE


def printable(value: str) -> str:
    if "\0" in value:
        raise ValueError("a NUL character stands for nothing")
    return value


PlainText = Annotated[str, AfterValidator(printable)]


class RequestBody(BaseModel):
    """Unknown fields are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(BaseModel):
    code: str
    message: str


class ProblemBody(BaseModel):
    """RFC 9457."""

    media_type: ClassVar[str] = MEDIA_TYPE

    type: str
    title: str
    status: int
    code: str
    detail: str


class SessionBody(BaseModel):
    id: UUID
    owner_id: UUID
    owner_email: str
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
    def of(
        cls, session: Session, owner_email: str, turn: ExpectedTurn | None = None
    ) -> SessionBody:
        return cls(
            id=session.id,
            owner_id=session.owner_id,
            owner_email=owner_email,
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
    q: PlainText | None = Field(
        None, max_length=300, description="Part of the title or the file name, in either case."
    )
    status: Status | None = Field(None, description="Those in this status alone.")
    owner_id: UUID | None = Field(None, description="Those of one person alone.")


class WordBody(BaseModel):
    """A recognised word; seconds from the start of the recording, confidence from 0 to 1."""

    text: str
    start_s: float
    end_s: float
    confidence: float | None


class SegmentBody(BaseModel):
    """A timed piece of the transcript; `idx` counts from 0 without gaps."""

    idx: int
    start_s: float
    end_s: float
    text: str
    words: list[WordBody]


class TranscriptBody(BaseModel):
    session_id: UUID
    language: str | None
    engine: str | None
    duration_s: float | None
    text: str
    segments: list[SegmentBody]


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
