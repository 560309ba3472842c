"""`quartapp transcribe`: one file through the real queue, from the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from jobs.admission import describe, discard, examine, finish
from jobs.database import Pool
from jobs.model import Role, Status, StatusMessage
from jobs.recognisers import RecogniserPool
from jobs.segments import select_segments
from jobs.sessions import select_session
from jobs.settings import KIB
from jobs.subtitles import to_srt, to_text, to_vtt
from quartapp.accounts import insert_user, select_credentials
from quartapp.api.bodies import transcript_body
from quartapp.intake import clean_name
from quartapp.runtime import (
    Base,
    running_base,
    running_recovery,
    running_services,
    running_worker,
)
from quartapp.settings import WebSettings

READ_BYTES = 256 * KIB

# Owns what is transcribed from the command line. No password has this hash: nobody signs in as it.
LOCAL_ACCOUNT = "command-line@quartapp.invalid"
NO_PASSWORD = "!"  # noqa: S105


class TranscriptionFailed(Exception):
    """The session ended without a transcript; the message is the reason."""


async def transcribe_file(
    settings: WebSettings, path: Path, form: str, on_status: Callable[[StatusMessage], None]
) -> str:
    """The transcript of a file in one of the formats. `on_status` sees every status event.

    Raises TranscriptionFailed, JobError for what is no recording, OSError for the file.
    """
    async with (
        running_base(settings) as base,
        running_recovery(base, settings),
        running_worker(base, settings),
    ):
        session_id = await _submit(base, settings, path)
        async with running_services(base, settings) as services:
            try:
                async with services.subscriber.subscribe(session_id, after=0) as subscription:
                    async for message in subscription:
                        on_status(message)
                        if message.terminal:
                            break
            except asyncio.CancelledError:
                await asyncio.shield(base.lifecycle.cancel(session_id))
                raise
        session = await select_session(base.pool, session_id)
        if session is None or session.status is not Status.COMPLETED:
            reason = session.error.message if session and session.error else "It was cancelled."
            raise TranscriptionFailed(reason)
        segments = await select_segments(base.pool, session_id)
        if form == "json":
            return json.dumps(transcript_body(session, segments), ensure_ascii=False) + "\n"
        writers: dict[str, Callable[[Any], str]] = {"txt": to_text, "srt": to_srt, "vtt": to_vtt}
        return writers[form](segments)


async def _submit(base: Base, settings: WebSettings, path: Path) -> UUID:
    prober = RecogniserPool(settings, engine=None, size=1, idle_s=0)
    owner_id = await _local_account(base.pool)
    stored = await base.store.write(uuid4(), _read(path))
    try:
        info = await examine(base.store, prober, stored)
        name = clean_name(path.name)
        new = describe(
            stored, info, owner_id=owner_id, title=path.stem or name, file_name=name, language=None
        )
        await finish(base.lifecycle.create(new))
    except BaseException:
        await finish(discard(base.pool, base.store, stored.key))
        raise
    finally:
        await prober.close()
    return new.id


async def _local_account(pool: Pool) -> UUID:
    user = await insert_user(pool, LOCAL_ACCOUNT, NO_PASSWORD, Role.PATIENT)
    if user is not None:
        return user.id
    found = await select_credentials(pool, LOCAL_ACCOUNT)
    if found is None:
        raise TranscriptionFailed(f"The account {LOCAL_ACCOUNT} is disabled.")
    return found[0].id


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, READ_BYTES):
            yield data
