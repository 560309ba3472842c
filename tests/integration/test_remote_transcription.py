"""What becomes of a chunk that a speech service is asked to transcribe."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from jobs.engines import openai, resolve
from jobs.errors import (
    EngineAwayError,
    EngineError,
    EngineRefusedError,
    EngineUnavailableError,
    JobError,
    LanguageUnsupportedError,
)
from jobs.recogniser_wire import Frame, WireError
from jobs.remote_transcription import MAX_ANSWER_BYTES, MAX_TRIES, RemoteTranscription
from jobs.settings import JobSettings
from tests import clips
from tests.net import free_port
from tests.speech_service import (
    KEY,
    Behaviour,
    Reply,
    Request,
    SpeechService,
    only_plain,
    refusing,
    speech_service,
    transcribed,
)

WAV = clips.wav_of(clips.tone(4))


@pytest.fixture
def service() -> Iterator[SpeechService]:
    with speech_service() as running:
        yield running


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once, unless the service wants a pause."""
    monkeypatch.setattr("jobs.remote_transcription.FIRST_PAUSE_S", 0.001)


@pytest.fixture
async def remote(service: SpeechService) -> AsyncIterator[RemoteTranscription]:
    async with RemoteTranscription(settings_for(service.url)) as remote:
        yield remote


def settings_for(url: str, timeout_s: float = 30, chunk_timeout_s: float = 60) -> JobSettings:
    return JobSettings(
        engine="openai",
        openai_base_url=url,
        openai_api_key=SecretStr(KEY),
        openai_timeout_s=timeout_s,
        openai_chunk_timeout_s=chunk_timeout_s,
    )


def question(language: str | None = None, timed: bool = True) -> Frame:
    return Frame("ask", {"kind": "transcription", "language": language, "timed": timed}, WAV)


def cut(request: Request) -> Reply:
    """Ends in the middle."""
    whole = transcribed(request)
    return Reply(whole.status, whole.body, cut=True)


async def test_a_chunk_is_posted_with_its_key_model_and_wish_for_times(
    service: SpeechService, remote: RemoteTranscription
) -> None:
    answer = await remote.answer(question("de"))
    assert answer.fields == {"timed": True}
    assert len(json.loads(answer.body)["words"]) == 2
    [request] = service.requests
    assert request.path == "/v1/audio/transcriptions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.duration_s == 4.0
    assert request.fields == {
        "model": ["whisper-1"],
        "temperature": ["0"],
        "response_format": ["verbose_json"],
        "timestamp_granularities[]": ["word", "segment"],
        "language": ["de"],
    }


async def test_without_times_and_language_neither_is_asked_for(
    service: SpeechService, remote: RemoteTranscription
) -> None:
    answer = await remote.answer(question(timed=False))
    assert answer.fields == {"timed": False}
    assert service.requests[0].fields == {
        "model": ["whisper-1"],
        "temperature": ["0"],
        "response_format": ["json"],
    }


async def test_no_key_sends_none(service: SpeechService) -> None:
    async with RemoteTranscription(JobSettings(openai_base_url=service.url)) as remote:
        await remote.answer(question())
    assert "authorization" not in service.requests[0].headers


@pytest.mark.parametrize(
    ("behaviour", "language", "timed", "error"),
    [
        (refusing(401, "wrong key {key}"), None, True, EngineUnavailableError),
        (refusing(403, "not with {key}"), None, True, EngineUnavailableError),
        (refusing(404, "no model, {key}"), None, True, EngineUnavailableError),
        (refusing(429, "insufficient_quota {key}"), None, True, EngineUnavailableError),
        (refusing(400, "broken file {key}"), None, False, EngineRefusedError),
        (refusing(413, "too large {key}"), None, True, EngineRefusedError),
        (refusing(302, "there, {key}", Location="/v1"), None, True, EngineRefusedError),
        (refusing(400, "Invalid language 'xx', {key}"), "xx", True, LanguageUnsupportedError),
        (refusing(422, "language: {key}"), "xx", True, LanguageUnsupportedError),
    ],
)
async def test_a_refusal_for_good_is_an_error_of_its_kind_and_asked_once(
    behaviour: Behaviour,
    language: str | None,
    timed: bool,
    error: type[JobError],
    service: SpeechService,
    remote: RemoteTranscription,
) -> None:
    service.always = behaviour
    with capture_logs() as logs, pytest.raises(error) as refusal:
        await remote.answer(question(language, timed))
    assert type(refusal.value) is error
    assert not refusal.value.retryable
    assert len(service.requests) == 1
    # The service said it back to us.
    assert KEY not in str(refusal.value) + str(logs)
    assert logs[0]["event"] == "remote_transcription_refused"


async def test_a_model_without_times_is_told_apart(
    service: SpeechService, remote: RemoteTranscription
) -> None:
    service.always = only_plain
    assert await remote.answer(question("de")) == Frame("answer", {"timed": False})
    answer = await remote.answer(question("de", timed=False))
    assert set(json.loads(answer.body)) == {"text"}


@pytest.mark.parametrize(
    "trouble",
    [refusing(500), refusing(503), refusing(429), refusing(408), cut],
    ids=["500", "503", "429", "408", "cut"],
)
async def test_what_may_pass_is_tried_again(
    trouble: Behaviour, service: SpeechService, remote: RemoteTranscription
) -> None:
    service.next.extend([trouble, trouble])
    assert (await remote.answer(question())).body
    assert len(service.requests) == 3


@pytest.mark.parametrize("dated", [False, True], ids=["seconds", "date"])
async def test_a_service_without_time_is_left_alone_as_long_as_it_says(
    dated: bool, service: SpeechService, remote: RemoteTranscription
) -> None:
    at = datetime.now(UTC) + timedelta(seconds=3)
    value = format_datetime(at, usegmt=True) if dated else "1"
    service.next.append(refusing(429, Retry_After=value))
    began_at = time.monotonic()
    assert (await remote.answer(question())).body
    # A date has no fractions of a second.
    assert time.monotonic() - began_at >= 1.0
    assert len(service.requests) == 2


async def test_a_pause_longer_than_its_patience_is_not_waited_for(
    service: SpeechService, remote: RemoteTranscription
) -> None:
    service.always = refusing(503, Retry_After="3600")
    with pytest.raises(EngineAwayError, match="out of order") as error:
        await remote.answer(question())
    assert error.value.retryable
    assert error.value.passing
    assert len(service.requests) == 1


async def test_tries_have_an_end(service: SpeechService, remote: RemoteTranscription) -> None:
    service.always = refusing(500)
    with pytest.raises(EngineAwayError):
        await remote.answer(question())
    assert len(service.requests) == MAX_TRIES


async def test_a_mute_service_is_given_up_in_the_time_of_a_chunk(service: SpeechService) -> None:
    over = threading.Event()

    def mute(request: Request) -> Reply:
        over.wait(60)
        return transcribed(request)

    service.always = mute
    settings = settings_for(service.url, timeout_s=0.3, chunk_timeout_s=1.0)
    async with RemoteTranscription(settings) as remote:
        with pytest.raises(EngineAwayError, match="did not answer"):
            await remote.answer(question())
    over.set()
    assert 2 <= len(service.requests) <= 4


async def test_nobody_there_is_an_engine_away() -> None:
    settings = settings_for(f"http://127.0.0.1:{free_port()}/v1")
    async with RemoteTranscription(settings) as remote:
        with pytest.raises(EngineAwayError, match="cannot be reached"):
            await remote.answer(question())


async def test_an_answer_without_end_is_cut_off(
    service: SpeechService, remote: RemoteTranscription
) -> None:
    service.always = lambda request: Reply(body=b" " * (MAX_ANSWER_BYTES + 1))
    with pytest.raises(EngineError, match="far too much"):
        await remote.answer(question())
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kind": "transcription"},
        {"kind": "secret", "language": None, "timed": True},
        {"kind": "transcription", "language": "de\r\nX: y", "timed": True},
        {"kind": "transcription", "language": 1, "timed": True},
        {"kind": "transcription", "language": None, "timed": 1},
    ],
)
async def test_a_recogniser_may_ask_for_nothing_else(
    fields: dict[str, object], service: SpeechService, remote: RemoteTranscription
) -> None:
    with pytest.raises(WireError):
        await remote.answer(Frame("ask", fields, WAV))
    assert service.requests == []


def test_the_public_service_needs_a_key_and_says_so_in_one_line() -> None:
    with pytest.raises(EngineUnavailableError, match="QUARTAPP_OPENAI_API_KEY is not set") as error:
        resolve(JobSettings(engine="openai"))
    assert "\n" not in error.value.message


def test_a_service_of_ones_own_needs_no_key() -> None:
    settings = JobSettings(engine="openai", openai_base_url="http://localhost:8080/v1/")
    ready = resolve(settings)
    assert (ready.name, ready.title) == ("openai", "openai whisper-1 at localhost")


def test_what_a_child_is_given_holds_no_secret() -> None:
    settings = JobSettings(engine="openai", openai_api_key=SecretStr(KEY))
    assert KEY not in str(openai.prepare(settings, download=True))
