"""The transcription endpoint of a speech service, asked on behalf of recognisers.

A recogniser opens files that anybody may have made, so it gets neither the key nor the network. It
gives a chunk of sound to its parent, which posts it here and hands the body of the answer back
unread. What people are told is written here: a service may put anything into its errors, the key
that it was sent included.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import structlog

from jobs.errors import (
    EngineAwayError,
    EngineError,
    EngineRefusedError,
    EngineUnavailableError,
    LanguageUnsupportedError,
)
from jobs.recogniser_wire import Frame, WireError
from jobs.settings import JobSettings

MAX_ANSWER_BYTES = 1024 * 1024  # a chunk's words with their times take some tens of KiB
MAX_SAID_CHARS = 300
CONNECT_TIMEOUT_S = 10.0
MAX_TRIES = 6
FIRST_PAUSE_S = 1.0

_LANGUAGE = re.compile(r"[a-z]{2,3}")
# "language", but not in "language model".
_OF_LANGUAGE = re.compile(r"language(?!.?model)", re.IGNORECASE)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Question:
    """A chunk to transcribe: a WAV file, the language if it is known, and whether with times."""

    wav: bytes
    language: str | None
    timed: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said, at most `MAX_ANSWER_BYTES` of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a try failed that may be repeated; `retry_after_s` as the service wishes."""

    sentence: str
    retry_after_s: float | None = None


class RemoteTranscription:
    """One service, its connections kept open. A context manager; any number of calls at a time."""

    def __init__(self, settings: JobSettings) -> None:
        self._settings = settings
        self._key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else ""
        self._client = httpx.AsyncClient(
            headers={
                # Unpacked, a small answer can be of any size.
                "Accept-Encoding": "identity",
                **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            },
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
        )

    async def __aenter__(self) -> RemoteTranscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def answer(self, ask: Frame) -> Frame:
        """The transcript of a chunk (kind `transcription`; `language`, `timed`, a WAV file).

        `{"timed": true or false}` and the body as it came; without a body, and `timed` false, when
        the service gives no times and wants to be asked without. Raises EngineAwayError after some
        tries, EngineUnavailableError, EngineRefusedError, LanguageUnsupportedError, EngineError.
        """
        question = _question(ask)
        give_up_at = time.monotonic() + self._settings.openai_chunk_timeout_s
        pauses = _pauses()
        while True:
            left_s = give_up_at - time.monotonic()
            outcome = await self._try(question, min(left_s, self._settings.openai_timeout_s))
            if isinstance(outcome, Frame):
                return outcome
            pause_s = next(pauses, None)
            if pause_s is None or give_up_at <= time.monotonic() + (
                pause_s := max(pause_s, outcome.retry_after_s or 0.0)
            ):
                raise EngineAwayError(outcome.sentence)
            log.info("remote_transcription_again", why=outcome.sentence, in_s=round(pause_s, 1))
            await asyncio.sleep(pause_s)

    async def _try(self, question: Question, timeout_s: float) -> Frame | Trouble:
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._post(question)
        except TimeoutError:
            return Trouble(f"The speech service did not answer within {timeout_s:.3g} seconds.")
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return Trouble("The speech service cannot be reached.")
        except httpx.TransportError as error:
            log.warning("remote_transcription_broke", error=type(error).__name__)
            return Trouble("The connection to the speech service broke.")
        if 200 <= answer.status < 300:
            return Frame("answer", {"timed": question.timed}, answer.body)
        return self._refused(question, answer)

    async def _post(self, question: Question) -> Answer:
        settings = self._settings
        form: dict[str, str | list[str]] = {"model": settings.openai_model, "temperature": "0"}
        form["response_format"] = "verbose_json" if question.timed else "json"
        if question.timed:
            form["timestamp_granularities[]"] = ["word", "segment"]
        if question.language:
            form["language"] = question.language
        async with self._client.stream(
            "POST",
            f"{settings.openai_base_url}/audio/transcriptions",
            data=form,
            files={"file": ("chunk.wav", question.wav, "audio/wav")},
        ) as response:
            return Answer(response.status_code, response.headers, await _body(response))

    def _refused(self, question: Question, answer: Answer) -> Frame | Trouble:
        """What a refusal means; raises where another try would bring the same."""
        status, said = answer.status, self._said(answer.body)
        log.warning("remote_transcription_refused", status=status, said=said)
        match status:
            case 401 | 403:
                raise EngineUnavailableError(
                    f"The speech service denies this server access ({status})."
                )
            case 404:
                raise EngineUnavailableError(
                    "The speech service does not know the address or the model that this server "
                    "asks for (404)."
                )
            case 429 if "insufficient_quota" in said:
                raise EngineUnavailableError(
                    "This server's account at the speech service is used up."
                )
            case 408 | 429:
                sentence = f"The speech service has no time for this now ({status})."
                return Trouble(sentence, _retry_after_s(answer.headers))
            case _ if status >= 500:
                sentence = f"The speech service is out of order ({status})."
                return Trouble(sentence, _retry_after_s(answer.headers))
            case 400 | 422 if question.language and _OF_LANGUAGE.search(said):
                raise LanguageUnsupportedError(
                    f"The speech service does not understand the language {question.language!r}."
                )
            case 400 | 415 | 422 if question.timed:
                return Frame("answer", {"timed": False})
            case _:
                raise EngineRefusedError(f"The speech service refused this recording ({status}).")

    def _said(self, body: bytes) -> str:
        """The beginning of an error's text, for the log: without the key, should it be there."""
        text = " ".join(body.decode(errors="replace").split())
        return (text.replace(self._key, "…") if self._key else text)[:MAX_SAID_CHARS]


def _question(ask: Frame) -> Question:
    """What a recogniser asks. It has handled untrusted bytes: it may ask for anything."""
    match ask.fields:
        case {"kind": "transcription", "language": None | str() as language, "timed": bool(timed)}:
            if language is None or _LANGUAGE.fullmatch(language):
                return Question(ask.body, language, timed)
    raise WireError("there is no such question")


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise EngineError("The speech service answered with far too much for a piece of sound.")
    return bytes(body)


def _pauses() -> Iterator[float]:
    """Between the tries, in seconds."""
    for doublings in range(MAX_TRIES - 1):
        yield FIRST_PAUSE_S * 2**doublings * random.uniform(0.8, 1.2)  # noqa: S311


def _retry_after_s(headers: Mapping[str, Any]) -> float | None:
    """`Retry-After` (RFC 9110, section 10.2.3): seconds, or a date."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
