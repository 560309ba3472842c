#!/usr/bin/env python3
"""Take docs/screenshots/*.png: every page, in light, in dark, and as wide as a phone.

The pages are those of a `quartapp serve` of its own, over an embedded database, and show recordings
that it has transcribed; flite speaks them. The pages must be built (scripts/build_web.py).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv" / "bin" / "python"
SHOTS = ROOT / "docs" / "screenshots"
sys.path.insert(0, str(ROOT))

try:
    from playwright.sync_api import Page, ViewportSize, sync_playwright

    from jobs.embedded import EmbeddedPostgres
    from tests.clips import LONG_TEXT, SHORT_TEXT, speech
    from tests.net import free_port
    from tests.product import PASSWORD, Product
    from tests.sessions import finished, upload
except ModuleNotFoundError:
    if not ENVIRONMENT.exists() or Path(sys.prefix) == ENVIRONMENT.parent.parent:
        raise
    os.execv(ENVIRONMENT, [str(ENVIRONMENT), *sys.argv])  # noqa: S606 - our own interpreter

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = ViewportSize(width=900, height=640), ViewportSize(width=360, height=720)
SETTLED_MS = 700  # for what moves

PATIENT, THERAPIST = "jonas@example.com", "dr.weber@example.com"
OTHERS = ("mira@example.com", "theo@example.com")


def main() -> int:
    shutil.rmtree(SHOTS, ignore_errors=True)
    SHOTS.mkdir(parents=True)
    with TemporaryDirectory(prefix="screenshots-") as name:
        directory = Path(name)
        with serving(directory) as product, at_a_browser(product) as page:
            prepare(product, directory)
            visit_as_a_stranger(page, directory)
            visit_as_a_patient(page, directory)
            visit_as_a_therapist(page)
    total_bytes = sum(path.stat().st_size for path in SHOTS.glob("*.png"))
    print(f"{len(list(SHOTS.glob('*.png')))} pictures, {total_bytes / 1e6:.1f} MB")
    return 0


@contextmanager
def serving(directory: Path) -> Iterator[Product]:
    """The product with nobody in it."""
    port = free_port()
    database = EmbeddedPostgres(directory / "database")
    database.start(tcp_port=port)
    product = Product(f"postgresql://quartapp@127.0.0.1:{port}/quartapp", directory).start()
    try:
        yield product
    finally:
        product.stop()
        database.stop()


@contextmanager
def at_a_browser(product: Product) -> Iterator[Page]:
    """A page whose addresses begin at the product."""
    found = [path for name in CHROMIUM_NAMES if (path := shutil.which(name))]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found[0] if found else None, args=["--no-sandbox"]
        )
        context = browser.new_context(base_url=product.url, viewport=DESKTOP, locale="en-GB")
        yield context.new_page()
        browser.close()


def prepare(product: Product, directory: Path) -> None:
    """People, and recordings in every state that lasts."""
    therapist = product.create_user(THERAPIST, role="therapist")
    with product.client(PATIENT) as patient:
        made = [
            upload(patient, speech(LONG_TEXT, directory), "garden.wav", title="Garden talk"),
            upload(patient, speech(SHORT_TEXT, directory), "mill.wav", title="The old mill"),
            upload(patient, speech(SHORT_TEXT, directory), "walk.wav", title="A walk in March"),
        ]
        lose(product, "A walk in March")
        for each in made:
            finished(patient, each.json()["id"])
    for email in OTHERS:
        product.create_user(email)
    for email in (PATIENT, *OTHERS):
        product.rows(
            "INSERT INTO care_assignments (therapist_id, patient_id) "
            "SELECT %s, id FROM users WHERE email = %s RETURNING 1",
            therapist,
            email,
        )


def lose(product: Product, title: str) -> None:
    """The store loses a recording while it waits."""
    product.rows(
        "DELETE FROM audio_chunks WHERE audio_id::text = "
        "(SELECT audio_key FROM sessions WHERE title = %s) RETURNING idx",
        title,
    )


def visit_as_a_stranger(page: Page, directory: Path) -> None:
    page.goto("/")
    shoot(page, "sign-in")
    page.goto("/register")
    page.get_by_label("Email").fill("lena@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    shoot(page, "register")
    page.get_by_role("button", name="Make account").click()
    page.get_by_text("Nothing here yet").wait_for()
    shoot(page, "recordings-empty")
    choose(page, directory, "first visit.wav", "second visit.wav")
    shoot(page, "recordings-chosen")
    page.get_by_role("button", name="Not now").click()
    page.goto("/nowhere")
    page.get_by_role("heading", name="No such page").wait_for()
    shoot(page, "not-found")
    sign_out(page)


def visit_as_a_patient(page: Page, directory: Path) -> None:
    sign_in(page, PATIENT)
    (directory / "third visit.wav").write_bytes(speech(LONG_TEXT * 4, directory))
    (directory / "letter.wav").write_bytes(speech(LONG_TEXT, directory))
    choose(page, directory, "third visit.wav", "letter.wav")
    page.get_by_role("button", name="Upload and transcribe").click()
    page.get_by_text(re.compile(r"^\d{2} % · Transcribing")).wait_for(timeout=120_000)
    shoot(page, "recordings")
    page.get_by_role("link", name="third visit").click()
    page.get_by_role("button", name=re.compile("^Play from")).first.wait_for(timeout=120_000)
    shoot(page, "session-live")
    page.get_by_role("button", name="Cancel transcription").click()
    page.get_by_role("button", name="Try again").wait_for()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("alertdialog").wait_for()
    shoot(page, "session-delete")
    page.get_by_role("button", name="Keep it").click()
    open_recording(page, "A walk in March")
    shoot(page, "session-failed")
    open_recording(page, "Garden talk")
    page.evaluate("document.querySelector('audio').muted = true")
    page.get_by_role("button", name=re.compile("^Play from")).nth(2).click()
    page.locator("mark").wait_for()
    page.evaluate("document.querySelector('audio').pause()")
    shoot(page, "session-done", at="Transcript")
    page.locator("summary").click()
    page.get_by_role("listitem").filter(has_text="Transcript ready").wait_for()
    shoot(page, "session-history", at="What happened")
    page.get_by_role("link", name="Account of").click()
    page.get_by_label("Name").fill("Backup script")
    page.get_by_role("button", name="Make a token").click()
    page.get_by_text("Copy it now").wait_for()
    # A picture of a real token, even of a server that is gone, looks like a leak.
    page.get_by_label("Copy it now").evaluate("field => { field.value = 'shown here once'; }")
    shoot(page, "account")
    sign_out(page)


def visit_as_a_therapist(page: Page) -> None:
    sign_in(page, THERAPIST)
    page.get_by_role("link", name="Patients").click()
    page.get_by_role("link", name=PATIENT).wait_for()
    shoot(page, "patients")
    page.get_by_role("link", name=PATIENT).click()
    page.get_by_role("link", name="Garden talk").wait_for()
    shoot(page, "patient")


def sign_in(page: Page, email: str) -> None:
    page.goto("/")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Recordings").wait_for()


def sign_out(page: Page) -> None:
    page.goto("/account")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()


def choose(page: Page, directory: Path, *names: str) -> None:
    for name in names:
        if not (directory / name).exists():
            (directory / name).write_bytes(speech(SHORT_TEXT, directory))
    page.get_by_label("Choose recordings").set_input_files([directory / name for name in names])
    page.get_by_label("Title").first.wait_for()


def open_recording(page: Page, title: str) -> None:
    page.goto("/")
    page.get_by_role("link", name=title).click()
    page.get_by_role("heading", name=title).wait_for()


def shoot(page: Page, name: str, at: str = "") -> None:
    """One picture for each look; scrolled to the heading `at`, if it is named."""
    for look, viewport, scheme in (
        ("light", DESKTOP, "light"),
        ("dark", DESKTOP, "dark"),
        ("phone", PHONE, "light"),
    ):
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        top = f"[...document.querySelectorAll('h2')].find(h => h.textContent === {at!r})"
        scroll = f"{top}.closest('.card').scrollIntoView()" if at else "scrollTo(0, 0)"
        page.evaluate(scroll)
        page.wait_for_timeout(SETTLED_MS)
        page.screenshot(path=SHOTS / f"{name}-{look}.png")
    page.set_viewport_size(DESKTOP)
    page.emulate_media(color_scheme="light")


if __name__ == "__main__":
    sys.exit(main())
