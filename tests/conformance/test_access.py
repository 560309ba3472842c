"""Who gets a stream, for how long, and what of a credential is seen elsewhere."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from jobs.model import Role, Status
from quartapp.settings import WebSettings
from tests.conformance.streams import assert_told, tokens
from tests.integration.streaming_fixtures import (
    Site,
    requested,
    running_site,
    stream_path,
)
from tests.product import PASSWORD, Product


@pytest.mark.behaviour("MD-47")
@pytest.mark.criterion("AC-1.1.2")
@pytest.mark.criterion("AC-1.1.5")
async def test_refusals_come_before_the_first_byte(site: Site) -> None:
    recording, owner = await site.recording()
    _, stranger = await site.sign_in()
    _, therapist = await site.sign_in(Role.THERAPIST)
    _, admin = await site.sign_in(Role.ADMIN)
    nowhere = f"/api/v1/sessions/{uuid4()}/status/stream"
    cases: list[tuple[str, dict[str, str], int, str | None]] = [
        (stream_path(recording), {}, 401, "unauthenticated"),
        (stream_path(recording), {"Authorization": "Bearer nonsense"}, 401, "unauthenticated"),
        (stream_path(recording), stranger, 403, "forbidden"),
        (stream_path(recording), therapist, 403, "forbidden"),
        (nowhere, owner, 404, "not_found"),
        ("/api/v1/sessions/not-a-uuid/status/stream", owner, 404, "not_found"),
        (stream_path(recording), owner, 200, None),
        (stream_path(recording), admin, 200, None),
    ]
    for path, headers, status, code in cases:
        async with requested(site, path, headers) as stream:
            assert stream.status == status
            if code is not None:
                assert stream.header("Content-Type") == "application/problem+json"
                assert json.loads(await stream.to_end())["code"] == code


@pytest.mark.behaviour("MD-53")
async def test_past_events_are_guarded_like_present_ones(site: Site) -> None:
    recording, owner = await site.recording()
    last = await recording.publish(Status.COMPLETED, message="a secret")
    _, stranger = await site.sign_in()
    _, therapist = await site.sign_in(Role.THERAPIST)
    for query in ("", "?replay=all", "?last_event_id=5", "?segments=true"):
        path = stream_path(recording, query)
        # Nor does the stop sign for those who have seen the end tell that this is the end.
        for cursor in (None, str(recording.ids[0]), "5", str(last.id)):
            extra = {} if cursor is None else {"Last-Event-ID": cursor}
            for headers in (stranger, therapist):
                async with requested(site, path, headers | extra) as answer:
                    assert answer.status == 403, (query, cursor)
                    assert b"secret" not in await answer.to_end()
        async with requested(site, path, owner) as stream:
            assert stream.status == 200
            assert b"secret" in await stream.to_end()


@pytest.mark.behaviour("MD-48")
async def test_cookie_or_bearer_and_with_both_the_bearer_alone(site: Site) -> None:
    recording, _ = await site.recording()
    cookie, token = await tokens(site, recording.owner_id)
    stranger_id, _ = await site.sign_in()
    other_cookie, other_token = await tokens(site, stranger_id)
    cells: list[tuple[str | None, str | None, int]] = [
        (None, None, 401),
        (None, token, 200),
        (None, "nonsense", 401),
        (cookie, None, 200),
        (cookie, token, 200),
        (cookie, "nonsense", 401),
        ("quartapp=nonsense", None, 401),
        ("quartapp=nonsense", token, 200),
        # Each is good by itself: whose stream it is, the bearer says.
        (cookie, other_token, 403),
        (other_cookie, token, 200),
        # One is not good for the other.
        (f"quartapp={token}", None, 401),
        (None, cookie.removeprefix("quartapp="), 401),
    ]
    for of_cookie, of_bearer, status in cells:
        headers = {} if of_cookie is None else {"Cookie": of_cookie}
        if of_bearer is not None:
            headers["Authorization"] = f"Bearer {of_bearer}"
        async with requested(site, stream_path(recording), headers) as stream:
            assert stream.status == status, (of_cookie, of_bearer)
            if status == 200:
                assert (await stream.block())["event"] == "hello"


@pytest.mark.behaviour("MD-49")
@pytest.mark.parametrize("way", ["revoked", "expired", "disabled"])
async def test_access_withdrawn_ends_the_stream(quick: WebSettings, way: str) -> None:
    async with running_site(quick.model_copy(update={"access_check_s": 0.1})) as site:
        recording, headers = await site.recording()
        statement = {
            "revoked": "UPDATE logins SET revoked_at = now() WHERE user_id = $1",
            "expired": "UPDATE logins SET created_at = '-infinity', expires_at = now() "
            "WHERE user_id = $1",
            "disabled": "UPDATE users SET disabled_at = now() WHERE id = $1",
        }[way]
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.until("progress")
            await asyncio.sleep(0.3)
            await recording.publish(progress=10)
            await stream.until("progress")
            await site.services.pool.execute(statement, recording.owner_id)
            await assert_told(stream, "unauthorized")
        async with requested(site, stream_path(recording), headers) as stream:
            assert stream.status == 401


@pytest.mark.behaviour("MD-49")
async def test_a_therapist_no_longer_assigned_loses_the_stream(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"access_check_s": 0.1})) as site:
        recording, _ = await site.recording()
        therapist_id, headers = await site.sign_in(Role.THERAPIST)
        pool = site.services.pool
        await pool.execute(
            "INSERT INTO care_assignments VALUES ($1, $2)", therapist_id, recording.owner_id
        )
        async with requested(site, stream_path(recording), headers) as stream:
            await stream.until("progress")
            await pool.execute("DELETE FROM care_assignments WHERE therapist_id = $1", therapist_id)
            await assert_told(stream, "unauthorized")
        async with requested(site, stream_path(recording), headers) as stream:
            assert stream.status == 403


@pytest.mark.behaviour("MD-49")
async def test_logging_out_ends_the_streams_of_that_sign_in_alone(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"access_check_s": 0.1})) as site:
        recording, headers = await site.recording()
        cookie, _ = await tokens(site, recording.owner_id)
        async with (
            requested(site, stream_path(recording), headers) as by_bearer,
            requested(site, stream_path(recording), {"Cookie": cookie}) as by_cookie,
        ):
            await by_bearer.until("progress")
            await by_cookie.until("progress")
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as client:
                answer = await client.post("/api/v1/auth/logout", headers=headers)
                assert answer.is_success
            await assert_told(by_bearer, "unauthorized")
            sent = await recording.publish(progress=10)
            assert (await by_cookie.until("progress")).row == sent.id


@pytest.mark.behaviour("MD-49")
async def test_a_stream_ends_when_its_sign_in_expires_and_no_later(quick: WebSettings) -> None:
    async with running_site(quick) as site:
        recording, headers = await site.recording()
        expires_at = await site.services.pool.fetchval(
            "UPDATE logins SET created_at = '-infinity', expires_at = now() + interval '3 seconds' "
            "WHERE user_id = $1 RETURNING extract(epoch FROM expires_at)::float8",
            recording.owner_id,
        )
        async with requested(site, stream_path(recording), headers) as stream:
            await assert_told(stream, "unauthorized")
            assert -0.1 < time.time() - expires_at < quick.access_check_s / 2


@pytest.mark.behaviour("MD-49")
def test_access_is_asked_for_often_enough(settings: WebSettings) -> None:
    # Spread by a quarter, and five seconds for the database to answer.
    assert settings.access_check_s * 1.25 + 5 <= 30


@pytest.mark.behaviour("MD-51")
async def test_pages_of_other_origins_get_no_permission(site: Site) -> None:
    recording, headers = await site.recording()
    cookie, _ = await tokens(site, recording.owner_id)
    for origin in ("https://elsewhere.example", "null", "http://127.0.0.1:1"):
        preflight = {
            "Origin": origin,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization,last-event-id",
        }
        for method, extra in (
            ("GET", {"Origin": origin, "Cookie": cookie}),
            ("GET", {"Origin": origin} | headers),
            ("GET", {"Origin": origin}),
            ("OPTIONS", preflight),
        ):
            async with requested(site, stream_path(recording), extra, method=method) as answer:
                names = {name.lower() for name, _ in answer.headers}
                assert not [name for name in names if name.startswith("access-control-")]


@pytest.mark.behaviour("MD-51")
async def test_pages_of_an_origin_that_is_named_get_it_by_name(quick: WebSettings) -> None:
    friend = "https://friend.example"
    settings = quick.model_copy(update={"cors_origins": f"{friend},https://other.example"})
    async with running_site(settings) as site:
        recording, _ = await site.recording()
        cookie, _ = await tokens(site, recording.owner_id)
        for origin, allowed in ((friend, True), (f"{friend}.evil.example", False), ("null", False)):
            headers = {"Origin": origin, "Cookie": cookie}
            async with requested(site, stream_path(recording), headers) as stream:
                permission = stream.header("Access-Control-Allow-Origin")
                assert permission == (origin if allowed else None)
                if allowed:
                    assert stream.header("Access-Control-Allow-Credentials") == "true"
                    assert (await stream.block())["event"] == "hello"
                varies = {name.strip().lower() for name in (stream.header("Vary") or "").split(",")}
                assert "origin" in varies
            async with requested(site, stream_path(recording), {"Origin": origin}) as refused:
                assert refused.status == 401
                permission = refused.header("Access-Control-Allow-Origin")
                assert permission == (origin if allowed else None)


@pytest.mark.behaviour("MD-51")
async def test_every_origin_is_allowed_without_cookies_or_not_at_all(quick: WebSettings) -> None:
    async with running_site(quick.model_copy(update={"cors_origins": "*"})) as site:
        recording, headers = await site.recording()
        cookie, _ = await tokens(site, recording.owner_id)
        elsewhere = {"Origin": "https://elsewhere.example"}
        async with requested(site, stream_path(recording), headers | elsewhere) as stream:
            assert stream.status == 200
            assert stream.header("Access-Control-Allow-Origin") == "*"
            assert stream.header("Access-Control-Allow-Credentials") is None
        by_cookie = elsewhere | {"Cookie": cookie}
        async with requested(site, stream_path(recording), by_cookie) as stream:
            assert stream.header("Access-Control-Allow-Credentials") is None


@pytest.mark.behaviour("MD-50")
def test_no_credential_stands_in_an_address(product: Product) -> None:
    described = httpx.get(f"{product.url}/openapi.json").json()
    asked_for = {
        parameter["name"].lower()
        for path in described["paths"].values()
        for operation in path.values()
        for parameter in operation.get("parameters", ())
        if parameter["in"] in {"query", "path"}
    }
    assert not asked_for & {"token", "access_token", "auth", "authorization", "jwt", "password"}


@pytest.mark.behaviour("MD-50")
async def test_a_token_in_the_address_opens_nothing(site: Site) -> None:
    recording, _ = await site.recording()
    _, token = await tokens(site, recording.owner_id)
    for name in ("token", "access_token", "authorization", "quartapp", "bearer"):
        async with requested(site, stream_path(recording, f"?{name}={token}")) as answer:
            assert answer.status == 401


@pytest.mark.behaviour("MD-50")
def test_the_log_holds_no_credential(dsn: str, tmp_path: Path) -> None:
    product = Product(dsn, tmp_path, {"QUARTAPP_ROLE": "web"}).start()
    email = f"{uuid4().hex}@example.com"
    try:
        product.create_user(email)
        with httpx.Client(base_url=product.url, timeout=10) as client:
            answer = client.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})
            token = answer.json()["token"]
            cookie = client.cookies["quartapp"]
            bearer = {"Authorization": f"Bearer {token}"}
            nowhere = f"/api/v1/sessions/{uuid4()}/status/stream"
            with client.stream("GET", "/api/v1/status/stream", headers=bearer) as stream:
                assert stream.status_code == 200
                assert next(stream.iter_lines()).startswith("retry:")
            with client.stream("GET", "/api/v1/status/stream") as stream:
                assert stream.status_code == 200
            assert client.get(nowhere, headers=bearer).status_code == 404
            assert client.get(f"{nowhere}?token={token}").status_code == 404
            spoiled = {"Authorization": f"Bearer {token}x"}
            client.cookies.clear()
            assert client.get("/api/v1/auth/me", headers=spoiled).status_code == 401
    finally:
        assert product.stop() == 0
    assert "stream_opened" in product.log
    for secret in (token, cookie, token.rpartition(".")[2], PASSWORD):
        assert secret not in product.log + product.output
