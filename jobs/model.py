"""The words of the domain: statuses, stages, status messages, segments.

Everything here is a value. Enum members are the strings of the database and of the wire; a test
holds them equal to the CHECK constraints of the schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

# A recording is recognised in chunks of such lengths, each heard with some of the sound on either
# side of it, so that no word is cut.
MIN_CHUNK_S = 12.0
MAX_CHUNK_S = 30.0
CONTEXT_S = 3.0


class Status(StrEnum):
    """Where a session stands; the last three are terminal."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL_STATUSES


TERMINAL_STATUSES = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class Stage(StrEnum):
    """Where in the work a session is."""

    QUEUED = "queued"
    DECODING = "decoding"
    TRANSCRIBING = "transcribing"
    FINALIZING = "finalizing"
    DONE = "done"


class ProgressKind(StrEnum):
    """What the percentage rests on."""

    MEASURED = "measured"  # audio time recognised, of the whole
    ESTIMATED = "estimated"  # past runs
    NONE = "none"  # the length is not known


class Role(StrEnum):
    """What an account may see: own sessions; own and assigned patients'; everything."""

    PATIENT = "patient"
    THERAPIST = "therapist"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Word:
    """One recognised word; times in seconds from the start of the recording."""

    text: str
    start_s: float
    end_s: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Segment:
    """One timed piece of the transcript; `idx` counts from 0 without gaps within a session."""

    idx: int
    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()

    def fields(self) -> dict[str, Any]:
        """As transcripts, events and the database show it; times in seconds."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """Why a session failed: a stable code and a sentence."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """What a writer wants to say. The database adds ids, time, attempt and the rise of progress.

    `progress` is a percentage 0-100; durations are seconds of audio; `processing_speed` is seconds
    of audio per second of wall time. Unknown values are None.
    """

    status: Status
    stage: Stage
    message: str
    progress: int = 0
    progress_kind: ProgressKind = ProgressKind.MEASURED
    duration_processed: float | None = None
    duration_total: float | None = None
    estimated_completion: datetime | None = None
    processing_speed: float | None = None
    error: ErrorDetail | None = None


@dataclass(frozen=True, slots=True)
class StatusMessage:
    """One status event as it travels: a row of `processing_status` in its one wire format.

    `text` is the JSON exactly as PostgreSQL wrote it (the SQL function `status_message`), and is
    forwarded unchanged to every client; the other fields are those the server itself decides by.
    """

    session_id: UUID
    id: int
    prev_id: int
    status: Status
    progress: int
    text: str
    segments: int = 0  # how many there are by now

    @classmethod
    def from_json(cls, text: str) -> StatusMessage:
        """Read a message; raises ValueError or KeyError for anything that is not one."""
        return cls.from_fields(json.loads(text), text)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], text: str) -> StatusMessage:
        """The message that `text` decoded to."""
        return cls(
            session_id=UUID(fields["session_id"]),
            id=int(fields["id"]),
            prev_id=int(fields["prev_id"]),
            status=Status(fields["status"]),
            progress=int(fields["progress"]),
            text=text,
            segments=int(fields.get("segments", 0)),
        )

    @property
    def terminal(self) -> bool:
        return self.status.terminal

    @property
    def at(self) -> datetime:
        """When the event was written, by the database's clock."""
        return datetime.fromisoformat(self.fields()["timestamp"])

    def fields(self) -> Mapping[str, Any]:
        """The decoded message."""
        decoded: Mapping[str, Any] = json.loads(self.text)
        return decoded


CHANNEL_PREFIX = "transcription:status:"

# Where it is told which session has entered the queue; its events are on its own channel.
SESSIONS_CHANNEL = "transcription:sessions"


def status_channel(session_id: UUID) -> str:
    """The NOTIFY channel of one session (57 bytes; PostgreSQL allows 63)."""
    return f"{CHANNEL_PREFIX}{session_id}"
