"""Tests that mostly wait, at the same time: for timeouts, polls and heartbeats of the web client.

Each is a test of its own to pytest, with its own outcome. All that a run selects are begun when the
first of them is, in one browser, a few at a time; meanwhile pytest goes on with others.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self, TypeAlias

import asyncpg
import pytest

from tests.browser.chromium import chromium
from tests.browser.viewer import Viewer
from tests.product import Product

AT_A_TIME = 5

Scene: TypeAlias = Callable[[Viewer], Awaitable[None]]


@dataclass(frozen=True)
class Play:
    """What happens to one viewer; the longest begin first."""

    scene: Scene
    lasts_s: float
    outcome: Future[None] = field(default_factory=Future)


def together(lasts_s: float) -> Callable[[Scene], Callable[..., None]]:
    """Make a test of a scene. `lasts_s` is about what it takes on an idle machine."""

    def make_test(scene: Scene) -> Callable[..., None]:
        play = Play(scene, lasts_s)

        def test(played: Played) -> None:
            play.outcome.result()

        # Not by `functools.wraps`: pytest would see the scene's own argument.
        test.__name__ = scene.__name__
        test.__module__ = scene.__module__
        test.__doc__ = scene.__doc__
        test.play = play  # type: ignore[attr-defined]
        return test

    return make_test


def play_of(item: pytest.Item) -> Play | None:
    """What a test of that kind plays."""
    return getattr(getattr(item, "function", None), "play", None)


class Played:
    """Plays, in a thread and a browser of their own."""

    def __init__(self, product: Product, plays: Sequence[Play]) -> None:
        self._product = product
        self._plays = sorted(plays, key=lambda play: -play.lasts_s)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Those nobody waits for any more are ended."""
        for play in self._plays:
            play.outcome.cancel()
        self._thread.join()

    def wait(self) -> None:
        """Until all are over, however they end."""
        for play in self._plays:
            play.outcome.exception()

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._play_all())

    async def _play_all(self) -> None:
        places = asyncio.Semaphore(AT_A_TIME)
        async with (
            chromium() as browser,
            asyncpg.create_pool(self._product.dsn, min_size=1, max_size=AT_A_TIME) as pool,
            asyncio.TaskGroup() as group,
        ):

            async def perform(play: Play) -> None:
                async with places:
                    if play.outcome.cancelled():
                        return
                    try:
                        async with Viewer.arriving(browser, self._product, pool) as viewer:
                            await play.scene(viewer)
                    except Exception as error:
                        play.outcome.set_exception(error)
                    else:
                        play.outcome.set_result(None)

            for play in self._plays:
                group.create_task(perform(play))
