"""The speech engines: what one must offer, which there are, which are ready here.

An engine is a module with `unavailable_reason()` and `load(options)`; it is imported only to be
asked or loaded, so that a process which does not recognise speech carries none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from jobs.errors import EngineUnavailableError
from jobs.model import Segment

Samples = npt.NDArray[np.int16]  # 16 kHz, mono
OnProgress = Callable[[float], None]  # seconds of the chunk recognised so far


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


class Engine(Protocol):
    """A loaded engine. Blocking; used by one thread in a process of its own."""

    def listen(self, recording: Iterable[Samples]) -> None:
        """Adapt to voice and room before the chunks of a recording are recognised.

        Takes as many samples from the recording's start as it has a use for. Replaces what an
        earlier recording left, and depends on nothing else.
        """
        ...

    def recognise(
        self, chunk: Chunk, language: str | None, on_progress: OnProgress
    ) -> list[Segment]:
        """The speech of one chunk without its context; times, `idx` and progress count from where
        the context ends.

        The same chunk after the same `listen` give the same segments, whatever came between.
        Raises EngineError, or LanguageUnsupportedError for a language it does not know.
        """
        ...


# Best first: `auto` takes the first that is ready.
ENGINES: Mapping[str, str] = {
    "pocketsphinx": "jobs.engines.pocketsphinx",
}
AUTO = "auto"


def available(name: str) -> str | None:
    """None when the engine can be loaded here, otherwise why not, in one line."""
    if name == AUTO:
        reasons = [available(engine) for engine in ENGINES]
        return None if None in reasons else " ".join(filter(None, reasons))
    if name not in ENGINES:
        return f"There is no engine named {name!r}; there are: {', '.join(ENGINES)}."
    reason: str | None = import_module(ENGINES[name]).unavailable_reason()
    return reason


def resolve(name: str) -> str:
    """The engine that `name` stands for; EngineUnavailableError when it is not ready here."""
    if (reason := available(name)) is not None:
        raise EngineUnavailableError(reason)
    if name == AUTO:
        return next(engine for engine in ENGINES if available(engine) is None)
    return name


def load(name: str, options: Mapping[str, Any]) -> Engine:
    """Load an engine with its model; EngineUnavailableError when that cannot be."""
    engine: Engine = import_module(ENGINES[resolve(name)]).load(options)
    return engine
