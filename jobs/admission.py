"""From stored bytes to a session: opened by the child first, then described."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import UUID, uuid4

import structlog

from jobs.database import CONNECT_ERRORS, Pool
from jobs.errors import EmptyAudioError, StorageError
from jobs.recogniser_wire import AudioInfo
from jobs.recognisers import RecogniserPool
from jobs.sessions import NewSession
from jobs.storage import AudioStore, StoredAudio

log = structlog.get_logger()

T = TypeVar("T")

# Media types by the container's first name in FFmpeg; what is not here is offered as bytes.
MEDIA_TYPES = {
    "wav": "audio/wav",
    "w64": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "mov": "audio/mp4",
    "mp4": "audio/mp4",
    "m4a": "audio/mp4",
    "matroska": "audio/webm",
    "webm": "audio/webm",
}
BYTES = "application/octet-stream"


async def examine(store: AudioStore, prober: RecogniserPool, stored: StoredAudio) -> AudioInfo:
    """Have the child open a stored recording. Raises JobError for what is none."""
    if stored.size_bytes == 0:
        raise EmptyAudioError("The file is empty.")
    source = await store.open(stored.key)
    async with prober.borrow() as child:
        return await child.probe(source)


def describe(
    stored: StoredAudio,
    info: AudioInfo,
    *,
    owner_id: UUID,
    title: str,
    file_name: str,
    language: str | None,
) -> NewSession:
    """The session to make of a recording that opened."""
    return NewSession(
        id=uuid4(),
        owner_id=owner_id,
        title=title,
        file_name=file_name,
        language=language,
        audio_key=stored.key,
        audio_type=MEDIA_TYPES.get(info.container.split(",")[0], BYTES),
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
        duration_s=info.duration_s,
    )


async def discard(pool: Pool, store: AudioStore, key: str) -> None:
    """Delete a recording that became no session. One that did, however its upload ended, stays;
    and when that cannot be told now, the sweep will tell."""
    try:
        if not await pool.fetchval(
            "SELECT EXISTS (SELECT FROM sessions WHERE audio_key = $1)", key
        ):
            await store.delete(key)
    except (*CONNECT_ERRORS, StorageError) as error:
        log.warning("audio_not_deleted", key=key, error=str(error))


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Await something that must not be left half done: a cancellation waits for its end."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
