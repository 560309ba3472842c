"""axe-core finds nothing to object to: on every page, in light and dark, with a dialog open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Browser, Page, expect

from jobs.database import Pool
from jobs.model import Status
from tests.browser.person import Person
from tests.integration.streaming_fixtures import Recording, make_recording
from tests.product import Product

ROOT = Path(__file__).resolve().parent.parent.parent
AXE = (ROOT / "quartapp/web/node_modules/axe-core/axe.min.js").read_text()
RUN = """async () => {
    const { violations } = await axe.run(document, { resultTypes: ["violations"] });
    return violations.map(({ id, nodes }) => [id, ...nodes.map(({ html, failureSummary }) =>
        `${html.slice(0, 200)}: ${failureSummary}`)]);
}"""


async def objections(page: Page, name: str) -> list[Any]:
    """What axe says of a page as it is now, in both colours."""
    found: list[Any] = []
    # What is on the way from one colour to the other has no contrast to judge.
    await page.emulate_media(reduced_motion="reduce")
    await page.evaluate(AXE)
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        found += [(name, scheme, violation) for violation in await page.evaluate(RUN)]
    return found


@pytest.fixture
async def therapist(browser: Browser, brisk: Product) -> AsyncIterator[Person]:
    """Whoever sees the most pages."""
    async with Person.with_account(browser, brisk, role="therapist") as person:
        yield person


async def test_the_pages_before_signing_in(browser: Browser, brisk: Product) -> None:
    async with Person.with_account(browser, brisk) as person:
        page = person.page
        await person.open("/")
        await expect(person.heading("Sign in")).to_be_visible()
        found = await objections(page, "sign in")
        await person.sign_in(password="not the password")
        await expect(page.get_by_role("alert")).to_be_visible()
        found += await objections(page, "a wrong password")
        await person.button("Make an account").click()
        found += await objections(page, "register")
        await person.open("/docs")
        await expect(page.get_by_role("group").first).to_be_visible()
        found += await objections(page, "docs")
        await person.open("/there/is/no/such/page")
        await expect(page.get_by_role("heading", level=1)).to_be_visible()
        found += await objections(page, "no such page")
        assert found == []


async def test_the_list_and_what_is_on_its_way_to_it(
    therapist: Person, writing: Pool, tmp_path: Path
) -> None:
    page = therapist.page
    await therapist.sign_in()
    await expect(page.get_by_text("Nothing here yet")).to_be_visible()
    found = await objections(page, "empty list")
    for recording in await cast_of(writing, therapist):
        await expect(page.locator(f"a[href='/sessions/{recording.id}']")).to_be_visible()
    found += await objections(page, "list")
    text = tmp_path / "song.mp3"
    text.write_text("This is no song.")
    await therapist.choose(text)
    await expect(therapist.titles).to_be_visible()
    found += await objections(page, "chosen files")
    await therapist.button("Upload and transcribe").click()
    await expect(page.get_by_role("alert")).to_be_visible()
    found += await objections(page, "refused upload")
    await page.get_by_role("button", name="Delete A talk").first.click()
    await expect(page.get_by_role("alertdialog")).to_be_visible()
    found += await objections(page, "dialog over the list")
    assert found == []


async def test_a_session_in_every_state(therapist: Person, writing: Pool) -> None:
    page = therapist.page
    await therapist.sign_in()
    await expect(therapist.heading("Recordings")).to_be_visible()
    found = []
    for recording in await cast_of(writing, therapist):
        state = recording.published[-1].status
        await therapist.open(f"/sessions/{recording.id}")
        await expect(therapist.heading("A talk")).to_be_visible()
        await page.get_by_text("What happened").click()
        await expect(page.get_by_text("Waiting for its turn").last).to_be_visible()
        found += await objections(page, f"session, {state}")
    await therapist.button("Delete").click()
    await expect(page.get_by_role("alertdialog")).to_be_visible()
    found += await objections(page, "dialog over a session")
    await therapist.open(f"/sessions/{uuid4()}")
    await expect(therapist.heading("Nothing here")).to_be_visible()
    found += await objections(page, "no such session")
    assert found == []


async def test_the_account_and_the_patients(
    therapist: Person, brisk: Product, writing: Pool
) -> None:
    page = therapist.page
    patient = await make_recording(writing)
    brisk.rows(
        "INSERT INTO care_assignments VALUES (%s, %s) RETURNING 1",
        therapist.user_id,
        patient.owner_id,
    )
    await therapist.sign_in("/account")
    await page.get_by_label("Name").fill("a script")
    await therapist.button("Make a token").click()
    await expect(page.get_by_text("it is not shown again")).to_be_visible()
    found = await objections(page, "account")
    await therapist.button("Revoke a script").click()
    await expect(page.get_by_role("alertdialog")).to_be_visible()
    found += await objections(page, "dialog over the account")
    await page.get_by_role("alertdialog").get_by_role("button", name="Revoke").click()
    await expect(page.get_by_text("You have no tokens.")).to_be_visible()
    await page.get_by_role("link", name="Patients").click()
    await expect(page.get_by_role("list", name="Patients")).to_be_visible()
    found += await objections(page, "patients")
    await page.get_by_role("list", name="Patients").get_by_role("link").click()
    await expect(page.get_by_role("list", name="Recordings")).to_contain_text("A talk")
    found += await objections(page, "patient")
    assert found == []


async def cast_of(pool: Pool, person: Person) -> list[Recording]:
    """A session in every state, all of one person."""
    owner_id = person.user_id
    cast = [await make_recording(pool, owner_id=owner_id) for _ in Status]
    for recording, status in zip(cast, Status, strict=True):
        if status is not Status.QUEUED:
            await recording.publish(progress=50, message="Half way", pieces=3)
        if status.terminal:
            await recording.publish(status, message=f"It is {status}")
    return cast
