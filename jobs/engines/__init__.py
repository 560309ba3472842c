"""The speech engines: what one must offer, which there are, which are ready here.

An engine is a module (see `EngineModule`), imported only to be asked or loaded. What it needs to
recognise is imported by `load` alone: a process that does not recognise speech carries none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from jobs.errors import EngineUnavailableError
from jobs.model import Segment
from jobs.recogniser_wire import Frame

if TYPE_CHECKING:  # the child loads this module too, and has no use for pydantic
    from jobs.settings import JobSettings

Samples = npt.NDArray[np.int16]  # 16 kHz, mono
OnProgress = Callable[[float], None]  # seconds of the chunk recognised so far

# What a loaded engine may not do itself, such as reaching the network, it asks of its parent: kind,
# JSON fields and bytes there, the answer back. Blocks. Raises JobError as the parent says.
AskParent: TypeAlias = Callable[[str, Mapping[str, Any], bytes], Frame]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a recording to recognise, with what is heard around it.

    The last word before a cut sounds different to a language model that believes the speech ends
    there; `before` and `after` count the samples of context at either end.
    """

    samples: Samples
    before: int = 0
    after: int = 0

    @property
    def core_samples(self) -> int:
        """Length without the context."""
        return len(self.samples) - self.before - self.after


@dataclass(frozen=True, slots=True)
class Recognition:
    """What an engine heard in one chunk."""

    segments: tuple[Segment, ...] = ()
    language: str | None = None  # ISO 639 code in lower case; None when the engine does not tell


@dataclass(frozen=True, slots=True)
class ReadyEngine:
    """An engine that can be loaded here."""

    name: str  # as recorded with sessions and runs
    options: Mapping[str, Any]  # JSON, for `load`; no secrets
    title: str  # for people, with the model


class Engine(Protocol):
    """A loaded engine. Blocking; used by one thread in a process of its own.

    `reports`: it tells of progress so often within a chunk that silence means that it is stuck.
    """

    reports: bool

    def listen(self, recording: Iterable[Samples]) -> None:
        """Adapt to voice and room before the chunks of a recording are recognised.

        Takes as many samples from the recording's start as it has a use for. Replaces what an
        earlier recording left, and depends on nothing else.
        """
        ...

    def recognise(self, chunk: Chunk, language: str | None, on_progress: OnProgress) -> Recognition:
        """The speech of one chunk without its context; times, `idx` and progress count from where
        the context ends.

        The same chunk after the same `listen` give the same segments, whatever came between.
        Raises EngineError, or LanguageUnsupportedError for a language it does not know.
        """
        ...


class EngineModule(Protocol):
    """What a module of this package offers."""

    def prepare(self, settings: JobSettings, *, download: bool) -> ReadyEngine:
        """Parent side: look whether package, model and key are there; imports nothing heavy.

        A model that has only a name is fetched if `download`. Raises EngineUnavailableError with
        one line for the operator.
        """
        ...

    def understands(self, language: str) -> bool:
        """Whether it may know this language (a BCP 47 tag); False when it surely does not."""
        ...

    def load(self, options: Mapping[str, Any], ask: AskParent) -> Engine:
        """Child side: the engine with its model. Raises EngineUnavailableError."""
        ...


# The local ones best first: `auto` takes the first that is ready. It never sends recordings away.
LOCAL_ENGINES: Mapping[str, str] = {
    "faster-whisper": "jobs.engines.faster_whisper",
    "pocketsphinx": "jobs.engines.pocketsphinx",
}
ENGINES: Mapping[str, str] = {**LOCAL_ENGINES, "openai": "jobs.engines.openai"}
AUTO = "auto"


def resolve(settings: JobSettings) -> ReadyEngine:
    """The engine that the settings ask for, ready to be loaded. Blocks, as long as it takes to
    download the model of an engine that is asked for by its name. Raises EngineUnavailableError.
    """
    if settings.engine != AUTO:
        return _module(settings.engine).prepare(settings, download=True)
    reasons = []
    for name in LOCAL_ENGINES:
        try:
            return _module(name).prepare(settings, download=False)
        except EngineUnavailableError as error:
            reasons.append(error.message)
    raise EngineUnavailableError(" ".join(reasons))


def load(name: str, options: Mapping[str, Any], ask: AskParent) -> Engine:
    """Load an engine with its model; EngineUnavailableError when that cannot be."""
    return _module(name).load(options, ask)


def understands(name: str, language: str) -> bool:
    """Whether an engine may know a language; True also for an engine of another version that this
    one does not know. Cheap: nothing is loaded."""
    return name not in ENGINES or _module(name).understands(language)


def _module(name: str) -> EngineModule:
    if name not in ENGINES:
        raise EngineUnavailableError(
            f"There is no engine named {name!r}; there are: {', '.join(ENGINES)}."
        )
    return cast(EngineModule, import_module(ENGINES[name]))
