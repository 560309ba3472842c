"""Somebody at a browser: what they do, and what they see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from playwright.async_api import Browser, ConsoleMessage, Locator, Page

from tests.product import PASSWORD, Product

SIGHT_S = 0.1


@dataclass(frozen=True, slots=True)
class Sight:
    """What the page of a session shows at one moment; empty for what is not there."""

    badge: str
    percent: int
    message: str
    figures: str
    connection: str


LOOK = """() => {
    const text = (part) => {
        const element = document.querySelector(`[data-part="${part}"]`);
        return !element || element.hidden ? "" : element.textContent;
    };
    const bar = document.querySelector('[role=progressbar][aria-label="Transcription"]');
    return {
        badge: text("badge"),
        percent: Number(bar?.getAttribute("aria-valuenow") ?? -1),
        message: text("message"),
        figures: text("figures"),
        connection: text("connection"),
    };
}"""


@dataclass
class Person:
    """One person with a browser profile, and all that the browser complained about."""

    page: Page
    product: Product
    email: str
    complaints: list[str] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def arriving(cls, browser: Browser, product: Product) -> AsyncIterator[Person]:
        """Somebody without an account. Their recordings are deleted when they leave."""
        context = await browser.new_context()
        page = await context.new_page()
        person = cls(page, product, f"{uuid4().hex}@example.com")
        page.on("console", person._heard)
        page.on("pageerror", lambda error: person.complaints.append(str(error)))
        yield person
        for session_id in person._sessions():
            bearer = {"Authorization": f"Bearer {product.sign_in(person.email)}"}
            url = f"{product.url}/api/v1/sessions/{session_id}"
            await context.request.delete(url, headers=bearer)
        await context.close()

    @classmethod
    @asynccontextmanager
    async def with_account(cls, browser: Browser, product: Product) -> AsyncIterator[Person]:
        """Somebody with an account."""
        async with cls.arriving(browser, product) as person:
            product.create_user(person.email)
            yield person

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def _sessions(self) -> list[str]:
        rows = self.product.rows(
            "SELECT s.id FROM sessions s JOIN users u ON u.id = s.owner_id WHERE u.email = %s",
            self.email,
        )
        return [str(row[0]) for row in rows]

    async def sign_in(self, path: str = "/", password: str = PASSWORD) -> None:
        """Open a page and fill in the form it shows."""
        await self.page.goto(self.product.url + path)
        await self.page.get_by_label("Email").fill(self.email)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name="Sign in").click()

    async def upload(self, path: Path, title: str = "") -> str:
        """Upload from the first page and arrive at the page of the session; returns its id."""
        await self.choose(path)
        if title:
            await self.page.get_by_label("Title").fill(title)
        await self.button("Upload and transcribe").click()
        await self.page.wait_for_url("**/sessions/*")
        return self.page.url.rsplit("/", 1)[-1]

    async def choose(self, path: Path) -> None:
        """Choose a file for upload."""
        await self.page.get_by_label("Choose a recording").set_input_files(path)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def heading(self, name: str) -> Locator:
        return self.page.get_by_role("heading", name=name, exact=True)

    async def look(self) -> Sight:
        """What is to be seen now."""
        return Sight(**await self.page.evaluate(LOOK))

    async def watch(self, until: Locator, timeout_s: float = 90) -> list[Sight]:
        """Look on until something appears; every change that was to be seen."""
        seen: list[Sight] = []
        for _ in range(int(timeout_s / SIGHT_S)):
            sight = await self.look()
            if not seen or sight != seen[-1]:
                seen.append(sight)
            if await until.is_visible():
                return seen
            await self.page.wait_for_timeout(1000 * SIGHT_S)
        raise AssertionError(f"did not appear; last seen: {seen[-1]}")
