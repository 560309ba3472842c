"""The errors of a transcription, told apart by type.

Each carries a stable `code` (part of the public contract: it appears as `error.code` in status
messages and problem documents), a `message` a person understands, and whether another try can help.
"""

from __future__ import annotations

from typing import ClassVar


class JobError(Exception):
    """Base of the family. `retryable`: the same recording may succeed at another attempt."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    passing: ClassVar[bool] = False  # a fault of the surroundings; it costs the recording no try

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotAudioError(JobError):
    """The bytes are not a recording in any format we open."""

    code = "not_audio"


class NoAudioStreamError(JobError):
    """A media file without a sound track."""

    code = "no_audio_stream"


class EmptyAudioError(JobError):
    """A recording of no length."""

    code = "empty_audio"


class DecodeError(JobError):
    """The container opens but nothing in it decodes."""

    code = "decode_failed"


class AudioMissingError(JobError):
    """The stored recording is gone (deleted by retention, or its store lost it)."""

    code = "audio_missing"


class EngineError(JobError):
    """The speech engine refused or failed on a chunk."""

    code = "engine_failed"
    retryable = True


class EngineAwayError(EngineError):
    """The speech service that the engine stands for cannot be reached, or is too busy."""

    code = "engine_away"
    passing = True


class EngineRefusedError(JobError):
    """The speech service does not take this sound, and never will."""

    code = "engine_refused"


class EngineUnavailableError(JobError):
    """The chosen engine is not installed or not ready on this host."""

    code = "engine_unavailable"


class LanguageUnsupportedError(JobError):
    """The engine does not know the language asked for."""

    code = "language_unsupported"


class RecogniserCrashed(JobError):
    """The child process died while it worked."""

    code = "recogniser_crashed"
    retryable = True


class RecogniserStalled(JobError):
    """The child process gave no sign of life within its bound and was killed."""

    code = "recogniser_stalled"
    retryable = True


class JobTimedOut(JobError):
    """One attempt took longer than it may."""

    code = "job_timeout"
    retryable = True


class RecogniserUnavailable(JobError):
    """No child process can be started here now; that says nothing of the recording."""

    code = "recogniser_unavailable"
    retryable = True
    passing = True


class WorkerLost(JobError):
    """The process that worked on it vanished, again and again without new text."""

    code = "worker_lost"


class DatabaseUnavailable(Exception):
    """The database cannot be reached or refuses us; the message is one line, without secrets."""


class StorageError(JobError):
    """The audio store cannot be read or written now."""

    code = "storage_failed"
    retryable = True
    passing = True


_KINDS = {
    kind.code: kind
    for kind in tuple(globals().values())
    if isinstance(kind, type) and issubclass(kind, JobError)
}


def job_error(code: str, message: str) -> JobError:
    """The error of that code, as the other end of a pipe told of it; KeyError for none of ours."""
    return _KINDS[code](message)
