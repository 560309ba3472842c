"""Several tabs of one browser are one stream to the server."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, expect

from tests.browser.together import together
from tests.browser.viewer import LIVE, Viewer, eventually

TABS = 4


async def open_tabs(viewer: Viewer) -> list[Page]:
    """The viewer's page and more, all at the session; the first one was there first."""
    await viewer.follow()
    await live(viewer.page)
    others = [await viewer.page.context.new_page() for _ in range(TABS - 1)]
    for tab in others:
        await tab.goto(viewer.cable.url + viewer.path)
    tabs = [viewer.page, *others]
    await asyncio.gather(*(live(tab) for tab in tabs))
    return tabs


async def live(tab: Page) -> None:
    await expect(tab.locator("[data-part=connection]")).to_have_text(LIVE)


@pytest.mark.behaviour("MD-46")
@together(lasts_s=12)
async def test_four_tabs_of_a_session_share_a_stream_and_inherit_it(viewer: Viewer) -> None:
    await viewer.tell(10, pieces=2)
    leader, *heirs = await open_tabs(viewer)
    assert viewer.person.open_streams() == 1
    assert len(viewer.streams) == 1
    await viewer.tell(20, pieces=1)
    for tab in (leader, *heirs):
        await viewer.sees(20, on=tab)

    # What is told while the stream changes hands is missed by nobody.
    closing = asyncio.create_task(leader.close())
    for progress in (30, 40, 50):
        await viewer.tell(progress, pieces=2)
    await closing
    for tab in heirs:
        await viewer.sees(50, on=tab)
        await live(tab)
    await eventually(lambda: viewer.person.open_streams() == 1)
    await viewer.tell(60, pieces=1)
    for tab in heirs:
        await viewer.sees(60, on=tab)
    assert len(viewer.streams) == 2
    assert viewer.polls == []

    for tab in heirs:
        await tab.close()
    await eventually(lambda: viewer.person.open_streams() == 0)


@together(lasts_s=8)
async def test_the_end_is_seen_in_every_tab_and_asked_for_again_by_none(viewer: Viewer) -> None:
    await viewer.tell(10, pieces=2)
    tabs = await open_tabs(viewer)
    await viewer.tell_end()
    for tab in tabs:
        await expect(tab.get_by_role("heading", name="Transcript", exact=True)).to_be_visible()
        await expect(tab.locator("[data-part=badge]")).to_have_text("Done")
        await viewer.sees_text(on=tab)
        await expect(tab.locator("[data-part=connection]")).to_be_hidden()
    await eventually(lambda: viewer.person.open_streams() == 0)
    assert len(viewer.streams) == 1
    assert viewer.polls == []
