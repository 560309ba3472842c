"""Somebody who follows a session, over a cable, while a test says what its worker would say."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from playwright.async_api import Browser, Page, expect

from jobs.database import Pool
from jobs.model import Status
from tests.browser.cable import Asked, Cable
from tests.browser.person import Person
from tests.integration.streaming_fixtures import Recording, make_recording
from tests.product import Product

CONNECTING = "○ Connecting…"
LIVE = "● Live updates"
CHECKING = "○ Checking every 3 s, reconnecting"
AWAY = "○ The server does not answer; trying again"
POLL_S = 3


@dataclass
class Viewer:
    """A person, the session they follow, and what is between them and the product."""

    person: Person
    cable: Cable
    recording: Recording

    @classmethod
    @asynccontextmanager
    async def arriving(
        cls, browser: Browser, product: Product, pool: Pool
    ) -> AsyncIterator[Viewer]:
        """Somebody with an account and a session in the queue, not signed in yet."""
        async with (
            Cable(product.url) as cable,
            Person.with_account(browser, product, cable.url) as person,
        ):
            yield cls(person, cable, await make_recording(pool, owner_id=person.user_id))

    def at(self, page: Page) -> Viewer:
        """The same person at another browser."""
        person = Person(page, self.person.product, self.person.email, self.person.url)
        return Viewer(person, self.cable, self.recording)

    @property
    def page(self) -> Page:
        return self.person.page

    @property
    def path(self) -> str:
        """Of the session's page."""
        return f"/sessions/{self.recording.id}"

    @property
    def polls(self) -> list[Asked]:
        """How often the status was asked for."""
        return self.cable.asked_for(f"/api/v1{self.path}/status")

    @property
    def streams(self) -> list[Asked]:
        """How often a stream of the session was asked for."""
        return self.cable.asked_for(f"/api/v1{self.path}/status/stream")

    async def follow(self) -> None:
        """Sign in and open the page."""
        await self.person.sign_in(self.path)
        await self.page.get_by_role("heading", name="A talk").wait_for()

    async def follow_live(self) -> None:
        """The same, with something to see already, and the stream is live."""
        await self.tell(10, pieces=1)
        await self.follow()
        await self.reads(LIVE)

    async def tell(self, progress: int, pieces: int = 0) -> None:
        """The worker is so far, and has recognised so many more pieces."""
        await self.recording.publish(progress=progress, message=said(progress), pieces=pieces)

    async def tell_end(self) -> None:
        """The worker is done."""
        await self.recording.publish(Status.COMPLETED, message="Transcript ready")

    async def sees(self, progress: int, *, on: Page | None = None, within_s: float = 20) -> None:
        """The page shows that, and all the text there is, each piece once and in order."""
        page = on or self.page
        await expect(page.locator("[data-part=message]")).to_have_text(
            said(progress), timeout=1000 * within_s
        )
        await expect(page.locator("[data-part=percent]")).to_have_text(f"{progress} %")
        await self.sees_text(on=page)

    async def sees_text(self, *, on: Page | None = None) -> None:
        """All the text there is, each piece once and in order."""
        pieces = [
            re.compile(rf"This is piece {number}\b") for number in range(self.recording.pieces)
        ]
        await expect((on or self.page).locator(".segment")).to_have_text(pieces)

    async def reads(self, words: str, *, within_s: float = 20) -> None:
        """What is said of the connection."""
        await expect(self.person.connection).to_have_text(words, timeout=1000 * within_s)


def said(progress: int) -> str:
    """What the worker says when it is so far."""
    return f"Step {progress}"


async def eventually(holds: Callable[[], bool], within_s: float = 20) -> None:
    """Return as soon as it holds, asking a few times a second."""
    give_up_at = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < give_up_at, f"did not come about within {within_s} s"
        await asyncio.sleep(0.2)
