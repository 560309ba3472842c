"""A recognising child like any other, but for its engine: `python -m tests.rogue_child`.

The engine's name says what it does with a chunk, or while it is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unittest.mock import patch

from jobs import recogniser_child
from jobs.engines import AskParent, Chunk, OnProgress, Recognition, Samples

FOREVER_S = 3600.0


class Rogue:
    """Says nothing, and does one thing."""

    def __init__(self, act: Callable[[OnProgress], Any], *, reports: bool) -> None:
        self.reports = reports
        self._act = act

    def listen(self, recording: Iterable[Samples]) -> None:
        """Hears nothing."""

    def recognise(self, chunk: Chunk, language: str | None, on_progress: OnProgress) -> Recognition:
        self._act(on_progress)
        return Recognition()


def load(name: str, options: Mapping[str, Any], ask: AskParent) -> Rogue:
    def sleep(on_progress: OnProgress) -> None:
        time.sleep(options.get("for_s", FOREVER_S))

    def report(on_progress: OnProgress) -> None:
        while True:
            on_progress(0.5)
            time.sleep(0.01)

    def chatter(on_progress: OnProgress) -> None:
        recogniser_child.PROGRESS_INTERVAL_S = 0.0
        while True:
            on_progress(0.5)

    def inquire(on_progress: OnProgress) -> None:
        for _ in range(options["times"]):
            ask("what", {}, b"sound")

    match name:
        case "silent":
            return Rogue(sleep, reports=True)
        case "slow":
            return Rogue(sleep, reports=False)
        case "quick":
            return Rogue(lambda on_progress: on_progress(0.5), reports=True)
        case "reporting":
            return Rogue(report, reports=True)
        case "chattering":
            return Rogue(chatter, reports=True)
        case "asking":
            return Rogue(inquire, reports=False)
        case _:
            time.sleep(FOREVER_S)
            raise AssertionError


if __name__ == "__main__":
    with patch.object(recogniser_child, "load", load):
        recogniser_child.main()
