"""The server is killed in the middle of a transcription: the page waits for it, and goes on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.person import Person
from tests.browser.viewer import LIVE
from tests.conftest import make_database
from tests.net import free_port
from tests.product import Product

# A worker that is gone is missed soon.
SETTINGS = {
    "QUARTAPP_LEASE_S": "2",
    "QUARTAPP_RECOVERY_INTERVAL_S": "0.5",
    "QUARTAPP_RETRY_DELAY_S": "0",
}


@pytest.fixture
def mortal(server_dsn: str, template: str, tmp_path: Path) -> Iterator[Product]:
    """A product that comes back at its address when it is started again."""
    arguments = ("serve", "--host", "127.0.0.1", "--port", str(free_port()))
    for dsn in make_database(server_dsn, template):
        running = Product(dsn, tmp_path, SETTINGS, arguments).start()
        yield running
        running.end()


@pytest.mark.criterion("AC-2.1.3")
async def test_a_server_that_is_killed_and_comes_back_costs_no_text_and_no_reload(
    browser: Browser, mortal: Product, long_clip: Path
) -> None:
    async with Person.with_account(browser, mortal) as person:
        await person.sign_in()
        session_id = await person.upload(long_clip)
        await person.page.evaluate("window.loadedOnce = true")
        # By then the first half minute is stored.
        await expect(person.bar).to_have_attribute(
            "aria-valuenow", re.compile("[4-9][0-9]"), timeout=60_000
        )
        await expect(person.connection).to_have_text(LIVE)
        await asyncio.to_thread(mortal.kill)
        await expect(person.connection).not_to_have_text(LIVE)
        alone = await person.look()
        assert alone.badge == "Transcribing"
        await asyncio.to_thread(mortal.start)
        seen = await person.watch(until=person.heading("Transcript"))

        percents = [sight.percent for sight in (alone, *seen)]
        assert percents == sorted(percents)
        assert percents[-1] == 100
        assert any(sight.connection == LIVE for sight in seen)
        assert await person.page.evaluate("window.loadedOnce")
        stored = mortal.rows(
            "SELECT text FROM transcript_segments WHERE session_id = %s ORDER BY idx", session_id
        )
        shown = person.page.locator(".segment .words")
        await expect(shown).to_have_text([text for (text,) in stored])
        assert mortal.rows("SELECT attempt FROM sessions WHERE id = %s", session_id) == [(2,)]
