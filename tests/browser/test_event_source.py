"""The browser's own EventSource on the status stream, without a page of ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from playwright.async_api import Browser, Page

from jobs.database import Pool
from jobs.model import Status
from tests.browser.cable import Cable
from tests.conftest import make_database
from tests.integration.streaming_fixtures import Recording, make_recording, stream_path
from tests.net import free_port
from tests.product import PASSWORD, Product

CONNECTING, OPEN, CLOSED = 0, 1, 2
RETRY_MIN_MS, RETRY_MAX_MS = 300, 500
IDLE_TIMEOUT_S = 1.5
FRIEND_PORT, STRANGER_PORT = free_port(), free_port()

SETTINGS = {
    "QUARTAPP_ROLE": "web",
    "QUARTAPP_HEARTBEAT_S": "0.4",
    "QUARTAPP_IDLE_TIMEOUT_S": str(IDLE_TIMEOUT_S),
    "QUARTAPP_RETRY_MIN_MS": str(RETRY_MIN_MS),
    "QUARTAPP_RETRY_MAX_MS": str(RETRY_MAX_MS),
    "QUARTAPP_CORS_ORIGINS": f"http://127.0.0.1:{FRIEND_PORT}",
}

FOLLOW = """([url, withCredentials]) => {
    window.seen = [];
    window.source = new EventSource(url, { withCredentials });
    const note = (name) => (event) => window.seen.push({
        name,
        id: event.lastEventId ?? "",
        data: event.data ? JSON.parse(event.data) : null,
        sent: event instanceof MessageEvent,
        state: window.source.readyState,
    });
    for (const name of ["open", "message", "error", "hello", "progress", "complete", "failed",
        "cancelled", "reset", "heartbeat", "idle", "lifetime", "restarting", "unauthorized", "gone",
        "replaced"]) {
        window.source.addEventListener(name, note(name));
    }
}"""


@pytest.fixture(scope="module")
def hasty(
    server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Product]:
    """A product whose times are short."""
    for dsn in make_database(server_dsn, template):
        running = Product(dsn, tmp_path_factory.mktemp("hasty"), SETTINGS).start()
        yield running
        running.stop()


@pytest.fixture
async def writing(hasty: Product) -> AsyncIterator[Pool]:
    """The database under it, for what a worker would write."""
    async with asyncpg.create_pool(hasty.dsn, min_size=1, max_size=1) as pool:
        yield pool


@dataclass
class Watcher:
    """An EventSource in a page of the product's own origin, and the session it watches."""

    page: Page
    cable: Cable
    recording: Recording

    @property
    def path(self) -> str:
        return stream_path(self.recording)

    async def follow(self, url: str = "", *, with_credentials: bool = False) -> None:
        """Begin; returns at once."""
        await self.page.evaluate(FOLLOW, [url or self.path, with_credentials])

    async def seen(self) -> list[dict[str, Any]]:
        """All events so far, in order."""
        seen: list[dict[str, Any]] = await self.page.evaluate("window.seen")
        return seen

    async def state(self) -> int:
        state: int = await self.page.evaluate("window.source.readyState")
        return state

    async def until(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """All events, once there are so many of that name."""
        await self.page.wait_for_function(
            "([name, count]) => window.seen.filter((event) => event.name === name).length >= count",
            arg=[name, count],
        )
        return await self.seen()

    async def until_closed(self) -> None:
        await self.page.wait_for_function("() => window.source.readyState === 2")

    async def calm(self) -> None:
        """Time enough for several reconnects, if there were to be any."""
        await asyncio.sleep(3 * RETRY_MAX_MS / 1000)


@pytest.fixture
async def watcher(browser: Browser, hasty: Product, writing: Pool) -> AsyncIterator[Watcher]:
    email = f"{uuid4().hex}@example.com"
    owner_id = hasty.create_user(email)
    context = await browser.new_context()
    signed_in = await context.request.post(
        f"{hasty.url}/api/v1/auth/login", data={"email": email, "password": PASSWORD}
    )
    assert signed_in.ok
    async with Cable(hasty.url) as cable:
        page = await context.new_page()
        await page.goto(f"{cable.url}/healthz")
        yield Watcher(page, cable, await make_recording(writing, owner_id=owner_id))
        await context.close()


def names(seen: list[dict[str, Any]]) -> list[str]:
    return [event["name"] for event in seen if event["name"] != "heartbeat"]


@pytest.mark.behaviour("MD-14")
@pytest.mark.behaviour("MD-28")
@pytest.mark.parametrize(
    ("status", "last"),
    [(Status.FAILED, "failed"), (Status.COMPLETED, "complete"), (Status.CANCELLED, "cancelled")],
)
async def test_the_end_comes_under_its_name_and_the_browser_stops_for_good(
    watcher: Watcher, status: Status, last: str
) -> None:
    await watcher.follow()
    await watcher.until("progress")
    await watcher.recording.publish(progress=10)
    await watcher.until("progress", 2)
    ended = await watcher.recording.publish(status, message="It cannot be read")
    await watcher.until_closed()
    seen = await watcher.seen()
    assert names(seen) == ["open", "hello", "progress", "progress", last, "error", "error"]
    # Nothing of ours is taken for an error: those are the browser's own, of a connection that is
    # over, and then of one that is not wanted.
    lost, refused = [event for event in seen if event["name"] == "error"]
    assert (lost["sent"], lost["state"]) == (False, CONNECTING)
    assert (refused["sent"], refused["state"]) == (False, CLOSED)
    await watcher.calm()
    asked = watcher.cable.asked_for(watcher.path)
    assert [request.headers.get("last-event-id") for request in asked] == [None, str(ended.id)]
    assert await watcher.state() == CLOSED


@pytest.mark.behaviour("MD-15")
@pytest.mark.behaviour("MD-16")
async def test_scripts_see_heartbeats_and_these_move_no_cursor(watcher: Watcher) -> None:
    await watcher.follow()
    seen = await watcher.until("heartbeat", 3)
    cursor = str(watcher.recording.ids[-1])
    beats = [event for event in seen if event["name"] == "heartbeat"]
    assert {beat["id"] for beat in beats} == {cursor}
    assert all(set(beat["data"]) == {"timestamp", "worker_seen_at", "transport"} for beat in beats)
    assert {beat["state"] for beat in beats} == {OPEN}
    sent = await watcher.recording.publish(progress=10)
    seen = await watcher.until("progress", 2)
    assert [event["id"] for event in seen if event["name"] == "progress"] == [cursor, str(sent.id)]


@pytest.mark.behaviour("MD-22")
async def test_a_connection_cut_again_and_again_costs_no_event(watcher: Watcher) -> None:
    await watcher.follow()
    await watcher.until("progress")
    for number in range(3):
        watcher.cable.cut()
        for progress in range(1, 4):
            await watcher.recording.publish(progress=10 * number + progress)
        await watcher.until("progress", 1 + 3 * (number + 1))
    seen = await watcher.seen()
    ids = [int(event["id"]) for event in seen if event["name"] == "progress"]
    assert ids == watcher.recording.ids
    assert "reset" not in names(seen)
    asked = watcher.cable.asked_for(watcher.path)
    cursors = [request.headers.get("last-event-id") for request in asked]
    assert cursors == [None, *(str(ids[3 * number]) for number in range(3))]


@pytest.mark.behaviour("MD-10")
async def test_the_browser_waits_as_long_as_it_was_told(watcher: Watcher) -> None:
    await watcher.follow()
    await watcher.until("hello")
    for count in (2, 3, 4):
        cut_at = time.monotonic()
        watcher.cable.cut()
        await watcher.until("hello", count)
        again_at = watcher.cable.asked_for(watcher.path)[-1].at
        assert again_at - cut_at >= RETRY_MIN_MS / 1000 - 0.05


@pytest.mark.behaviour("MD-29")
async def test_a_deleted_session_is_told_and_the_browser_stops(watcher: Watcher) -> None:
    await watcher.follow()
    await watcher.until("progress")
    deleted = await watcher.page.context.request.delete(
        f"{watcher.cable.url}/api/v1/sessions/{watcher.recording.id}",
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert deleted.ok
    await watcher.until_closed()
    assert names(await watcher.seen()) == ["open", "hello", "progress", "gone", "error", "error"]
    await watcher.calm()
    assert len(watcher.cable.asked_for(watcher.path)) == 2
    assert await watcher.state() == CLOSED


@pytest.mark.behaviour("MD-35")
async def test_an_idle_session_is_asked_for_calmly(watcher: Watcher) -> None:
    await watcher.follow()
    seen = await watcher.until("hello", 4)
    assert names(seen)[:4] == ["open", "hello", "progress", "idle"]
    assert names(seen).count("idle") == 3
    # Whoever comes back has the state, and is told nothing twice.
    assert names(seen).count("progress") == 1
    asked = watcher.cable.asked_for(watcher.path)
    gaps_s = [after.at - before.at for before, after in pairwise(asked)]
    assert min(gaps_s) >= IDLE_TIMEOUT_S + RETRY_MIN_MS / 1000 - 0.1


@asynccontextmanager
async def another_site(port: int) -> AsyncIterator[str]:
    """The origin of a server with nothing but an empty page."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n")
        writer.write(b"<title>elsewhere</title>")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.behaviour("MD-51")
@pytest.mark.parametrize(
    ("port", "allowed"), [(FRIEND_PORT, True), (STRANGER_PORT, False)], ids=["friend", "stranger"]
)
async def test_a_page_of_another_origin_sees_what_it_may(
    watcher: Watcher, port: int, allowed: bool
) -> None:
    async with another_site(port) as origin:
        await watcher.page.goto(origin)
        # Cookies know no ports, so the browser sends it; what comes back is another matter.
        await watcher.follow(watcher.cable.url + watcher.path, with_credentials=True)
        if allowed:
            await watcher.until("progress")
        else:
            await watcher.until_closed()
            assert names(await watcher.seen()) == ["error"]
        [asked] = watcher.cable.asked_for(watcher.path)
        assert asked.headers["origin"] == origin
        assert "quartapp=" in asked.headers["cookie"]


async def test_a_page_without_a_sign_in_is_refused_for_good(watcher: Watcher) -> None:
    await watcher.page.context.clear_cookies()
    await watcher.follow()
    await watcher.until_closed()
    await watcher.calm()
    assert names(await watcher.seen()) == ["error"]
    assert len(watcher.cable.asked_for(watcher.path)) == 1
