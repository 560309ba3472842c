"""What somebody may not see, they are told so, and are asked for and shown nothing of it."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from jobs.database import Pool
from tests.browser.cable import Cable
from tests.browser.person import Person
from tests.browser.together import together
from tests.browser.viewer import LIVE, Viewer, said
from tests.integration.streaming_fixtures import make_recording
from tests.product import Product


async def test_a_patient_who_opens_anothers_session_is_told_so_and_opens_no_stream(
    browser: Browser, brisk: Product, writing: Pool
) -> None:
    recording = await make_recording(writing)
    await recording.publish(progress=10, message="A secret step", pieces=2)
    async with (
        Cable(brisk.url) as cable,
        Person.with_account(browser, brisk, cable.url) as patient,
    ):
        await patient.sign_in(f"/sessions/{recording.id}")
        await expect(patient.heading("Not yours to see")).to_be_visible()
        await expect(patient.page.get_by_role("link", name="All recordings")).to_be_visible()
        shown = await patient.page.content()
        assert not [secret for secret in ("A talk", "A secret step", "piece") if secret in shown]
        # Asked for once: a refusal does not change by itself.
        about = [asked.path for asked in cable.asked if str(recording.id) in asked.path]
        assert [path for path in about if path.startswith("/api/")] == [
            f"/api/v1/sessions/{recording.id}"
        ]


async def test_a_therapist_follows_the_sessions_of_assigned_patients_alone(
    browser: Browser, brisk: Product, writing: Pool
) -> None:
    mine, another = await make_recording(writing), await make_recording(writing)
    async with Person.with_account(browser, brisk, role="therapist") as therapist:
        brisk.rows(
            "INSERT INTO care_assignments (therapist_id, patient_id) VALUES (%s, %s) "
            "RETURNING patient_id",
            therapist.user_id,
            mine.owner_id,
        )
        [(email,)] = brisk.rows("SELECT email FROM users WHERE id = %s", mine.owner_id)
        page = therapist.page
        await therapist.sign_in()
        await page.get_by_role("link", name="Patients").click()
        await expect(
            page.get_by_role("list", name="Patients").get_by_role("listitem")
        ).to_have_count(1)
        await page.get_by_role("link", name=email).click()
        await expect(therapist.heading(email)).to_be_visible()
        row = page.get_by_role("list", name="Recordings").get_by_role("listitem")
        await expect(row).to_have_count(1)
        await mine.publish(progress=30, message=said(30), pieces=1)
        await expect(row).to_contain_text(said(30))
        await page.get_by_role("link", name="A talk").click()
        await mine.publish(progress=40, message=said(40), pieces=1)
        await expect(page.get_by_text(said(40))).to_be_visible()
        await expect(therapist.connection).to_have_text(LIVE)
        await therapist.open(f"/sessions/{another.id}")
        await expect(therapist.heading("Not yours to see")).to_be_visible()


@pytest.mark.behaviour("MD-66")
@together(lasts_s=12)
async def test_whose_sign_in_is_over_is_asked_to_sign_in_and_comes_back_to_the_session(
    viewer: Viewer,
) -> None:
    await viewer.tell(10, pieces=1)
    await viewer.follow()
    await viewer.reads(LIVE)
    viewer.person.product.rows(
        "UPDATE logins SET revoked_at = now() WHERE user_id = %s RETURNING id",
        viewer.person.user_id,
    )
    # The stream ends by itself, so nobody has to do anything to be told.
    await expect(viewer.page.get_by_text("You have been signed out")).to_be_visible(timeout=40_000)
    assert "A talk" not in await viewer.page.inner_text("main")
    await viewer.person.fill_in()
    await viewer.sees(10)
    await viewer.reads(LIVE)


@together(lasts_s=6)
async def test_a_session_deleted_elsewhere_is_told_to_whoever_follows_it(viewer: Viewer) -> None:
    await viewer.tell(10, pieces=1)
    await viewer.follow()
    await viewer.reads(LIVE)
    await viewer.page.context.request.delete(
        f"{viewer.cable.url}/api/v1{viewer.path}", headers={"Sec-Fetch-Site": "same-origin"}
    )
    await expect(viewer.person.heading("This recording was deleted")).to_be_visible()
    assert len(viewer.streams) == 1
