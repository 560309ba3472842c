"""Errors at the web edge: RFC 9457 `application/problem+json` with a stable `code`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import asyncpg
import structlog
from quart import Quart, Response, request
from quart_schema import RequestSchemaValidationError
from werkzeug.exceptions import HTTPException

from jobs.database import DATABASE_ERRORS
from jobs.errors import (
    AudioMissingError,
    DecodeError,
    EmptyAudioError,
    JobError,
    LanguageUnsupportedError,
    NoAudioStreamError,
    NotAudioError,
    RecogniserCrashed,
    RecogniserStalled,
    RecogniserUnavailable,
    StorageError,
)

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"

STATUS_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    429: "rate_limited",
}

# Where the library's own words are about programs rather than to people.
SENTENCES = {
    400: "The request cannot be read; is it well-formed JSON?",
    404: "There is nothing at this address.",
    429: "Too many requests. Please wait a moment and try again.",
}

JOB_ERROR_STATUS: dict[type[JobError], int] = {
    NotAudioError: 415,
    NoAudioStreamError: 422,
    EmptyAudioError: 422,
    DecodeError: 422,
    LanguageUnsupportedError: 422,
    # A file that takes its reader down is one we cannot open.
    RecogniserCrashed: 422,
    RecogniserStalled: 422,
    AudioMissingError: 404,
    StorageError: 503,
    RecogniserUnavailable: 503,
}

RETRY_SOON_S = 2


class Problem(Exception):
    """An answer other than the one asked for. `detail` is a sentence for a person."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra


def problem_response(problem: Problem) -> Response:
    """The problem document."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        **problem.extra,
    }
    response = Response(json.dumps(body), problem.status, content_type=MEDIA_TYPE)
    response.headers.update(problem.headers)
    response.headers["Cache-Control"] = "no-store"
    return response


def http_problem(error: HTTPException) -> Response:
    """The problem document for what the web framework itself refuses."""
    status = error.code or 500
    sentence = SENTENCES.get(status) or error.description or "Not possible."
    answer = problem_response(Problem(status, STATUS_CODES.get(status, "error"), sentence))
    for name, value in error.get_headers():
        if name.lower() not in {"content-type", "content-length"}:
            answer.headers[name] = value
    return answer


def register_problems(app: Quart) -> None:
    """Every error of every route leaves as a problem document."""

    @app.errorhandler(Problem)
    async def problem(error: Problem) -> Response:
        return problem_response(error)

    @app.errorhandler(RequestSchemaValidationError)
    async def invalid(error: RequestSchemaValidationError) -> Response:
        if request.method == "POST" and not request.is_json:
            return problem_response(
                Problem(415, "not_json", "Send JSON, with Content-Type: application/json.")
            )
        return problem_response(
            Problem(422, "invalid_request", _validation_sentence(error.validation_error))
        )

    @app.errorhandler(JobError)
    async def job_error(error: JobError) -> Response:
        status = JOB_ERROR_STATUS.get(type(error), 500)
        later = {"Retry-After": str(RETRY_SOON_S)} if status == 503 else {}
        return problem_response(Problem(status, error.code, error.message, headers=later))

    @app.errorhandler(HTTPException)
    async def http(error: HTTPException) -> Response:
        return http_problem(error)

    @app.errorhandler(asyncpg.DiskFullError)
    async def full(_: asyncpg.DiskFullError) -> Response:
        log.error("disk_full")
        return problem_response(
            Problem(507, "storage_full", "The server has no room left for recordings.")
        )

    for away in DATABASE_ERRORS:
        app.register_error_handler(away, _database_away)

    @app.errorhandler(500)
    async def unexpected(error: Exception) -> Response:
        original = getattr(error, "original_exception", error)
        log.error("request_broke", error=repr(original), exc_info=original)
        return problem_response(
            Problem(500, "internal_error", "Something unexpected went wrong on the server.")
        )


async def _database_away(error: Exception) -> Response:
    if isinstance(error, asyncpg.PostgresError) and not isinstance(
        error, (asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError)
    ):
        log.error("request_broke", error=repr(error), exc_info=error)
        return problem_response(
            Problem(500, "internal_error", "Something unexpected went wrong on the server.")
        )
    log.warning("database_away", error=repr(error))
    return problem_response(
        Problem(
            503,
            "unavailable",
            "The database does not answer. Please try again.",
            headers={"Retry-After": str(RETRY_SOON_S)},
        )
    )


def _validation_sentence(error: Exception) -> str:
    details = getattr(error, "errors", None)
    if details is None:
        return "The request is not of the expected form."
    parts = []
    for detail in details(include_url=False, include_input=False):
        field = ".".join(str(step) for step in detail["loc"])
        sentence = str(detail["msg"]).removeprefix("Value error, ")
        parts.append(f"{field}: {sentence}" if field else sentence)
    return "; ".join(parts)
