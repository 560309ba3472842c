"""What the engine that is a service elsewhere asks its parent for."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from jobs.engines import Chunk, openai
from jobs.errors import LanguageUnsupportedError
from jobs.recogniser_wire import Frame
from tests import clips

SAMPLES = clips.tone(3)


class Parent:
    """Answers with a text, and keeps what it was asked."""

    def __init__(self, *, timed: bool = True, refused: str | None = None) -> None:
        self.asked: list[tuple[str | None, bool]] = []
        self.wavs: list[bytes] = []
        self._timed = timed
        self._refused = refused

    def ask(self, kind: str, fields: Mapping[str, Any], body: bytes) -> Frame:
        assert kind == "transcription"
        self.asked.append((fields["language"], fields["timed"]))
        self.wavs.append(body)
        if self._refused is not None and fields["language"] == self._refused:
            raise LanguageUnsupportedError("not that one")
        if fields["timed"] and not self._timed:
            return Frame("answer", {"timed": False})
        return Frame("answer", {}, json.dumps({"text": "Salve.", "language": "latin"}).encode())


def recognise(engine: openai.OpenAI, chunk: Chunk, language: str | None = None) -> list[str]:
    heard = engine.recognise(chunk, language, lambda _: None)
    return [segment.text for segment in heard.segments]


def test_a_chunk_is_sent_without_the_sound_around_it() -> None:
    parent = Parent()
    assert recognise(openai.OpenAI(parent.ask), Chunk(SAMPLES, 16_000, 8_000)) == ["Salve."]
    with wave.open(io.BytesIO(parent.wavs[0])) as file:
        sent = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    assert np.array_equal(sent, SAMPLES[16_000:-8_000])


@pytest.mark.parametrize("samples", [np.zeros(48_000, np.int16), SAMPLES[:1000]])
def test_silence_and_what_is_too_short_are_not_sent(samples: clips.Samples) -> None:
    parent = Parent()
    assert recognise(openai.OpenAI(parent.ask), Chunk(samples)) == []
    assert parent.asked == []


def test_times_are_asked_for_until_they_are_refused() -> None:
    parent = Parent(timed=False)
    engine = openai.OpenAI(parent.ask)
    assert recognise(engine, Chunk(SAMPLES)) == recognise(engine, Chunk(SAMPLES)) == ["Salve."]
    assert parent.asked == [(None, True), (None, False), (None, False)]


@pytest.mark.parametrize(
    ("language", "code"), [("de-AT", "de"), ("EN_us", "en"), ("jv", "jw"), ("tlh", "tlh")]
)
def test_languages_are_sent_as_the_codes_of_whisper(language: str, code: str) -> None:
    parent = Parent()
    recognise(openai.OpenAI(parent.ask), Chunk(SAMPLES), language)
    assert parent.asked == [(code, True)]


def test_a_language_that_was_asked_for_and_refused_is_an_error() -> None:
    with pytest.raises(LanguageUnsupportedError):
        recognise(openai.OpenAI(Parent(refused="la").ask), Chunk(SAMPLES), "la")


def test_a_language_that_was_only_heard_and_is_refused_is_left_out() -> None:
    parent = Parent(refused="la")
    engine = openai.OpenAI(parent.ask)
    heard = engine.recognise(Chunk(SAMPLES), None, lambda _: None)
    assert heard.language == "la"
    assert recognise(engine, Chunk(SAMPLES), heard.language) == ["Salve."]
    assert [language for language, _ in parent.asked] == [None, "la", None]
