"""Speech recognition with Whisper models, run by faster-whisper (CTranslate2) on the processor.

Whisper takes windows of 30 seconds, and a short one costs as much as a full one. So a chunk and its
context are made to fit one window, and nothing is carried from one to the next.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from jobs.engines import AskParent, Chunk, OnProgress, ReadyEngine, Recognition, Samples
from jobs.engines.languages import iso_code, whisper_code
from jobs.engines.words import SAMPLE_RATE_HZ, segments_of, within
from jobs.errors import EngineError, EngineUnavailableError, LanguageUnsupportedError
from jobs.model import Word

if TYPE_CHECKING:
    from jobs.settings import JobSettings

NAME = "faster-whisper"
WINDOW_SAMPLES = 30 * SAMPLE_RATE_HZ
BEAM_SIZE = 5
# Without them the library would go and fetch.
_MODEL_FILES = ("model.bin", "config.json", "tokenizer.json")
# In a process that ends: what knows the names is large, and needed only here.
_RESOLVE = """import sys, faster_whisper
print(faster_whisper.download_model(sys.argv[1], local_files_only=sys.argv[2] == "local"))"""

log = structlog.get_logger()


def prepare(settings: JobSettings, *, download: bool) -> ReadyEngine:
    """The model as a local directory, since the child reaches neither network nor home."""
    if find_spec("faster_whisper") is None:
        raise EngineUnavailableError(
            "The package faster-whisper is not installed: pip install 'quartapp[faster-whisper]'"
        )
    directory = _directory(settings.faster_whisper_model, download=download)
    if (missing := _missing(directory)) is not None:
        raise EngineUnavailableError(
            f"There is no faster-whisper model in {directory}: {missing} is missing."
        )
    compute_type = settings.faster_whisper_compute_type
    options = {
        "model": str(directory),
        "compute_type": compute_type,
        "threads": settings.faster_whisper_threads or _threads_of_a_slot(settings.job_slots),
    }
    short_name = Path(settings.faster_whisper_model).name
    return ReadyEngine(NAME, options, f"{NAME} {short_name} ({compute_type})")


def understands(language: str) -> bool:
    return whisper_code(language) is not None


def load(options: Mapping[str, Any], ask: AskParent) -> FasterWhisper:
    """Load the model; `options` as `prepare` makes them."""
    try:
        return FasterWhisper(**options)
    except (ImportError, OSError, RuntimeError, ValueError, MemoryError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        if isinstance(error, MemoryError) or "alloc" in reason:
            reason = "it needs more memory than QUARTAPP_RECOGNISER_MEMORY_BYTES"
        raise EngineUnavailableError(f"faster-whisper cannot load its model: {reason}.") from error


class FasterWhisper:
    """One model on the processor. The same chunk gives the same words: nothing is drawn by lot."""

    reports = False  # a chunk is one window, of which all comes at once

    def __init__(self, model: str, compute_type: str, threads: int) -> None:
        # Not imported with this module, which also serves to ask whether the engine is there.
        self._model: Any = import_module("faster_whisper").WhisperModel(
            model,
            device="cpu",
            compute_type=compute_type,
            cpu_threads=threads,
            local_files_only=True,
        )

    def listen(self, recording: Iterable[Samples]) -> None:
        """Whisper hears each window by itself."""

    def recognise(self, chunk: Chunk, language: str | None, on_progress: OnProgress) -> Recognition:
        code = None if language is None else self._known(language)
        chunk = in_one_window(chunk)
        if not chunk.samples.any():
            return Recognition()
        core_s = chunk.core_samples / SAMPLE_RATE_HZ
        words: list[Word] = []
        try:
            heard, info = self._heard(chunk.samples, code)
            for segment in heard:
                words += [word for entry in segment.words if (word := _word(entry)) is not None]
                so_far_s = segment.end - chunk.before / SAMPLE_RATE_HZ
                on_progress(min(max(0.0, so_far_s), core_s))
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"The speech engine failed: {error}.") from error
        segments = segments_of(within(words, chunk), separator="")
        return Recognition(segments, iso_code(info.language))

    def _heard(self, samples: Samples, code: str | None) -> tuple[Iterable[Any], Any]:
        """Segments as they are recognised, and what was found of the language before."""
        heard: tuple[Iterable[Any], Any] = self._model.transcribe(
            samples.astype(np.float32) / 32768.0,
            language=code,
            beam_size=BEAM_SIZE,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=True,  # or Whisper would find words in silence
        )
        return heard

    def _known(self, language: str) -> str:
        code = whisper_code(language)
        if code is None or not self._knows(code):
            raise LanguageUnsupportedError(
                f"The model of the speech engine does not know the language {language!r}."
            )
        return code

    def _knows(self, code: str) -> bool:
        if not self._model.model.is_multilingual:
            return code == "en"
        return self._model.hf_tokenizer.token_to_id(f"<|{code}|>") is not None


def in_one_window(chunk: Chunk) -> Chunk:
    """The chunk with no more context than fits one window."""
    room = max(0, WINDOW_SAMPLES - chunk.core_samples)
    before = min(chunk.before, max(room // 2, room - chunk.after))
    after = min(chunk.after, room - before)
    end = chunk.before + chunk.core_samples + after
    return Chunk(chunk.samples[chunk.before - before : end], before, after)


def _word(entry: Any) -> Word | None:
    """A word with the space before it, if the language has one there; None for nothing."""
    if not entry.word.strip():
        return None
    confidence = round(min(1.0, max(0.0, float(entry.probability))), 4)
    return Word(entry.word, float(entry.start), float(entry.end), confidence)


def _threads_of_a_slot(job_slots: int) -> int:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores // max(1, job_slots))


def _directory(model: str, *, download: bool) -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        return path.absolute()
    if path.is_absolute() or model.startswith((".", "~")):
        raise EngineUnavailableError(f"There is no faster-whisper model in {path}.")
    found = _resolved(model, download=False)
    if found is not None and _missing(found) is None:  # else the download was interrupted
        return found
    if not download:
        raise EngineUnavailableError(f"The faster-whisper model {model!r} is not on this machine.")
    log.info("model_download", engine=NAME, model=model)
    if (found := _resolved(model, download=True)) is not None:
        return found
    raise EngineUnavailableError(
        f"The faster-whisper model {model!r} cannot be downloaded; "
        "QUARTAPP_FASTER_WHISPER_MODEL may also name a local directory."
    )


def _missing(directory: Path) -> str | None:
    return next((name for name in _MODEL_FILES if not (directory / name).is_file()), None)


def _resolved(model: str, *, download: bool) -> Path | None:
    """Where the hub's cache has a model; None when it does not, or it cannot be fetched."""
    if not download and not Path(import_module("huggingface_hub.constants").HF_HUB_CACHE).is_dir():
        return None  # as on most machines; asking costs a second
    place = "hub" if download else "local"
    found = subprocess.run(
        [sys.executable, "-P", "-c", _RESOLVE, model, place],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode == 0:
        return Path(found.stdout.splitlines()[-1])
    if download:
        reason = (found.stderr.strip().splitlines() or ["?"])[-1]
        log.warning("model_download_failed", engine=NAME, model=model, reason=reason)
    return None
