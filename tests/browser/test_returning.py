"""Pages that were left, put away, frozen or offline are current as soon as somebody is back."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import expect

from tests.browser.chromium import chromium_with_tabs
from tests.browser.together import together
from tests.browser.viewer import CHECKING, LIVE, POLL_S, Viewer, eventually, said

BACK_S = 2  # in which a page is current again
UNSEEN_S = 60  # after which a page that nobody looks at polls no more; of the client

# When somebody was back, and when the page showed what it should.
NOTE_TIMES = """([back, words]) => {
    window.backAt = window.shownAt = null;
    for (const target of [window, document]) {
        target.addEventListener(back, () => { window.backAt ??= performance.now(); }, true);
    }
    new MutationObserver(() => {
        const shown = document.querySelector("[data-part=message]")?.textContent;
        if (shown === words) window.shownAt ??= performance.now();
    }).observe(document, { subtree: true, childList: true, characterData: true });
}"""


async def note_times(viewer: Viewer, back: str, progress: int) -> None:
    """From now on, until `took_s`."""
    await viewer.page.evaluate(NOTE_TIMES, [back, said(progress)])


async def took_s(viewer: Viewer) -> float:
    """From the return to the sight, by the page's own clock."""
    took_ms: float = await viewer.page.evaluate("window.shownAt - window.backAt")
    assert await viewer.page.evaluate("window.backAt") is not None
    return took_ms / 1000


@pytest.mark.behaviour("MD-68")
@together(lasts_s=12)
async def test_who_was_offline_is_told_so_and_current_when_back(viewer: Viewer) -> None:
    await viewer.follow_live()
    await note_times(viewer, "online", 60)
    viewer.cable.unplug()
    await viewer.page.context.set_offline(True)
    await viewer.tell(60, pieces=5)
    await expect(viewer.person.connection).not_to_have_text(LIVE)
    await asyncio.sleep(3)  # so that the next try by itself is some way off
    assert (await viewer.person.look()).percent == 10
    viewer.cable.plug()
    await viewer.page.context.set_offline(False)
    await viewer.sees(60)
    assert await took_s(viewer) < BACK_S
    await viewer.reads(LIVE)


@pytest.mark.criterion("AC-2.1.6")
@pytest.mark.behaviour("MD-68")
@together(lasts_s=8)
async def test_a_frozen_tab_lets_go_of_its_stream_and_is_current_when_thawed(
    viewer: Viewer,
) -> None:
    async with chromium_with_tabs() as context:
        viewer = viewer.at(await context.new_page())
        await viewer.follow_live()
        await note_times(viewer, "resume", 60)
        control = await context.new_cdp_session(viewer.page)
        await (await context.new_page()).bring_to_front()
        await control.send("Page.setWebLifecycleState", {"state": "frozen"})
        await eventually(lambda: viewer.person.open_streams() == 0)
        await viewer.tell(60, pieces=5)
        await control.send("Page.setWebLifecycleState", {"state": "active"})
        await viewer.page.bring_to_front()
        await viewer.sees(60)
        assert await took_s(viewer) < BACK_S
        await viewer.reads(LIVE)
        assert viewer.person.open_streams() == 1


@pytest.mark.criterion("AC-2.1.4")
@pytest.mark.criterion("AC-2.1.6")
@pytest.mark.behaviour("MD-68")
@together(lasts_s=6)
async def test_a_page_that_the_browser_kept_is_current_when_one_goes_back(viewer: Viewer) -> None:
    await viewer.follow_live()
    await note_times(viewer, "pageshow", 60)
    await viewer.page.evaluate("window.loadedOnce = true")
    await viewer.page.goto(f"{viewer.cable.url}/docs")
    await eventually(lambda: viewer.person.open_streams() == 0)
    await viewer.tell(60, pieces=5)
    await viewer.page.go_back(wait_until="commit")
    await viewer.sees(60)
    assert await viewer.page.evaluate("window.loadedOnce"), "the browser did not keep it"
    assert await took_s(viewer) < BACK_S
    await viewer.reads(LIVE)


@pytest.mark.criterion("AC-2.1.4")
@pytest.mark.behaviour("MD-69")
@together(lasts_s=6)
async def test_a_session_that_is_left_within_the_page_is_followed_no_more(viewer: Viewer) -> None:
    await viewer.follow_live()
    await viewer.page.get_by_role("link", name="All recordings").click()
    await expect(viewer.page.get_by_role("list", name="Recordings")).to_contain_text(said(10))
    count = "SELECT count(*) FROM open_streams WHERE session_id = %s AND NOT replaced"
    rows = viewer.person.product.rows
    await eventually(lambda: rows(count, viewer.recording.id) == [(0,)])
    # The list has one stream for all.
    await eventually(lambda: viewer.person.open_streams() == 1)
    await viewer.tell(20, pieces=1)
    await viewer.page.get_by_role("link", name="A talk").click()
    await viewer.sees(20)
    await eventually(lambda: rows(count, viewer.recording.id) == [(1,)])
    assert len(viewer.streams) == 2


@pytest.mark.criterion("AC-2.1.6")
@pytest.mark.behaviour("MD-71")
@together(lasts_s=80)
async def test_a_tab_that_nobody_looks_at_stops_asking_and_is_current_when_seen(
    viewer: Viewer,
) -> None:
    async with chromium_with_tabs() as context:
        viewer = viewer.at(await context.new_page())
        viewer.cable.refuse_streams(503)
        await viewer.tell(10, pieces=1)
        await viewer.follow()
        await viewer.reads(CHECKING)
        await (await context.new_page()).bring_to_front()
        asked = len(viewer.polls)
        await eventually(lambda: len(viewer.polls) > asked)  # who is away for a moment misses none
        await asyncio.sleep(UNSEEN_S + POLL_S)
        asked = len(viewer.polls)
        await viewer.tell(60, pieces=5)
        await asyncio.sleep(2 * POLL_S)
        assert len(viewer.polls) == asked
        await note_times(viewer, "visibilitychange", 60)
        await viewer.page.bring_to_front()
        await viewer.sees(60)
        assert await took_s(viewer) < BACK_S


@pytest.mark.criterion("AC-2.1.6")
@together(lasts_s=10)
async def test_a_hidden_tab_keeps_its_stream_and_shows_the_end_in_its_title(
    viewer: Viewer,
) -> None:
    async with chromium_with_tabs() as context:
        viewer = viewer.at(await context.new_page())
        await viewer.follow_live()
        await (await context.new_page()).bring_to_front()
        await viewer.tell(60, pieces=2)
        await expect(viewer.page).to_have_title(re.compile("^60 % · A talk"))
        await viewer.tell_end()
        await expect(viewer.page).to_have_title(re.compile("^A talk"))
        assert len(viewer.streams) == 1
        assert viewer.polls == []
