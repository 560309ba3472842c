"""What a session brought: the transcript in four formats, and the recording itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import quote
from uuid import UUID

from quart import Blueprint, Response, current_app, request
from quart_schema import document_response, tag
from werkzeug.http import parse_range_header, quote_etag

from jobs.audio_source import AudioSource
from jobs.errors import AudioMissingError
from jobs.model import Segment, Status
from jobs.segments import select_segments
from jobs.sessions import Session
from jobs.settings import HOURS, KIB
from jobs.subtitles import to_srt, to_text, to_vtt
from quartapp.access import viewed_session
from quartapp.api.bodies import ProblemBody, TranscriptBody, transcript_body
from quartapp.openapi import answers
from quartapp.problems import Problem
from quartapp.services import services

blueprint = Blueprint("results", __name__, url_prefix="/api/v1/sessions/<uuid:session_id>")

READ_BYTES = 256 * KIB
AUDIO_TIMEOUT_S = 2 * HOURS

MEDIA_TYPES = {
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}


@blueprint.get("/transcript.<any(json, txt, srt, vtt):form>")
@tag(["results"])
@document_response(TranscriptBody)
@document_response(ProblemBody, 403)
@document_response(ProblemBody, 404)
async def get_transcript(session_id: UUID, form: str) -> Response:
    """The transcript so far, as json, txt, srt or vtt.

    404 `not_ready` until there is text; the text of a failed or cancelled session stays.
    """
    session = await viewed_session(session_id)
    segments = await select_segments(services().pool, session_id)
    if not segments and session.status is not Status.COMPLETED:
        raise Problem(404, "not_ready", "There is no text yet.")
    response: Response = current_app.response_class(
        _written(session, segments, form), content_type=MEDIA_TYPES[form]
    )
    response.headers["Content-Disposition"] = _disposition("inline", f"{session.title}.{form}")
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _written(session: Session, segments: list[Segment], form: str) -> str:
    match form:
        case "txt":
            return to_text(segments)
        case "srt":
            return to_srt(segments)
        case "vtt":
            return to_vtt(segments)
        case _:
            return json.dumps(transcript_body(session, segments), ensure_ascii=False)


@blueprint.get("/audio")
@tag(["results"])
@answers(200, "The recording", "audio/*", "video/*")
@answers(206, "A part of it", "audio/*", "video/*")
@document_response(ProblemBody, 403)
@document_response(ProblemBody, 404)
@document_response(ProblemBody, 416)
async def get_audio(session_id: UUID) -> Response:
    """The recording as it was uploaded.

    One byte range of it when asked (RFC 9110 §14).
    """
    session = await viewed_session(session_id)
    if session.audio_key is None:
        raise AudioMissingError("The recording is no longer stored.")
    source = await services().store.open(session.audio_key)
    start, stop, partial = _wanted_range(source.size_bytes, session.audio_key)
    chunks = b"" if request.method == "HEAD" else _read(source, start, stop)
    response: Response = current_app.response_class(
        chunks, 206 if partial else 200, content_type=session.audio_type
    )
    response.timeout = AUDIO_TIMEOUT_S
    response.headers["Content-Length"] = str(stop - start)
    if partial:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{source.size_bytes}"
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["ETag"] = quote_etag(session.audio_key)
    response.headers["Cache-Control"] = "private, max-age=3600"
    response.headers["Content-Disposition"] = _disposition("inline", session.file_name)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return response


def _wanted_range(size_bytes: int, etag: str) -> tuple[int, int, bool]:
    """(start, stop, partial). Several ranges, or ones of another version, give the whole."""
    if_range = request.headers.get("If-Range")
    if if_range is not None and if_range != quote_etag(etag):
        return 0, size_bytes, False
    ranges = parse_range_header(request.headers.get("Range"))
    if ranges is None or ranges.units != "bytes" or len(ranges.ranges) != 1:
        return 0, size_bytes, False
    start, stop = ranges.ranges[0]
    if stop is None and start < -size_bytes:  # the last so many of fewer: all of them
        return 0, size_bytes, True
    wanted = ranges.range_for_length(size_bytes)
    if wanted is None:
        raise Problem(
            416,
            "range_not_satisfiable",
            "The recording is shorter than that.",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return wanted[0], wanted[1], True


async def _read(source: AudioSource, start: int, stop: int) -> AsyncIterator[bytes]:
    while start < stop:
        data = await source.read(start, min(READ_BYTES, stop - start))
        start += len(data)
        yield data


def _disposition(kind: str, name: str) -> str:
    """RFC 6266, with the RFC 8187 form beside a plain one."""
    plain = "".join(char if char.isascii() and char.isprintable() else "_" for char in name)
    plain = plain.replace("\\", "_").replace('"', "_")
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
