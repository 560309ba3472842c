"""The web page as a person meets it: signing in, uploading, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from playwright.async_api import Browser, Locator, expect

from tests.browser.cable import Cable
from tests.browser.person import Person
from tests.clips import SAMPLE_RATE_HZ, wav_of
from tests.product import PASSWORD, Product

SOUND_S = """() => new Promise((resolve) => {
    const audio = document.querySelector("audio");
    const tell = () => resolve(audio.duration);
    if (audio.readyState > 0) tell();
    else audio.addEventListener("loadedmetadata", tell);
})"""


@pytest.mark.criterion("AC-2.2.1")
@pytest.mark.criterion("AC-2.2.2")
@pytest.mark.criterion("AC-2.2.4")
@pytest.mark.criterion("AC-2.3.1")
@pytest.mark.criterion("AC-2.3.2")
@pytest.mark.criterion("AC-2.3.3")
@pytest.mark.criterion("SH-6")
async def test_from_a_new_account_to_the_transcript_without_reload(
    browser: Browser, product: Product, long_clip: Path
) -> None:
    async with Person.arriving(browser, product) as person:
        page = person.page
        await page.goto(product.url)
        await person.button("Make an account").click()
        await page.get_by_label("Email").fill(person.email)
        await page.get_by_label("Password").fill(PASSWORD)
        await person.button("Make account").click()
        await expect(page.get_by_text("Nothing here yet")).to_be_visible()
        await page.evaluate("window.loadedOnce = true")

        await person.upload(long_clip, "Garden talk")
        await expect(person.heading("Garden talk")).to_be_visible()
        transcript = person.heading("Transcript")
        assert await page.get_by_role("link", name="Subtitles (SRT)").count() == 0
        seen = await person.watch(until=transcript)

        percents = [sight.percent for sight in seen]
        assert percents == sorted(percents)
        assert len(set(percents)) >= 4
        assert percents[-1] == 100
        assert any(sight.connection == "● Live updates" for sight in seen)
        assert any(sight.message.startswith("Transcribing… 0:") for sight in seen)
        assert seen[-1].message.startswith("Transcript ready")
        assert [sight.badge for sight in seen][-1] == "Done"
        # What was done of the recording, its speed and its segments are counted on the way.
        figures = [sight.statistics for sight in seen]
        assert len({(figure["Audio done"], figure["Segments"]) for figure in figures}) >= 4
        assert "–" not in {figures[-1]["Audio done"], figures[-1]["Speed"]}
        assert int(figures[-1]["Segments"]) > 3
        # Titles and icons of tabs are seen when the page is not.
        assert any(re.fullmatch(r"[0-9]+ % · Garden talk.*", sight.title) for sight in seen)
        assert len({sight.icon for sight in seen}) >= 4
        for words in ("good morning and welcome", "three apple trees", "cherry trees"):
            await expect(person.transcript).to_contain_text(words)
        assert await page.evaluate("window.loadedOnce")

        for name, start in (
            ("Text", "good morning"),
            ("Subtitles (SRT)", "1\r\n00:00"),
            ("Subtitles (VTT)", "WEBVTT\n\n00:00"),
            ("JSON with times", '{"session_id"'),
        ):
            async with page.expect_download() as download:
                await page.get_by_role("link", name=name, exact=True).click()
            file = await download.value
            with (await file.path()).open(newline="") as content:
                assert content.read(len(start)) == start
            assert file.suggested_filename.startswith("Garden talk.")
        assert await page.evaluate(SOUND_S) > 30
        assert person.complaints == []


@pytest.mark.criterion("AC-2.3.6")
async def test_the_upload_shows_how_far_it_is_and_can_be_stopped(
    owner: Person, tmp_path: Path
) -> None:
    await owner.sign_in()
    recording = tmp_path / "long.wav"
    recording.write_bytes(bytes(30_000_000))
    await upload_slowly(owner, bytes_per_s=4_000_000)
    await owner.choose(recording)
    await owner.button("Upload and transcribe").click()
    bar = owner.page.get_by_role("progressbar", name="Upload of long")
    shown = owner.page.get_by_text("Uploading…")
    seen: set[int] = set()
    while len(seen) < 5:
        seen.add(int(await bar.get_attribute("aria-valuenow") or 0))
        await expect(shown).to_be_visible()
        await owner.page.wait_for_timeout(50)
    await expect(shown).to_contain_text("of 30 MB")
    await owner.button("Cancel long").click()
    await expect(shown).to_have_count(0)
    await expect(owner.page.get_by_text("Nothing here yet")).to_be_visible()
    await expect(owner.page.get_by_role("alert")).to_have_count(0)
    assert owner.sessions() == []


@pytest.mark.criterion("AC-2.3.6")
async def test_an_upload_becomes_a_row_that_lives_and_needs_no_reload(
    owner: Person, long_clip: Path, short_clip: Path
) -> None:
    await owner.sign_in()
    rows = rows_of(owner)
    await owner.choose(long_clip)
    await owner.titles.fill("Long")
    await owner.button("Upload and transcribe").click()
    first = rows.filter(has_text="Long")
    await expect(first.locator("[data-part=badge]")).to_have_text("Transcribing")
    await owner.choose(short_clip, short_clip)
    await owner.titles.nth(0).fill("Brook")
    await owner.titles.nth(1).fill("Harbour")
    await owner.button("Upload and transcribe 2 recordings").click()
    await expect(rows.filter(has_text="Next in the queue")).to_have_count(1)
    await expect(rows.filter(has_text="1 before it in the queue")).to_have_count(1)
    await expect(first.get_by_role("progressbar")).to_have_attribute(
        "aria-valuenow", re.compile("[1-9][0-9]"), timeout=30_000
    )
    await expect(first).to_contain_text("Transcribing… 0:")
    await expect(owner.connection).to_have_text("● Live updates")
    for title in ("Long", "Brook", "Harbour"):
        badge = rows.filter(has_text=title).locator("[data-part=badge]")
        await expect(badge).to_have_text("Done", timeout=60_000)
    assert owner.complaints == []


async def test_an_upload_that_breaks_off_goes_again_by_itself_and_arrives_once(
    browser: Browser, product: Product, tmp_path: Path
) -> None:
    recording = tmp_path / "noise.wav"
    recording.write_bytes(wav_of(np.zeros(SAMPLE_RATE_HZ * 60, dtype=np.int16)))
    async with (
        Cable(product.url) as cable,
        Person.with_account(browser, product, cable.url) as person,
    ):
        await person.sign_in()
        await upload_slowly(person, bytes_per_s=500_000)
        await person.choose(recording)
        await person.button("Upload and transcribe").click()
        bar = person.page.get_by_role("progressbar", name="Upload of noise")
        await expect(bar).to_have_attribute("aria-valuenow", re.compile("[1-9][0-9]"))
        cable.unplug()
        await expect(person.page.get_by_text("Nothing is lost.")).to_be_visible()
        await expect(person.page.get_by_text("The server cannot be reached.")).to_be_visible()
        cable.plug()
        row = person.page.get_by_role("link", name="noise", exact=True)
        await expect(row).to_be_visible(timeout=30_000)
        posts = [asked for asked in cable.asked_for("/api/v1/sessions") if asked.method == "POST"]
        assert len(posts) >= 2
        assert len({asked.headers["idempotency-key"] for asked in posts}) == 1
        assert len(person.sessions()) == 1


@pytest.mark.criterion("AC-2.2.5")
async def test_a_text_named_mp3_is_refused_in_words_and_leaves_nothing(
    owner: Person, tmp_path: Path
) -> None:
    fake = tmp_path / "song.mp3"
    fake.write_text("This is no song, it only has the name of one.")
    await owner.sign_in()
    await owner.choose(fake)
    await owner.button("Upload and transcribe").click()
    alert = owner.page.get_by_role("alert")
    await expect(alert).to_contain_text("This file is not a recording in any format")
    await expect(alert).to_contain_text("Export the recording as MP3, M4A or WAV")
    await owner.page.reload()
    await expect(owner.page.get_by_text("Nothing here yet")).to_be_visible()
    await expect(rows_of(owner)).to_have_count(0)


async def test_a_dropped_file_is_chosen(owner: Person) -> None:
    await owner.sign_in()
    zone = owner.heading("Recordings")
    files = await owner.page.evaluate_handle(
        """() => {
            const files = new DataTransfer();
            files.items.add(new File(["sound"], "<img src=x>.ogg"));
            return files;
        }"""
    )
    await zone.dispatch_event("drop", {"dataTransfer": files})
    # Data is shown as text, whatever it looks like.
    await expect(owner.page.get_by_text("<img src=x>.ogg")).to_be_visible()
    await expect(owner.button("Upload and transcribe")).to_be_visible()


async def test_a_wrong_password_is_told_and_the_right_one_enters(owner: Person) -> None:
    await owner.sign_in(password="not the password")
    alert = owner.page.get_by_role("alert")
    await expect(alert).to_have_text("The address or the password is wrong.")
    await owner.page.get_by_label("Password").fill(PASSWORD)
    await owner.page.keyboard.press("Enter")
    await expect(owner.heading("Recordings")).to_be_visible()
    await expect(owner.page.get_by_text(owner.email)).to_be_visible()


async def test_signing_out_closes_the_page_and_the_session_behind_it(owner: Person) -> None:
    await owner.sign_in()
    await owner.page.get_by_role("link", name="Account of").click()
    await owner.button("Sign out").click()
    await expect(owner.heading("Sign in")).to_be_visible()
    answer = await owner.page.context.request.get(f"{owner.product.url}/api/v1/auth/me")
    assert answer.status == 401


async def test_an_expired_sign_in_asks_again_and_comes_back(
    owner: Person, short_clip: Path
) -> None:
    await owner.sign_in()
    await owner.upload(short_clip, "Mill")
    await expect(owner.heading("Transcript")).to_be_visible(timeout=30_000)
    await owner.page.context.clear_cookies()
    await owner.page.reload()
    await expect(owner.page.get_by_text("You have been signed out")).to_be_visible()
    await owner.page.get_by_label("Email").fill(owner.email)
    await owner.page.get_by_label("Password").fill(PASSWORD)
    await owner.button("Sign in").click()
    await expect(owner.heading("Mill")).to_be_visible()


async def test_a_stranger_is_refused_in_words(
    owner: Person, stranger: Person, short_clip: Path
) -> None:
    await owner.sign_in()
    session_id = await owner.upload(short_clip, "Private")
    await stranger.sign_in(f"/sessions/{session_id}")
    await expect(stranger.heading("Not yours to see")).to_be_visible()
    assert "Private" not in await stranger.page.content()
    await stranger.page.get_by_role("link", name="All recordings").click()
    await expect(stranger.page.get_by_text("Nothing here yet")).to_be_visible()


async def test_a_session_that_never_was_says_so(owner: Person) -> None:
    await owner.sign_in(f"/sessions/{uuid4()}")
    await expect(owner.page.get_by_text("There is no such session")).to_be_visible()


async def test_the_api_page_lists_every_operation(browser: Browser, product: Product) -> None:
    async with Person.arriving(browser, product) as reader:
        await reader.page.goto(f"{product.url}/docs")
        shown = reader.page.get_by_role("group")
        await expect(shown.first).to_be_visible()
        document = await (
            await reader.page.context.request.get(f"{product.url}/openapi.json")
        ).json()
        assert await shown.count() == sum(len(item) for item in document["paths"].values())
        login = shown.filter(has_text="/api/v1/auth/login")
        await login.get_by_text("POST").click()
        await expect(login.get_by_text("password", exact=True)).to_be_visible()
        assert reader.complaints == []


def rows_of(person: Person) -> Locator:
    """The rows of the list."""
    return person.page.get_by_role("list", name="Recordings").get_by_role("listitem")


async def upload_slowly(person: Person, bytes_per_s: int) -> None:
    """Give the browser a line that sends no more than that."""
    network = await person.page.context.new_cdp_session(person.page)
    await network.send(
        "Network.emulateNetworkConditions",
        {
            "offline": False,
            "latency": 0,
            "downloadThroughput": -1,
            "uploadThroughput": bytes_per_s,
        },
    )
