"""What one does with recordings once they are there: find them, hear them, be told of their end."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Browser, expect

from jobs.database import Pool
from tests.browser.person import Person
from tests.browser.together import together
from tests.browser.viewer import LIVE, Viewer
from tests.integration.streaming_fixtures import make_recording
from tests.product import Product

# What the browser would show outside of its pages.
NOTE_NOTICES = """
window.notices = [];
window.Notification = class {
    static permission = "default";
    static requestPermission() { this.permission = "granted"; return Promise.resolve("granted"); }
    constructor(title, { body }) { window.notices.push([title, body]); }
};
"""
PLACE = """() => {
    const current = document.querySelector(".segment[data-current]");
    const audio = document.querySelector("audio");
    return [
        [...document.querySelectorAll(".segment")].indexOf(current),
        current?.querySelector("mark")?.textContent ?? "",
        audio.currentTime,
    ];
}"""

MIDDLE_OF = """(word) => {
    const texts = document.createTreeWalker(
        document.querySelector(".transcript"), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const start = texts.currentNode.data.indexOf(word);
        if (start < 0) continue;
        const range = document.createRange();
        range.setStart(texts.currentNode, start);
        range.setEnd(texts.currentNode, start + word.length);
        const { x, y, width, height } = range.getBoundingClientRect();
        return [x + width / 2, y + height / 2];
    }
}"""


async def test_the_list_is_searched_by_title_and_narrowed_to_a_status(
    browser: Browser, brisk: Product, writing: Pool
) -> None:
    async with Person.with_account(browser, brisk) as person:
        mill, garden = [await make_recording(writing, owner_id=person.user_id) for _ in range(2)]
        rename = "UPDATE sessions SET title = $2 WHERE id = $1"
        await writing.executemany(rename, [(mill.id, "Mill"), (garden.id, "Garden")])
        await garden.publish(progress=10)
        await person.sign_in()
        rows = person.page.get_by_role("list", name="Recordings").get_by_role("listitem")
        await expect(rows).to_have_count(2)
        search = person.page.get_by_role("searchbox", name="Search by title")
        await search.fill("mil")
        await expect(rows).to_have_count(1)
        await expect(rows).to_contain_text("Mill")
        await search.fill("no such title")
        await expect(person.page.get_by_text("No recording matches.")).to_be_visible()
        await person.button("Show all").click()
        await expect(rows).to_have_count(2)
        await person.page.get_by_role("combobox", name="Status").select_option("Transcribing")
        await expect(rows).to_have_count(1)
        await expect(rows).to_contain_text("Garden")
        # The list goes on living while it is narrowed.
        await garden.publish(progress=70)
        await expect(rows).to_contain_text("70 %")


async def test_the_text_follows_the_sound_and_a_click_on_its_time_seeks(
    owner: Person, short_clip: Path
) -> None:
    await owner.sign_in()
    await owner.upload(short_clip)
    await expect(owner.heading("Transcript")).to_be_visible(timeout=60_000)
    await owner.page.get_by_role("button", name="Play from").first.click()
    await owner.page.wait_for_function(f"() => ({PLACE})()[1] !== ''")
    index, word, _ = await owner.page.evaluate(PLACE)
    assert index == 0
    # It goes on to the next word by itself.
    await owner.page.wait_for_function(f"() => !['', {word!r}].includes(({PLACE})()[1])")
    # A click on a word plays from there; it is among the last of a few seconds.
    await owner.page.evaluate("document.querySelector('audio').pause()")
    await owner.page.evaluate("document.querySelector('audio').currentTime = 0")
    x, y = await owner.page.evaluate(MIDDLE_OF, "grandfather")
    await owner.page.mouse.click(x, y)
    await owner.page.wait_for_function(f"() => ({PLACE})()[2] > 1.5")
    assert owner.complaints == []


@together(lasts_s=5)
async def test_who_asked_for_it_is_told_of_the_end_by_the_browser(viewer: Viewer) -> None:
    await viewer.page.add_init_script(NOTE_NOTICES)
    await viewer.tell(10, pieces=1)
    await viewer.follow()
    await viewer.reads(LIVE)
    await viewer.page.get_by_role("button", name="Tell me at the end").click()
    await expect(
        viewer.page.get_by_role("button", name="You will be told at the end")
    ).to_be_visible()
    await viewer.tell_end()
    await viewer.page.wait_for_function("() => window.notices.length > 0")
    assert await viewer.page.evaluate("window.notices") == [["A talk", "The transcript is ready."]]


@together(lasts_s=5)
async def test_what_happened_is_listed_and_keeps_up(viewer: Viewer) -> None:
    await viewer.tell(10, pieces=1)
    await viewer.follow()
    await viewer.reads(LIVE)
    await viewer.page.get_by_text("What happened").click()
    entries = viewer.page.locator(".timeline li")
    await expect(entries).to_contain_text(["Waiting for its turn", "Step 10"])
    await viewer.tell(50, pieces=1)
    await expect(entries).to_contain_text(["Waiting for its turn", "Step 10", "Step 50"])
    await viewer.tell_end()
    await expect(entries.last).to_contain_text("Transcript ready")
