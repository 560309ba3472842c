"""Pages of other origins: those that are named get everything, others get nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import httpx
import pytest
import websockets
from websockets.exceptions import InvalidStatus
from werkzeug.routing import Rule

from jobs.model import Role, Status
from quartapp.accounts import insert_login
from quartapp.auth import COOKIE_NAME, credentials
from quartapp.cors import EXPOSED_HEADERS, METHODS, REQUEST_HEADERS
from quartapp.passwords import hash_password
from quartapp.settings import WebSettings
from tests.integration.streaming_fixtures import (
    Recording,
    Site,
    requested,
    running_site,
    stream_path,
)
from tests.product import PASSWORD

NAMED = "https://app.example.org"
ALSO_NAMED = "http://localhost:5173"
FOREIGN = "https://elsewhere.example"

# What somebody who wants to be taken for the first one would try.
ALMOST_NAMED = [
    FOREIGN,
    "null",
    "",
    "*",
    "http://app.example.org",
    "https://app.example.org:8443",
    "https://app.example.org.elsewhere.example",
    "https://elsewhere.example/https://app.example.org",
    "https://evil-app.example.org",
    "https://sub.app.example.org",
    "https://example.org",
    "https://app-example.org",
    "https://app.example.org/",
    "https://APP.EXAMPLE.ORG",
    "https://app.example.org, https://elsewhere.example",
    "http://localhost",
    "http://[",
]


@asynccontextmanager
async def sharing(settings: WebSettings, origins: str) -> AsyncIterator[Site]:
    checked = WebSettings.model_validate({"cors_origins": origins}).cors_origins
    more = {"cors_origins": checked, "streams_per_user": 100}
    async with running_site(settings.model_copy(update=more)) as site:
        yield site


@pytest.fixture
async def site(settings: WebSettings) -> AsyncIterator[Site]:
    async with sharing(settings, f"{NAMED},{ALSO_NAMED}") as running:
        yield running


@pytest.fixture
async def open_to_all(settings: WebSettings) -> AsyncIterator[Site]:
    async with sharing(settings, "*") as running:
        yield running


@asynccontextmanager
async def page(site: Site, origin: str | None = NAMED) -> AsyncIterator[httpx.AsyncClient]:
    """A page of that origin, as far as the server can tell."""
    headers = {} if origin is None else {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    url = f"http://127.0.0.1:{site.port}"
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        yield client


def preflight(method: str = "GET", headers: str = "authorization") -> dict[str, str]:
    return {
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


async def cookie_of(site: Site, user_id: UUID) -> dict[str, str]:
    login_id = await insert_login(site.services.pool, user_id, 3600)
    async with site.app.app_context():
        return {"Cookie": f"{COOKIE_NAME}={credentials().cookie.dump_token(str(login_id))}"}


def names(value: str | None) -> set[str]:
    return {name.strip().lower() for name in (value or "").split(",")} - {""}


def cors_headers(headers: httpx.Headers) -> dict[str, str]:
    return {name: headers[name] for name in headers if name.startswith("access-control-")}


def assert_shared(headers: httpx.Headers, origin: str = NAMED) -> None:
    assert headers.get_list("access-control-allow-origin") == [origin]
    assert headers.get_list("access-control-allow-credentials") == ["true"]
    assert "origin" in names(headers["vary"])
    assert names(headers["access-control-expose-headers"]) == set(EXPOSED_HEADERS)


def assert_not_shared(headers: httpx.Headers) -> None:
    assert not cors_headers(headers)
    assert "origin" in names(headers["vary"]), "or a cache would mix up the answers"


def shared_rules(site: Site) -> list[Rule]:
    return [
        rule
        for rule in site.app.url_map.iter_rules()
        if (rule.rule.startswith("/api/") or rule.rule == "/openapi.json") and not rule.websocket
    ]


def path_of(rule: Rule) -> str:
    """A path that the rule matches; what is no id is the format of a transcript."""
    ids = {name: uuid4() for name in rule.arguments if name.endswith("_id")}
    built = rule.build({**dict.fromkeys(rule.arguments, "json"), **ids})
    assert built is not None
    return built[1]


class TestNamed:
    """Origins of the setting."""

    @pytest.mark.criterion("TB-5")
    @pytest.mark.behaviour("MD-51")
    @pytest.mark.parametrize("origin", [NAMED, ALSO_NAMED])
    async def test_every_answer_may_be_read(self, site: Site, origin: str) -> None:
        recording, owner = await site.recording()
        _, stranger = await site.sign_in()
        session = f"/api/v1/sessions/{recording.id}"
        cases: list[tuple[str, str, dict[str, str], int]] = [
            ("GET", "/api/v1/auth/me", owner, 200),
            ("GET", "/openapi.json", {}, 200),
            ("HEAD", f"{session}/status", owner, 200),
            ("GET", "/api/v1/auth/me", {}, 401),
            ("GET", f"{session}/status", stranger, 403),
            ("GET", f"{session}/status/stream", {}, 401),
            ("GET", f"{session}/status/stream?ticket=nonsense", {}, 401),
            ("GET", f"{session}/status/stream", owner | {"Accept": "text/html"}, 406),
            ("GET", f"{session}/transcript.txt", owner, 404),
            ("GET", "/api/v1/nowhere", {}, 404),
            ("PATCH", session, owner, 405),
            ("GET", f"{session}/status/history?limit=no", owner, 422),
            ("POST", f"{session}/status/ticket", owner, 201),
            ("DELETE", session, owner, 204),
        ]
        async with page(site, origin) as client:
            for method, path, headers, status in cases:
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == status, (path, answer.text)
                assert_shared(answer.headers, origin)

    async def test_what_has_not_changed_and_what_broke_too(self, site: Site) -> None:
        recording, owner = await site.recording()
        path = f"/api/v1/sessions/{recording.id}/status"
        async with page(site) as client:
            tag = (await client.get(path, headers=owner)).headers["etag"]
            same = await client.get(path, headers=owner | {"If-None-Match": tag})
            assert same.status_code == 304
            assert_shared(same.headers)
            await site.services.pool.execute("ALTER TABLE processing_status RENAME TO elsewhere")
            broken = await client.get(path, headers=owner)
            assert broken.status_code == 500
            assert_shared(broken.headers)

    async def test_too_many_requests_say_so_to_the_page(self, settings: WebSettings) -> None:
        limited = settings.model_copy(update={"ticket_limit": 1})
        async with sharing(limited, NAMED) as site, page(site) as client:
            recording, owner = await site.recording()
            path = f"/api/v1/sessions/{recording.id}/status/ticket"
            assert (await client.post(path, headers=owner)).status_code == 201
            refused = await client.post(path, headers=owner)
            assert refused.status_code == 429
            assert_shared(refused.headers)
            exposed = names(refused.headers["access-control-expose-headers"])
            assert {"retry-after", "ratelimit-remaining"} <= exposed

    @pytest.mark.criterion("TB-5")
    @pytest.mark.behaviour("MD-51")
    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    async def test_streams_may_be_read(self, site: Site, version: str) -> None:
        recording, owner = await site.recording()
        cookie = await cookie_of(site, recording.owner_id)
        dialect = f"/api/sessions/{recording.id}/status/stream"
        for path in (stream_path(recording), dialect, "/api/v1/status/stream"):
            for headers in (owner, cookie):
                async with requested(
                    site, path, headers | {"Origin": NAMED}, version=version
                ) as stream:
                    assert stream.status == 200
                    assert_shared(httpx.Headers(stream.headers))
                    assert await stream.block()

    async def test_the_end_of_a_stream_may_be_read(self, site: Site) -> None:
        recording, owner = await site.recording()
        last = await recording.publish(Status.COMPLETED, message="Done")
        path = stream_path(recording, f"?last_event_id={last.id}")
        async with page(site) as client:
            answer = await client.get(path, headers=owner)
        assert answer.status_code == 204
        assert_shared(answer.headers)

    async def test_they_may_change_things_by_cookie(self, site: Site) -> None:
        recording, _ = await site.recording()
        cookie = await cookie_of(site, recording.owner_id)
        async with page(site) as client:
            path = f"/api/v1/sessions/{recording.id}/cancel"
            assert (await client.post(path, headers=cookie)).status_code == 200

    async def test_they_may_sign_their_visitor_in(self, site: Site) -> None:
        user_id, _ = await site.sign_in()
        email = await _with_password(site, user_id)
        async with page(site) as client:
            answer = await client.post(
                "/api/v1/auth/login", json={"email": email, "password": PASSWORD}
            )
        assert answer.status_code == 200
        assert COOKIE_NAME in answer.cookies
        assert_shared(answer.headers)

    @pytest.mark.behaviour("MD-52")
    async def test_they_may_open_websockets(self, site: Site) -> None:
        recording, owner = await site.recording()
        cookie = await cookie_of(site, recording.owner_id)
        for headers in (owner, cookie):
            assert await handshake(site, recording, headers | {"Origin": NAMED}) is None


class TestForeign:
    """All others, where some are named."""

    @pytest.mark.criterion("TB-5")
    @pytest.mark.behaviour("MD-51")
    @pytest.mark.parametrize("origin", [*ALMOST_NAMED, None])
    async def test_answers_are_not_for_them(self, site: Site, origin: str | None) -> None:
        recording, owner = await site.recording()
        asked = preflight("POST", "authorization,content-type")
        page_of = {} if origin is None else {"Origin": origin}
        async with page(site, origin) as client:
            for answer in (
                await client.get("/api/v1/auth/me", headers=owner),
                await client.get("/api/v1/auth/me"),
                await client.get("/api/v1/nowhere"),
                await client.options("/api/v1/auth/login", headers=asked),
                await client.options(stream_path(recording), headers=preflight()),
            ):
                assert_not_shared(answer.headers)
        async with requested(site, stream_path(recording), owner | page_of) as stream:
            assert stream.status == 200, "it is the browser that keeps it from the page"
            assert_not_shared(httpx.Headers(stream.headers))

    @pytest.mark.parametrize("origin", ALMOST_NAMED)
    async def test_they_change_nothing_by_cookie(self, site: Site, origin: str) -> None:
        recording, _ = await site.recording()
        cookie = await cookie_of(site, recording.owner_id)
        session = f"/api/v1/sessions/{recording.id}"
        async with page(site, origin) as client:
            for method, path in (
                ("DELETE", session),
                ("POST", f"{session}/cancel"),
                ("POST", f"{session}/status/ticket"),
                ("POST", "/api/v1/auth/logout"),
            ):
                answer = await client.request(method, path, headers=cookie)
                assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
                assert_not_shared(answer.headers)

    @pytest.mark.parametrize("origin", ALMOST_NAMED)
    async def test_they_sign_nobody_in_and_open_no_websocket(self, site: Site, origin: str) -> None:
        recording, owner = await site.recording()
        body = {"email": "somebody@example.com", "password": PASSWORD}
        async with page(site, origin) as client:
            for route in ("login", "register"):
                answer = await client.post(f"/api/v1/auth/{route}", json=body)
                assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
        cookie = await cookie_of(site, recording.owner_id)
        for headers in (owner, cookie):
            refused = await handshake(site, recording, headers | {"Origin": origin})
            assert refused == (403, "origin")


class TestPreflight:
    """What a browser asks before it sends anything a form could not."""

    @pytest.mark.criterion("TB-5")
    async def test_every_route_answers_without_credentials(self, site: Site) -> None:
        assert len(shared_rules(site)) > 20
        async with page(site) as client:
            for rule in shared_rules(site):
                for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                    asked = preflight(method, ",".join(REQUEST_HEADERS))
                    answer = await client.options(path_of(rule), headers=asked)
                    assert answer.status_code == 200, rule
                    assert_shared(answer.headers)
                    assert method in answer.headers["access-control-allow-methods"], rule
                    allowed = names(answer.headers["access-control-allow-headers"])
                    assert allowed == set(REQUEST_HEADERS)
                    assert int(answer.headers["access-control-max-age"]) >= 600

    async def test_a_header_that_is_not_ours_is_not_allowed(self, site: Site) -> None:
        async with page(site) as client:
            asked = preflight("GET", "authorization,x-custom,cookie")
            answer = await client.options("/api/v1/auth/me", headers=asked)
        assert names(answer.headers["access-control-allow-headers"]) == {"authorization"}

    async def test_a_method_that_is_not_ours_is_not_allowed(self, site: Site) -> None:
        async with page(site) as client:
            for method in ("PATCH", "TRACE", "NONSENSE"):
                answer = await client.options("/api/v1/auth/me", headers=preflight(method))
                assert "access-control-allow-methods" not in answer.headers
        assert "PATCH" not in METHODS

    @pytest.mark.behaviour("MD-7")
    async def test_it_opens_no_stream_and_counts_as_none(self, site: Site) -> None:
        recording, _ = await site.recording()
        paths = [
            stream_path(recording),
            f"/api/sessions/{recording.id}/status/stream",
            "/api/v1/status/stream",
        ]
        async with page(site) as client:
            for path in paths * 30:
                asked = preflight("GET", "authorization,last-event-id")
                answer = await client.options(path, headers=asked)
                assert answer.status_code == 200
                assert answer.content == b""
                assert names(answer.headers["access-control-allow-headers"]) == {
                    "authorization",
                    "last-event-id",
                }
        assert site.open_streams() == 0
        assert await site.services.pool.fetchval("SELECT count(*) FROM stream_events") == 0


class TestAnyOrigin:
    """`QUARTAPP_CORS_ORIGINS=*`: by what a page brings itself, never by what its browser adds."""

    @pytest.mark.criterion("TB-5")
    @pytest.mark.behaviour("MD-51")
    @pytest.mark.parametrize("origin", [FOREIGN, "null"])
    async def test_answers_may_be_read_but_not_with_credentials(
        self, open_to_all: Site, origin: str
    ) -> None:
        recording, owner = await open_to_all.recording()
        cookie = await cookie_of(open_to_all, recording.owner_id)
        async with page(open_to_all, origin) as client:
            for answer in (
                await client.get("/api/v1/auth/me", headers=owner),
                await client.get("/api/v1/auth/me", headers=cookie),
                await client.get("/api/v1/auth/me"),
                await client.options("/api/v1/auth/me", headers=preflight()),
            ):
                assert answer.headers.get_list("access-control-allow-origin") == ["*"]
                assert "access-control-allow-credentials" not in answer.headers
        for headers in (owner, cookie):
            async with requested(
                open_to_all, stream_path(recording), headers | {"Origin": origin}
            ) as stream:
                assert stream.header("access-control-allow-origin") == "*"
                assert stream.header("access-control-allow-credentials") is None

    async def test_nothing_is_changed_by_cookie_and_nobody_signed_in(
        self, open_to_all: Site
    ) -> None:
        recording, owner = await open_to_all.recording()
        cookie = await cookie_of(open_to_all, recording.owner_id)
        path = f"/api/v1/sessions/{recording.id}/cancel"
        body = {"email": "somebody@example.com", "password": PASSWORD}
        for origin in (FOREIGN, "null", "*"):
            async with page(open_to_all, origin) as client:
                for answer in (
                    await client.post(path, headers=cookie),
                    await client.post("/api/v1/auth/login", json=body),
                ):
                    assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
        async with page(open_to_all, FOREIGN) as client:
            assert (await client.post(path, headers=owner)).status_code == 200

    @pytest.mark.behaviour("MD-52")
    async def test_a_websocket_is_opened_by_token_or_ticket_and_never_by_cookie(
        self, open_to_all: Site
    ) -> None:
        recording, owner = await open_to_all.recording()
        cookie = await cookie_of(open_to_all, recording.owner_id)
        foreign = {"Origin": FOREIGN}
        async with page(open_to_all, FOREIGN) as client:
            path = f"/api/v1/sessions/{recording.id}/status/ticket"
            ticket = (await client.post(path, headers=owner)).json()["ticket"]
        assert await handshake(open_to_all, recording, owner | foreign) is None
        assert await handshake(open_to_all, recording, cookie | foreign) == (403, "origin")
        assert await handshake(open_to_all, recording, foreign) == (403, "origin")
        # With a ticket, a cookie beside it opens nothing.
        with_ticket = await handshake(open_to_all, recording, cookie | foreign, f"?ticket={ticket}")
        assert with_ticket is None
        again = await handshake(open_to_all, recording, cookie | foreign, f"?ticket={ticket}")
        assert again == (401, "ticket_invalid")


class TestElsewhere:
    """What is none of the API."""

    @pytest.mark.parametrize("origins", [NAMED, "*"])
    async def test_pages_and_health_are_for_nobody_else(
        self, settings: WebSettings, origins: str
    ) -> None:
        async with sharing(settings, origins) as site, page(site) as client:
            paths = ["/", "/docs", "/healthz", "/readyz", "/metrics", "/nowhere", "/apiary"]
            for path in (*paths, "/favicon.ico", "/static/docs.js", f"/sessions/{uuid4()}"):
                assert not cors_headers((await client.get(path)).headers), path
                asked = await client.options(path, headers=preflight())
                assert not cors_headers(asked.headers), path

    @pytest.mark.parametrize("origin", [NAMED, FOREIGN])
    async def test_without_the_setting_there_is_none_of_it(
        self, settings: WebSettings, origin: str
    ) -> None:
        async with sharing(settings, "") as site, page(site, origin) as client:
            recording, owner = await site.recording()
            _, admin = await site.sign_in(Role.ADMIN)
            for answer in (
                await client.get("/api/v1/auth/me", headers=owner),
                await client.get("/api/v1/admin/users", headers=admin),
                await client.get("/api/v1/auth/me"),
                await client.get("/openapi.json"),
                await client.options("/api/v1/auth/me", headers=preflight()),
            ):
                assert not cors_headers(answer.headers)
                assert "origin" not in names(answer.headers.get("vary"))
            cookie = await cookie_of(site, recording.owner_id)
            refused = await client.post("/api/v1/auth/logout", headers=cookie)
            assert (refused.status_code, refused.json()["code"]) == (403, "csrf")


async def _with_password(site: Site, user_id: UUID) -> str:
    email: str = await site.services.pool.fetchval(
        "UPDATE users SET password_hash = $2 WHERE id = $1 RETURNING email",
        user_id,
        await hash_password(PASSWORD),
    )
    return email


async def handshake(
    site: Site, recording: Recording, headers: dict[str, str], query: str = ""
) -> tuple[int, str] | None:
    """Status and code of the refusal, or None when the WebSocket says something."""
    url = f"ws://127.0.0.1:{site.port}/api/v1/sessions/{recording.id}/status/ws{query}"
    try:
        async with websockets.connect(url, additional_headers=headers) as socket:
            await socket.recv()
            return None
    except InvalidStatus as refused:
        answer = refused.response
        return answer.status_code, json.loads(answer.body or b"")["code"]
