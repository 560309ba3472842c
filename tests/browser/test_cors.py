"""A real browser on a page of another origin: it decides by our headers what the page may have."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page

from jobs.model import Status
from quartapp.accounts import insert_login
from quartapp.auth import COOKIE_NAME, credentials
from quartapp.settings import WebSettings
from tests.integration.streaming_fixtures import Recording, Site, running_site, stream_path

# Each gives what the page got, or the name of what it was refused with.
FETCH = """async ([url, options]) => {
    try {
        const answer = await fetch(url, options);
        const body = await answer.json();
        return [answer.status, body.email || body.code, answer.headers.get("ratelimit-limit")];
    } catch (error) {
        return error.name;
    }
}"""

TICKET = """async ([url, authorization]) => {
    const options = {method: "POST", headers: {authorization}};
    return (await (await fetch(url, options)).json()).ticket;
}"""

FOLLOW = """([url, withCredentials]) => new Promise((resolve) => {
    const source = new EventSource(url, {withCredentials});
    const got = [];
    const stop = (word) => { source.close(); resolve([...got, word]); };
    source.addEventListener("hello", () => got.push("hello"));
    source.addEventListener("progress", (event) => got.push(JSON.parse(event.data).message));
    source.addEventListener("complete", () => stop("complete"));
    source.onerror = () => stop("refused");
})"""

READ = """async ([url, authorization]) => {
    try {
        const headers = {authorization, "last-event-id": "1"};
        const answer = await fetch(url, {headers});
        const text = await answer.text();
        return [...text.matchAll(/^event: (.+)$/gm)].map((found) => found[1]);
    } catch (error) {
        return error.name;
    }
}"""

SOCKET = """(url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onmessage = (message) => { socket.close(); resolve(JSON.parse(message.data).event); };
    socket.onerror = () => resolve("refused");
})"""


class EmptyPage(BaseHTTPRequestHandler):
    """The whole of the other site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href=data:,><title>Elsewhere</title>")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The origin of another site: another port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@asynccontextmanager
async def visited(
    settings: WebSettings, browser: Browser, where: str, origins: str
) -> AsyncIterator[tuple[Site, Page]]:
    """Us, and somebody who has signed in with us and is now on a page of the other site."""
    async with running_site(settings.model_copy(update={"cors_origins": origins})) as site:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(where)
        try:
            yield site, page
        finally:
            await context.close()


async def sign_in(site: Site, page: Page, recording: Recording) -> None:
    """The cookie that our own pages would have left there; ports share their cookies."""
    login_id = await insert_login(site.services.pool, recording.owner_id, 3600)
    async with site.app.app_context():
        cookie = credentials().cookie.dump_token(str(login_id))
    await page.context.add_cookies(
        [{"name": COOKIE_NAME, "value": cookie, "domain": "127.0.0.1", "path": "/"}]
    )


def address(site: Site, path: str) -> str:
    return f"http://127.0.0.1:{site.port}{path}"


def socket_of(site: Site, recording: Recording, query: str = "") -> str:
    return f"ws://127.0.0.1:{site.port}/api/v1/sessions/{recording.id}/status/ws{query}"


async def ticket(site: Site, page: Page, recording: Recording, bearer: str) -> str:
    """By the page itself."""
    path = address(site, f"/api/v1/sessions/{recording.id}/status/ticket")
    text: str = await page.evaluate(TICKET, [path, bearer])
    return text


async def complete(recording: Recording) -> None:
    """With which its streams end."""
    await recording.publish(Status.COMPLETED, message="Done")


@pytest.mark.criterion("TB-5")
@pytest.mark.behaviour("MD-51")
async def test_a_page_of_a_named_origin_has_everything(
    settings: WebSettings, browser: Browser, elsewhere: str
) -> None:
    async with visited(settings, browser, elsewhere, f"https://a.example,{elsewhere}") as (
        site,
        page,
    ):
        recording, headers = await site.recording()
        bearer = headers["Authorization"]
        me = address(site, "/api/v1/auth/me")
        stream = address(site, stream_path(recording))
        email = await site.services.pool.fetchval("SELECT email FROM users")
        by_bearer = {"headers": {"authorization": bearer}}
        limit = str(settings.request_limit)
        assert await page.evaluate(FETCH, [me, by_bearer]) == [200, email, limit]
        assert await page.evaluate(FETCH, [me, {}]) == [401, "unauthenticated", limit]
        tickets = [await ticket(site, page, recording, bearer) for _ in range(2)]
        url = socket_of(site, recording, f"?ticket={tickets[0]}")
        assert await page.evaluate(SOCKET, url)
        await sign_in(site, page, recording)
        with_cookie = {"credentials": "include"}
        assert await page.evaluate(FETCH, [me, with_cookie]) == [200, email, limit]
        await complete(recording)
        told = ["hello", "complete"]
        for query, cookie in ((f"?ticket={tickets[1]}", False), ("", True)):
            assert await page.evaluate(FOLLOW, [stream + query, cookie]) == told
        assert await page.evaluate(READ, [stream, bearer]) == ["hello", "reset", "complete"]
        out = {"method": "POST", "credentials": "include"}
        logout = address(site, "/api/v1/auth/logout")
        assert (
            await page.evaluate("(all) => fetch(...all).then((it) => it.status)", [logout, out])
            == 204
        )
        assert await page.evaluate(FETCH, [me, with_cookie]) == [401, "unauthenticated", limit]


@pytest.mark.criterion("TB-5")
@pytest.mark.behaviour("MD-51")
@pytest.mark.parametrize("origins", ["", "https://a.example", "http://127.0.0.1"])
async def test_a_page_of_another_origin_has_nothing(
    settings: WebSettings, browser: Browser, elsewhere: str, origins: str
) -> None:
    async with visited(settings, browser, elsewhere, origins) as (site, page):
        recording, headers = await site.recording()
        bearer = headers["Authorization"]
        await sign_in(site, page, recording)
        session = address(site, f"/api/v1/sessions/{recording.id}")
        async with httpx.AsyncClient(headers=headers) as client:
            given = (await client.post(f"{session}/status/ticket")).json()["ticket"]
        blind = {"method": "POST", "credentials": "include", "mode": "no-cors"}
        await page.evaluate("(all) => fetch(...all).then(() => null)", [f"{session}/cancel", blind])
        assert await site.services.pool.fetchval("SELECT status FROM sessions") == "queued"
        await complete(recording)
        me = address(site, "/api/v1/auth/me")
        stream = address(site, stream_path(recording))
        options: list[dict[str, Any]] = [
            {},
            {"credentials": "include"},
            {"headers": {"authorization": bearer}},
            {"headers": {"last-event-id": "1"}, "credentials": "include"},
        ]
        for each in options:
            assert await page.evaluate(FETCH, [me, each]) == "TypeError"
        assert await page.evaluate(READ, [stream, bearer]) == "TypeError"
        # One that came there by another way.
        for query, cookie in ((f"?ticket={given}", False), ("", True)):
            assert await page.evaluate(FOLLOW, [stream + query, cookie]) == ["refused"]
        assert await page.evaluate(SOCKET, socket_of(site, recording)) == "refused"


@pytest.mark.criterion("TB-5")
async def test_where_all_are_allowed_the_cookie_gets_nothing(
    settings: WebSettings, browser: Browser, elsewhere: str
) -> None:
    async with visited(settings, browser, elsewhere, "*") as (site, page):
        recording, headers = await site.recording()
        bearer = headers["Authorization"]
        await sign_in(site, page, recording)
        me = address(site, "/api/v1/auth/me")
        stream = address(site, stream_path(recording))
        with_bearer = {"headers": {"authorization": bearer}}
        assert (await page.evaluate(FETCH, [me, with_bearer]))[0] == 200
        assert (await page.evaluate(FETCH, [me, {}]))[0] == 401
        assert await page.evaluate(FETCH, [me, {"credentials": "include"}]) == "TypeError"
        assert await page.evaluate(SOCKET, socket_of(site, recording)) == "refused"
        text = await ticket(site, page, recording, bearer)
        assert await page.evaluate(SOCKET, socket_of(site, recording, f"?ticket={text}"))
        await complete(recording)
        text = await ticket(site, page, recording, bearer)
        assert await page.evaluate(FOLLOW, [stream, True]) == ["refused"]
        assert await page.evaluate(FOLLOW, [f"{stream}?ticket={text}", False]) == [
            "hello",
            "complete",
        ]


async def test_the_example_of_the_documentation_follows_a_session_to_its_end(
    settings: WebSettings, browser: Browser, elsewhere: str
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```js\n(.*?)```", text, re.DOTALL)
    short = settings.model_copy(update={"max_lifetime_s": 1.0})
    async with visited(short, browser, elsewhere, elsewhere) as (site, page):
        recording, headers = await site.recording()
        token = headers["Authorization"].removeprefix("Bearer ")
        await page.evaluate(
            f"""([api, id, token]) => {{
                window.API = api;
                window.shown = [];
                {example}
                follow(id, token, (message) => window.shown.push(message.id));
            }}""",
            [address(site, ""), str(recording.id), token],
        )
        await page.wait_for_function("shown.length")
        for percent in range(1, 41):
            await recording.publish(progress=percent)
            await asyncio.sleep(0.15)
        await complete(recording)
        await page.wait_for_function("(last) => shown.includes(last)", arg=recording.ids[-1])
        shown: list[int] = await page.evaluate("shown")
        opened = await site.services.pool.fetchval(
            "SELECT count(*) FROM stream_events WHERE kind = 'connect'"
        )
    assert opened >= 3, "its streams ended on the way"
    assert shown == recording.ids, "each once"
