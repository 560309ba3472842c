"""Speech recognition with PocketSphinx and the English model in its wheel.

Its batch mode normalises the features of an utterance by their mean over the whole utterance, which
recognises better than the running mean of its live mode, but tells nothing until it is done. Here
the mean is measured first (features alone cost about a hundredth of recognition) and then held
while the chunk is fed in blocks: the words are those of batch mode, and progress can be seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.engines import AskParent, Chunk, OnProgress, ReadyEngine, Recognition, Samples
from jobs.engines.words import SAMPLE_RATE_HZ, segments_of, within
from jobs.errors import EngineError, EngineUnavailableError, LanguageUnsupportedError
from jobs.model import Word

if TYPE_CHECKING:
    from jobs.settings import JobSettings

NAME = "pocketsphinx"
FRAMES_PER_S = 100

_BLOCK_SAMPLES = SAMPLE_RATE_HZ // 2  # one sign of progress
_LISTEN_SAMPLES = 600 * SAMPLE_RATE_HZ  # heard before recognition, at most
# Averaging over blocks only comes near the mean of the whole; most clips fit one block.
_LISTEN_BLOCK_SAMPLES = 180 * SAMPLE_RATE_HZ
_MIN_SAMPLES = SAMPLE_RATE_HZ // 10  # shorter holds no word, and too few frames for the decoder
_ALTERNATE_PRONUNCIATION = re.compile(r"\(\d+\)$")
_NOT_A_WORD = re.compile(r"^(<.*>|\[.*\]|\+\+.*\+\+)$")
_ENGLISH = re.compile(r"en\b", re.IGNORECASE)
_FULL_SEARCH = "_default"
# Decoding one word by grammar is how an utterance made only for its features ends cheaply.
_TRIFLING_SEARCH = "trifle"
_TRIFLING_GRAMMAR = "#JSGF V1.0; grammar trifle; public <trifle> = a;"


def prepare(settings: JobSettings, *, download: bool) -> ReadyEngine:
    """The package brings its model."""
    if find_spec("pocketsphinx") is None:
        raise EngineUnavailableError("The package pocketsphinx is not installed.")
    return ReadyEngine(NAME, {}, NAME)


def understands(language: str) -> bool:
    return _ENGLISH.match(language) is not None


def load(options: Mapping[str, Any], ask: AskParent) -> PocketSphinx:
    """Load the model; `options` are configuration parameters of the decoder (`hmm`, `lm`, …)."""
    try:
        return PocketSphinx(options)
    except (ImportError, RuntimeError, ValueError, KeyError) as error:
        raise EngineUnavailableError(f"PocketSphinx cannot load its model: {error}.") from error


class PocketSphinx:
    """One decoder with its model."""

    reports = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        # Not imported with this module, which also serves to ask whether the engine is there.
        self._decoder: Any = import_module("pocketsphinx").Decoder(
            **{"loglevel": "ERROR", **options}
        )
        self._decoder.add_jsgf_string(_TRIFLING_SEARCH, _TRIFLING_GRAMMAR)
        self._decoder.activate_search(_FULL_SEARCH)
        self._cepstral_mean: str | None = None

    def listen(self, recording: Iterable[Samples]) -> None:
        """Take the cepstral mean of the first ten minutes for all chunks to come.

        One mean for all chunks loses no word at their borders: measured, the chunks together give
        the words of the whole recording decoded at once.
        """
        total, weight, heard = np.zeros(0), 0, 0
        for samples in _regrouped(recording, _LISTEN_BLOCK_SAMPLES):
            if len(samples) >= _MIN_SAMPLES and (mean := self._mean_of(samples)) is not None:
                values = np.array([float(value) for value in mean.split(",")])
                total = values * len(samples) + (total if weight else 0.0)
                weight += len(samples)
            heard += len(samples)
            if heard >= _LISTEN_SAMPLES:
                break
        mean = ",".join(f"{value:.6g}" for value in total / weight) if weight else None
        self._cepstral_mean = mean

    def recognise(self, chunk: Chunk, language: str | None, on_progress: OnProgress) -> Recognition:
        samples = chunk.samples
        if language is not None and not understands(language):
            raise LanguageUnsupportedError(
                f"The built-in speech engine understands English only, not {language!r}."
            )
        if len(samples) < _MIN_SAMPLES or not samples.any():
            return Recognition()
        try:
            mean = self._cepstral_mean or self._mean_of(samples)
            if mean is None:
                return Recognition()
            self._decode(chunk, mean, on_progress)
        except RuntimeError as error:
            raise EngineError(f"The speech engine failed: {error}.") from error
        words = [word for entry in self._decoder.seg() or () if (word := _word(entry)) is not None]
        return Recognition(segments_of(within(words, chunk)))

    def _decode(self, chunk: Chunk, mean: str, on_progress: OnProgress) -> None:
        samples = chunk.samples
        self._decoder.reinit_feat()  # forgets the noise level of what was heard before
        self._decoder.start_utt()
        for start in range(0, len(samples), _BLOCK_SAMPLES):
            block = samples[start : start + _BLOCK_SAMPLES]
            self._decoder.set_cmn(mean)  # before each block, or it drifts with what was heard
            self._decoder.process_raw(block.tobytes(), no_search=False, full_utt=False)
            heard = start + len(block) - chunk.before
            on_progress(min(max(0, heard), chunk.core_samples) / SAMPLE_RATE_HZ)
        self._decoder.end_utt()

    def _mean_of(self, samples: Samples) -> str | None:
        """The decoder's own text of the cepstral mean over `samples`; None for digital silence."""
        self._decoder.activate_search(_TRIFLING_SEARCH)
        try:
            self._decoder.reinit_feat()
            self._decoder.start_utt()
            self._decoder.process_raw(samples.tobytes(), no_search=True, full_utt=True)
            mean: str = self._decoder.get_cmn(False)
            self._decoder.end_utt()
        finally:
            self._decoder.activate_search(_FULL_SEARCH)
        return None if "nan" in mean else mean


def _word(entry: Any) -> Word | None:
    """A word of the decoder's segmentation; None for silence, noise and sentence marks."""
    if _NOT_A_WORD.match(entry.word):
        return None
    return Word(
        text=_ALTERNATE_PRONUNCIATION.sub("", entry.word),
        start_s=entry.start_frame / FRAMES_PER_S,
        end_s=(entry.end_frame + 1) / FRAMES_PER_S,
        confidence=round(min(1.0, max(0.0, float(entry.prob))), 4),
    )


def _regrouped(blocks: Iterable[Samples], length: int) -> Iterator[Samples]:
    """The same samples in blocks of `length`, the last one shorter."""
    pending: list[Samples] = []
    count = 0
    for block in blocks:
        pending.append(block)
        count += len(block)
        while count >= length:
            joined = np.concatenate(pending)
            yield joined[:length]
            pending, count = [joined[length:]], count - length
    if count:
        yield np.concatenate(pending)
