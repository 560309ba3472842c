"""Speech recognition by a service that offers OpenAI's `POST {base}/audio/transcriptions`.

Each chunk is a request of its own, so that progress is measured. It goes without the sound around
it: services are paid by the minute, their models stand a cut in a pause, and give the text of a
segment with its punctuation, which could not be divided between two chunks.
"""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jobs.engines import AskParent, Chunk, OnProgress, ReadyEngine, Recognition, Samples
from jobs.engines.languages import whisper_code
from jobs.engines.openai_answer import recognition_of
from jobs.engines.words import SAMPLE_RATE_HZ
from jobs.errors import EngineUnavailableError, LanguageUnsupportedError

if TYPE_CHECKING:
    from jobs.settings import JobSettings

NAME = "openai"
PUBLIC_HOST = "api.openai.com"

_MIN_SAMPLES = SAMPLE_RATE_HZ // 10  # shorter is refused


def prepare(settings: JobSettings, *, download: bool) -> ReadyEngine:
    """Nothing is sent: whether the service accepts the key shows with the first recording."""
    if find_spec("httpx") is None:
        raise EngineUnavailableError(
            "The package httpx is not installed: pip install 'quartapp[openai]'"
        )
    host = urlsplit(settings.openai_base_url).hostname
    if host == PUBLIC_HOST and settings.openai_api_key is None:
        raise EngineUnavailableError(
            f"QUARTAPP_OPENAI_API_KEY is not set, and {host} answers nobody without one."
        )
    return ReadyEngine(NAME, {}, f"{NAME} {settings.openai_model} at {host}")


def understands(language: str) -> bool:
    """Nobody knows before it is asked."""
    return True


def load(options: Mapping[str, Any], ask: AskParent) -> OpenAI:
    """There is no model here; the service is reached through the parent."""
    return OpenAI(ask)


class OpenAI:
    """One service, as it answers: with times as long as it does not refuse them."""

    reports = False

    def __init__(self, ask: AskParent) -> None:
        self._ask = ask
        self._timed = True
        self._heard: set[str | None] = set()

    def listen(self, recording: Iterable[Samples]) -> None:
        """The service hears each chunk for itself."""

    def recognise(self, chunk: Chunk, language: str | None, on_progress: OnProgress) -> Recognition:
        samples = chunk.samples[chunk.before : chunk.before + chunk.core_samples]
        if len(samples) < _MIN_SAMPLES or not samples.any():
            return Recognition()
        body = self._answered(_wav(samples), language)
        recognition = recognition_of(body, len(samples) / SAMPLE_RATE_HZ)
        self._heard.add(recognition.language)
        return recognition

    def _answered(self, wav: bytes, language: str | None) -> bytes:
        try:
            return self._asked(wav, _code(language))
        except LanguageUnsupportedError:
            # Nobody asked for this one: it was heard, perhaps wrongly, in an earlier chunk.
            if language not in self._heard:
                raise
        return self._asked(wav, None)

    def _asked(self, wav: bytes, code: str | None) -> bytes:
        question = {"language": code, "timed": self._timed}
        body = self._ask("transcription", question, wav).body
        if body or not self._timed:
            return body
        self._timed = False
        return self._asked(wav, code)


def _code(language: str | None) -> str | None:
    """`de` for `de-AT`, and Whisper's own code where it differs from that of ISO 639."""
    if language is None:
        return None
    return whisper_code(language) or re.split("[-_]", language.lower())[0]


def _wav(samples: Samples) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()
