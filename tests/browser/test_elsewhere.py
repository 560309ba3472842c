"""What is done in one tab, the others of the same browser take notice of."""

from __future__ import annotations

from playwright.async_api import Page, expect

from jobs.model import Status
from tests.browser.together import together
from tests.browser.viewer import LIVE, Viewer, said

FRESH_S = 5  # for which what was read is taken as it is


async def look_again(tab: Page) -> None:
    """As browsers tell a page that it is in front again; a while after it was read."""
    await tab.wait_for_timeout(1100 * FRESH_S)
    await tab.evaluate("document.dispatchEvent(new Event('visibilitychange', {bubbles: true}))")


@together(lasts_s=20)
async def test_an_end_a_retry_and_a_deletion_in_one_tab_are_seen_in_the_other(
    viewer: Viewer,
) -> None:
    await viewer.recording.publish(Status.CANCELLED, message="Cancelled")
    await viewer.follow()
    other = viewer.at(await viewer.page.context.new_page())
    await other.person.open(viewer.path)
    await expect(other.person.button("Try again")).to_be_visible()

    await viewer.person.button("Try again").click()
    await expect(viewer.person.button("Cancel transcription")).to_be_visible()
    await look_again(other.page)
    await expect(other.person.button("Cancel transcription")).to_be_visible()
    await other.reads(LIVE)

    await viewer.person.button("Cancel transcription").click()
    await expect(other.person.button("Try again")).to_be_visible()
    await viewer.person.button("Delete").click()
    await viewer.page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    await expect(viewer.person.heading("Recordings")).to_be_visible()
    await look_again(other.page)
    await expect(other.person.heading("This recording was deleted")).to_be_visible()


@together(lasts_s=5)
async def test_who_signs_out_or_in_does_so_in_every_tab(viewer: Viewer) -> None:
    await viewer.recording.publish(Status.COMPLETED, message=said(100))
    await viewer.follow()
    other = viewer.at(await viewer.page.context.new_page())
    await other.person.open("/account")
    await other.person.button("Sign out").click()
    await expect(viewer.person.heading("Sign in")).to_be_visible(timeout=2000)
    await expect(viewer.page.get_by_text("A talk")).to_have_count(0)
    await other.person.fill_in()
    await expect(viewer.person.heading("A talk")).to_be_visible()


@together(lasts_s=8)
async def test_without_a_network_a_page_is_waited_for(viewer: Viewer) -> None:
    await viewer.person.sign_in()
    await expect(viewer.person.heading("Recordings")).to_be_visible()
    await viewer.page.context.set_offline(True)
    await viewer.page.get_by_role("link", name="A talk").click()
    await expect(viewer.page.get_by_text("There is no network.")).to_be_visible()
    await viewer.page.context.set_offline(False)
    await expect(viewer.person.heading("A talk")).to_be_visible()
    await viewer.reads(LIVE)
