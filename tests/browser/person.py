"""Somebody at a browser: what they do, and what they see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

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
    statistics: dict[str, str]  # by name
    title: str  # of the tab
    icon: str


LOOK = """() => {
    const text = (part) => {
        const element = document.querySelector(`[data-part="${part}"]`);
        return !element || element.hidden ? "" : element.textContent;
    };
    const bar = document.querySelector('[role=progressbar][aria-label="Transcription"]');
    const statistics = [...document.querySelectorAll(".statistics > div")].map((each) => [
        each.querySelector("dt").textContent,
        each.querySelector("dd").textContent,
    ]);
    return {
        statistics: Object.fromEntries(statistics),
        title: document.title,
        icon: document.querySelector("link[rel=icon]").href,
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
    url: str  # by which they reach the product
    complaints: list[str] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def arriving(
        cls, browser: Browser, product: Product, url: str = ""
    ) -> AsyncIterator[Person]:
        """Somebody without an account. Their recordings are deleted when they leave."""
        context = await browser.new_context()
        page = await context.new_page()
        person = cls(page, product, f"{uuid4().hex}@example.com", url or product.url)
        page.on("console", person._heard)
        page.on("pageerror", lambda error: person.complaints.append(str(error)))
        yield person
        for session_id in person.sessions():
            bearer = {"Authorization": f"Bearer {product.sign_in(person.email)}"}
            url = f"{product.url}/api/v1/sessions/{session_id}"
            await context.request.delete(url, headers=bearer)
        await context.close()

    @classmethod
    @asynccontextmanager
    async def with_account(
        cls, browser: Browser, product: Product, url: str = "", role: str = "patient"
    ) -> AsyncIterator[Person]:
        """Somebody with an account."""
        async with cls.arriving(browser, product, url) as person:
            product.create_user(person.email, role=role)
            yield person

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    @property
    def user_id(self) -> UUID:
        [(user_id,)] = self.product.rows("SELECT id FROM users WHERE email = %s", self.email)
        return UUID(str(user_id))

    def open_streams(self) -> int:
        """The streams that the server has open for them."""
        [(count,)] = self.product.rows(
            "SELECT count(*) FROM open_streams WHERE user_id = %s AND NOT replaced", self.user_id
        )
        return int(count)

    def sessions(self) -> list[str]:
        """The ids of what they uploaded."""
        rows = self.product.rows(
            "SELECT s.id FROM sessions s JOIN users u ON u.id = s.owner_id WHERE u.email = %s",
            self.email,
        )
        return [str(row[0]) for row in rows]

    async def sign_in(self, path: str = "/", password: str = PASSWORD) -> None:
        """Open a page and fill in the form it shows."""
        await self.page.goto(self.url + path)
        await self.fill_in(password)

    async def fill_in(self, password: str = PASSWORD) -> None:
        """Sign in where one is asked to."""
        await self.page.get_by_label("Email").fill(self.email)
        await self.page.get_by_label("Password").fill(password)
        await self.page.get_by_role("button", name="Sign in").click()

    async def open(self, path: str) -> None:
        """Go to a page as somebody who is signed in."""
        await self.page.goto(self.url + path)

    async def upload(self, path: Path, title: str = "Garden talk") -> str:
        """Upload from the list, and open the page of the session; returns its id."""
        await self.choose(path)
        await self.titles.fill(title)
        await self.button("Upload and transcribe").click()
        await self.page.get_by_role("link", name=title, exact=True).click()
        await self.page.wait_for_url("**/sessions/*")
        return self.page.url.rsplit("/", 1)[-1]

    async def choose(self, *paths: Path) -> None:
        """Choose files for upload."""
        await self.page.get_by_label("Choose recordings").set_input_files(paths)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def heading(self, name: str) -> Locator:
        return self.page.get_by_role("heading", name=name, exact=True)

    @property
    def titles(self) -> Locator:
        """The fields for the titles of chosen files."""
        return self.page.get_by_role("textbox", name="Title")

    @property
    def bar(self) -> Locator:
        """How far the transcription is."""
        return self.page.get_by_role("progressbar", name="Transcription", exact=True)

    @property
    def transcript(self) -> Locator:
        return self.page.get_by_role("region", name="Text with times")

    @property
    def connection(self) -> Locator:
        """What is said of the connection."""
        return self.page.locator("[data-part=connection]")

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
                return [*seen, await self.look()]
            await self.page.wait_for_timeout(1000 * SIGHT_S)
        raise AssertionError(f"did not appear; last seen: {seen[-1]}")
