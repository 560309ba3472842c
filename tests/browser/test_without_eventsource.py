"""A browser that has no EventSource: all works, by polling, and nobody is bothered with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.cable import Cable
from tests.browser.person import Person
from tests.browser.together import together
from tests.browser.viewer import Viewer
from tests.product import Product

REMOVE = "delete window.EventSource"
UPDATED = "● Updated every 3 s"
WORDS_OF_STREAMS = ("stream", "reconnect", "live", "not available", "unsupported")


@pytest.mark.criterion("AC-3.3.1")
@pytest.mark.criterion("AC-3.3.2")
@pytest.mark.criterion("AC-3.3.4")
@pytest.mark.criterion("AC-3.3.5")
async def test_from_upload_to_transcript_without_eventsource(
    browser: Browser, product: Product, short_clip: Path
) -> None:
    async with (
        Cable(product.url) as cable,
        Person.with_account(browser, product, cable.url) as person,
    ):
        await person.page.add_init_script(REMOVE)
        await person.sign_in()
        session_id = await person.upload(short_clip, "Mill")
        seen = await person.watch(until=person.heading("Transcript"))
        assert seen[-1].badge == "Done"
        await expect(person.transcript).to_contain_text("grandfather")
        await expect(person.page.get_by_role("link", name="Text", exact=True)).to_be_visible()
        said = {sight.connection.lower() for sight in seen}
        assert not [words for words in said if any(word in words for word in WORDS_OF_STREAMS)]
        assert len(cable.asked_for(f"/api/v1/sessions/{session_id}/status")) >= 1
        assert cable.streams_asked == []
        assert person.complaints == []


@pytest.mark.criterion("AC-3.3.3")
@pytest.mark.criterion("AC-3.3.4")
@together(lasts_s=18)
async def test_without_eventsource_it_is_polled_from_the_start_and_nothing_is_missing(
    viewer: Viewer,
) -> None:
    await viewer.page.add_init_script(REMOVE)
    await viewer.tell(10, pieces=2)
    await viewer.follow()
    # Not first after attempts at a stream.
    await viewer.sees(10, within_s=5)
    await viewer.reads(UPDATED)
    await viewer.tell(40, pieces=3)
    await viewer.sees(40)
    await viewer.reads(UPDATED)
    # The list goes without as well.
    await viewer.page.get_by_role("link", name="All recordings").click()
    row = viewer.page.get_by_role("list", name="Recordings").get_by_role("listitem")
    await viewer.tell(50)
    await expect(row).to_contain_text("50 %")
    await viewer.reads(UPDATED)
    await viewer.page.get_by_role("link", name="A talk").click()
    await viewer.sees(50)
    await viewer.page.get_by_role("button", name="Cancel transcription").click()
    await expect(viewer.page.locator("[data-part=badge]")).to_have_text("Cancelled")
    await viewer.sees_text()
    assert viewer.cable.streams_asked == []
