"""Takes in one recording: stored as it arrives, opened by the child, then made a session.

Whatever goes wrong on the way, nothing of it is left.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from uuid import UUID, uuid4

import asyncpg
import structlog

from jobs.admission import describe, discard, examine, finish
from jobs.database import Connection
from jobs.errors import JobError, LanguageUnsupportedError
from jobs.model import Role
from jobs.sessions import NewSession, Session
from jobs.workers import understood
from quartapp.access import require_sight
from quartapp.accounts import User, Viewer, select_user
from quartapp.api.bodies import SessionBody
from quartapp.idempotency import insert_first_answer, select_first_answer
from quartapp.problems import Problem
from quartapp.services import Services
from quartapp.uploads import MultipartForm

log = structlog.get_logger()

MAX_NAME = 300
LANGUAGE = re.compile(r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
FIELDS = frozenset({"title", "language", "patient_id"})


@dataclass(frozen=True, slots=True)
class Accepted:
    """An answer to give: the session's id and its JSON."""

    session_id: UUID
    answer: str


@dataclass(frozen=True, slots=True)
class Fields:
    """The text fields of the form, checked."""

    title: str
    language: str | None
    patient_id: UUID | None


async def take_in(
    services: Services, viewer: Viewer, form: MultipartForm, idempotency_key: str | None
) -> Accepted:
    """Read the form and make a session of it. Raises Problem or JobError for what cannot be one."""
    file_name = clean_name(await form.file())
    limited = limit_bytes(form.file_chunks(), services.settings.max_upload_bytes)
    if idempotency_key is not None:
        known = await _known_answer(services, viewer, idempotency_key)
        if known is not None:
            return _same_recording(known, await digest(limited))
    await _understood(services, form.fields.get("language"))
    stored = await services.store.write(uuid4(), limited)
    try:
        await form.finish()
        fields = parse_fields(form.fields, file_name)
        await _understood(services, fields.language)
        owner = await _owner(services, viewer, fields)
        info = await examine(services.store, services.prober, stored)
        new = describe(
            stored,
            info,
            owner_id=owner.id,
            title=fields.title,
            file_name=file_name,
            language=fields.language,
        )
        return await finish(_create(services, viewer, owner, new, idempotency_key))
    except BaseException as error:
        await finish(discard(services.pool, services.store, stored.key))
        if isinstance(error, JobError):
            log.info("upload_refused", code=error.code, size_bytes=stored.size_bytes)
        if isinstance(error, asyncpg.UniqueViolationError) and idempotency_key is not None:
            known = await _known_answer(services, viewer, idempotency_key)
            if known is not None:
                return _same_recording(known, stored.sha256)
        raise


async def _create(
    services: Services,
    viewer: Viewer,
    owner: User,
    new: NewSession,
    idempotency_key: str | None,
) -> Accepted:
    answer = ""

    async def remember(connection: Connection, session: Session) -> None:
        nonlocal answer
        answer = SessionBody.of(session, owner.email).model_dump_json()
        if idempotency_key is not None:
            await insert_first_answer(connection, viewer.id, idempotency_key, session.id, answer)

    await services.lifecycle.create(new, remember)
    log.info(
        "session_created",
        session_id=str(new.id),
        size_bytes=new.size_bytes,
        duration_s=new.duration_s,
        media_type=new.audio_type,
    )
    return Accepted(new.id, answer)


async def _understood(services: Services, tag: str | None) -> None:
    """Raises LanguageUnsupportedError for a language that whoever transcribes surely cannot."""
    language = _language(tag or "")
    if language is None:
        return
    if not await understood(services.pool, language, services.settings.lease_s):
        raise LanguageUnsupportedError(f"The language {language} is not understood here.")


async def _known_answer(
    services: Services, viewer: Viewer, key: str
) -> tuple[Accepted, str] | None:
    first = await select_first_answer(services.pool, viewer.id, key)
    return None if first is None else (Accepted(first.session_id, first.answer), first.sha256)


def _same_recording(known: tuple[Accepted, str], sha256: str) -> Accepted:
    accepted, first_sha256 = known
    if sha256 != first_sha256:
        raise Problem(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used for another recording.",
        )
    return accepted


async def _owner(services: Services, viewer: Viewer, fields: Fields) -> User:
    if fields.patient_id is None or fields.patient_id == viewer.id:
        return viewer.user
    await require_sight(viewer, fields.patient_id)
    patient = await select_user(services.pool, fields.patient_id)
    if patient is None or patient.role is not Role.PATIENT:
        raise Problem(422, "invalid_request", "patient_id: there is no such patient")
    return patient


def parse_fields(fields: dict[str, str], file_name: str) -> Fields:
    """Check the text fields. Raises Problem 422."""
    unknown = set(fields) - FIELDS
    if unknown:
        raise Problem(422, "invalid_request", f"Unknown field: {min(unknown)[:50]}")
    language = _language(fields.get("language", ""))
    patient = fields.get("patient_id", "").strip()
    try:
        patient_id = UUID(patient) if patient else None
    except ValueError:
        raise Problem(422, "invalid_request", "patient_id: not a UUID") from None
    title = clean_text(fields.get("title", "")) or PurePosixPath(file_name).stem or "Recording"
    return Fields(title, language, patient_id)


def _language(tag: str) -> str | None:
    language = tag.strip() or None
    if language is not None and not LANGUAGE.match(language):
        raise Problem(422, "invalid_request", "language: a language tag such as en or en-US")
    return language


def clean_name(name: str) -> str:
    """A file name safe to store and show: the last path component."""
    return clean_text(PureWindowsPath(name).name if "\\" in name else name.rsplit("/", 1)[-1])


def clean_text(text: str) -> str:
    """One line, not too long: control characters and line breaks as spaces, invisible ones gone."""
    visible = (char for char in text if unicodedata.category(char) not in {"Cf", "Cs"})
    spaced = (" " if unicodedata.category(char) in {"Cc", "Zl", "Zp"} else char for char in visible)
    return " ".join("".join(spaced).split())[:MAX_NAME].strip()


async def limit_bytes(data: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """The same bytes. Raises Problem 413 as soon as there are more than `most`."""
    size = 0
    async for chunk in data:
        size += len(chunk)
        if size > most:
            raise too_large(most)
        yield chunk


async def digest(data: AsyncIterator[bytes]) -> str:
    """SHA-256 in hex."""
    sha256 = hashlib.sha256()
    async for chunk in data:
        sha256.update(chunk)
    return sha256.hexdigest()


def too_large(most: int) -> Problem:
    return Problem(
        413,
        "too_large",
        f"The recording is larger than the {most // 2**20} MB allowed here.",
        max_upload_bytes=most,
    )
