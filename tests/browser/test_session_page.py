"""The page of one recording, in good times and bad ones."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Route, expect

from tests.browser.person import Person

STREAM = "**/status/stream*"
HOUR_US = 3600 * 1_000_000
COUNT_CHANGES = """
window.changes = 0;
addEventListener("DOMContentLoaded", () => {
    const observer = new MutationObserver((records) => {
        const isMessage = ({ target }) => target.parentElement?.closest("[data-part=message]");
        window.changes += records.filter(isMessage).length;
    });
    observer.observe(document.body, { subtree: true, childList: true, characterData: true });
});
"""


async def test_a_reload_shows_the_present_state_at_once(owner: Person, long_clip: Path) -> None:
    await owner.sign_in()
    await owner.upload(long_clip)
    await expect(owner.bar).to_have_attribute(
        "aria-valuenow", re.compile("[1-9][0-9]"), timeout=30_000
    )
    before = await owner.look()
    await owner.page.reload()
    await expect(owner.button("Cancel transcription")).to_be_visible()
    first = await owner.look()
    assert first.percent >= before.percent
    assert first.badge == "Transcribing"
    await expect(owner.page.get_by_text("● Live updates")).to_be_visible()


async def test_cancelled_work_keeps_its_text_and_goes_on_when_retried(
    owner: Person, long_clip: Path
) -> None:
    await owner.sign_in()
    await owner.upload(long_clip)
    # By then the first half minute is stored.
    await expect(owner.bar).to_have_attribute(
        "aria-valuenow", re.compile("[4-9][0-9]"), timeout=60_000
    )
    await owner.button("Cancel transcription").click()
    await expect(owner.heading("Transcript so far")).to_be_visible()
    await expect(owner.transcript).to_contain_text("good morning and welcome")
    await expect(owner.page.get_by_role("link", name="Text", exact=True)).to_be_visible()
    await expect(owner.button("Cancel transcription")).to_be_hidden()
    cancelled = await owner.look()
    assert cancelled.badge == "Cancelled"
    await owner.button("Try again").click()
    seen = await owner.watch(until=owner.heading("Transcript"))
    assert min(sight.percent for sight in seen) >= cancelled.percent
    assert seen[-1].badge == "Done"
    await expect(owner.transcript).to_contain_text("three apple trees")
    assert owner.complaints == []


@pytest.mark.criterion("AC-2.3.4")
@pytest.mark.criterion("AC-2.2.5")
async def test_a_failure_appears_by_itself_with_its_reason_and_what_to_do(
    owner: Person, long_clip: Path, short_clip: Path
) -> None:
    await owner.sign_in()
    first_id = await owner.upload(long_clip)
    await owner.page.get_by_text("Transcribing… 0:").wait_for()
    await owner.page.get_by_role("link", name="All recordings").click()
    await owner.upload(short_clip, "Lost")
    await expect(owner.page.get_by_text("Waiting", exact=True)).to_be_visible()
    # The store loses the recording while it waits behind the first.
    owner.product.rows(
        "DELETE FROM audio_chunks WHERE audio_id::text = "
        "(SELECT audio_key FROM sessions WHERE title = 'Lost') RETURNING idx"
    )
    await owner.page.context.request.delete(
        f"{owner.product.url}/api/v1/sessions/{first_id}",
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    badge = owner.page.locator("[data-part=badge]")
    await expect(badge).to_have_text("Failed", timeout=60_000)
    await expect(
        owner.page.get_by_text("The recording is no longer stored.", exact=True)
    ).to_be_visible()
    await expect(owner.page.get_by_text("Upload the recording again.")).to_be_visible()
    # So is it to those who listen.
    await expect(owner.page.get_by_role("status")).to_contain_text("Lost failed.")


async def test_deleting_asks_first(owner: Person, short_clip: Path) -> None:
    await owner.sign_in()
    await owner.upload(short_clip, "Mill")
    await owner.button("Delete").click()
    dialog = owner.page.get_by_role("alertdialog", name="Delete this recording?")
    await dialog.get_by_role("button", name="Keep it").click()
    await expect(owner.heading("Mill")).to_be_visible()
    await owner.button("Delete").click()
    await dialog.get_by_role("button", name="Delete").click()
    await expect(owner.page.get_by_text("Nothing here yet")).to_be_visible()


@pytest.mark.criterion("AC-2.2.3")
async def test_the_estimate_follows_each_update(owner: Person, long_clip: Path) -> None:
    await owner.sign_in()
    session_id = await owner.upload(long_clip)
    latest = await status_of(owner, session_id)
    streams: asyncio.Queue[str] = asyncio.Queue()

    async def play(route: Route) -> None:
        # Held back until the test has seen what came before.
        await route.fulfill(content_type="text/event-stream", body=await streams.get())

    # Otherwise the page before the reload could open its stream as late as this.
    await expect(owner.page.get_by_text("● Live updates")).to_be_visible()
    await owner.page.route(STREAM, play)
    streams.put_nowait(hello(retry_ms=100) + event(latest, 1, "First", left_s=300))
    await owner.page.reload()
    await expect(owner.page.get_by_text("about 5 minutes left")).to_be_visible()
    streams.put_nowait(hello(retry_ms=100) + event(latest, 2, "Second", left_s=120))
    await expect(owner.page.get_by_text("about 2 minutes left")).to_be_visible()
    streams.put_nowait(hello(retry_ms=60_000) + event(latest, 3, "Third", left_s=None))
    await expect(owner.page.get_by_text("Third")).to_be_visible()
    await expect(owner.page.get_by_text("left")).to_be_hidden()


@pytest.mark.criterion("AC-2.2.6")
async def test_a_flood_of_updates_is_drawn_a_few_times_and_ends_right(
    owner: Person, long_clip: Path
) -> None:
    await owner.sign_in()
    session_id = await owner.upload(long_clip)
    latest = await status_of(owner, session_id)
    flood = "".join(event(latest, number, f"Step {number}") for number in range(1, 1001))

    async def play(route: Route) -> None:
        body = hello(retry_ms=60_000) + flood
        await route.fulfill(content_type="text/event-stream", body=body)

    await expect(owner.page.get_by_text("● Live updates")).to_be_visible()
    await owner.page.route(STREAM, play)
    await owner.page.add_init_script(COUNT_CHANGES)
    await owner.page.reload()
    await expect(owner.page.get_by_text("Step 1000")).to_be_visible()
    assert 1 <= await owner.page.evaluate("window.changes") <= 20


async def status_of(person: Person, session_id: str) -> dict[str, Any]:
    """The latest status message, by asking."""
    url = f"{person.product.url}/api/v1/sessions/{session_id}/status"
    answer = await person.page.context.request.get(url)
    latest: dict[str, Any] = await answer.json()
    return latest


def hello(retry_ms: int) -> str:
    """The first block of a stream."""
    data = json.dumps({"heartbeat_s": 15, "server_time": datetime.now(UTC).isoformat()})
    return f"retry: {retry_ms}\nevent: hello\ndata: {data}\n\n"


def event(latest: dict[str, Any], number: int, message: str, left_s: float | None = None) -> str:
    """A progress event well after the latest one."""
    done_at = None
    if left_s is not None:
        done_at = (datetime.now(UTC) + timedelta(seconds=left_s)).isoformat()
    fields = {
        **latest,
        "id": latest["id"] + HOUR_US + number,
        "status": "processing",
        "message": message,
        "estimated_completion": done_at,
    }
    return f"id: {fields['id']}\nevent: progress\ndata: {json.dumps(fields)}\n\n"
