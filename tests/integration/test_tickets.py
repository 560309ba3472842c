"""Tickets: who gets one, what it opens, how often, how long, and whose it stays."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import websockets
from websockets.exceptions import InvalidStatus

from jobs.database import Pool
from jobs.model import Role, Status
from quartapp.accounts import delete_assignment, insert_assignment, insert_login
from quartapp.auth import COOKIE_NAME, credentials
from quartapp.settings import WebSettings
from quartapp.tickets import REMOVED_AT_ONCE, delete_ticket, insert_ticket, select_ticket
from tests.integration.streaming_fixtures import (
    Recording,
    Site,
    make_recording,
    requested,
    running_site,
    stream_path,
)
from tests.product import Product

INVALID = (401, "ticket_invalid")
STREAM_ENDS = ["v1/sessions/{}/status/stream", "sessions/{}/status/stream"]
SOCKET_ENDS = ["v1/sessions/{}/status/ws", "sessions/{}/status/ws"]


@pytest.fixture
async def site(settings: WebSettings) -> AsyncIterator[Site]:
    more = {"streams_per_user": 100, "access_check_s": 0.1}
    async with running_site(settings.model_copy(update=more)) as running:
        yield running


def ticket_path(session_id: UUID) -> str:
    return f"/api/v1/sessions/{session_id}/status/ticket"


async def call(
    site: Site, method: str, path: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as client:
        return await client.request(method, path, headers=headers)


async def ticket_for(site: Site, recording: Recording, headers: dict[str, str]) -> str:
    answer = await call(site, "POST", ticket_path(recording.id), headers)
    assert answer.status_code == 201, answer.text
    ticket: str = answer.json()["ticket"]
    return ticket


async def cookie_of(site: Site, user_id: UUID) -> dict[str, str]:
    login_id = await insert_login(site.services.pool, user_id, 3600)
    async with site.app.app_context():
        return {"Cookie": f"{COOKIE_NAME}={credentials().cookie.dump_token(str(login_id))}"}


def refusal(status: int, content_type: str | None, body: bytes) -> tuple[int, str]:
    assert content_type == "application/problem+json"
    return status, json.loads(body)["code"]


async def tried(
    site: Site,
    recording: Recording,
    ticket: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
) -> tuple[int, str | None]:
    """How the stream answers to that ticket, and its first event, or the code of the refusal."""
    path = stream_path(recording, f"?ticket={ticket}")
    async with requested(site, path, headers, method=method) as stream:
        if stream.status != 200:
            if method == "HEAD":
                return stream.status, None
            content_type = stream.header("Content-Type")
            return refusal(stream.status, content_type, await stream.to_end())
        return 200, None if method == "HEAD" else (await stream.block())["event"]


OPENED = (200, "hello")


class TestAsking:
    """`POST …/status/ticket`."""

    async def test_the_answer_says_how_long_it_is_good_and_is_kept_by_nobody(
        self, site: Site
    ) -> None:
        recording, headers = await site.recording()
        answer = await call(site, "POST", ticket_path(recording.id), headers)
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert set(body) == {"ticket", "expires_at", "expires_in_s"}
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", body["ticket"]), "256 bits"
        assert body["expires_in_s"] == 60
        assert body["expires_at"].endswith("Z")
        left = datetime.fromisoformat(body["expires_at"]) - datetime.now(UTC)
        assert timedelta(seconds=50) < left <= timedelta(seconds=60)

    async def test_only_its_hash_is_stored(self, site: Site) -> None:
        recording, headers = await site.recording()
        ticket = await ticket_for(site, recording, headers)
        (row,) = await site.services.pool.fetch("SELECT * FROM stream_tickets")
        assert row["ticket_hash"] == hashlib.sha256(ticket.encode()).digest()
        assert ticket not in str(dict(row))

    async def test_no_two_are_alike(self, site: Site) -> None:
        recording, headers = await site.recording()
        tickets = [await ticket_for(site, recording, headers) for _ in range(10)]
        assert len(set(tickets)) == 10

    @pytest.mark.parametrize(
        ("who", "expected"),
        [
            ("nobody", (401, "unauthenticated")),
            ("nonsense", (401, "unauthenticated")),
            ("stranger", (403, "forbidden")),
            ("therapist", (403, "forbidden")),
            ("cookie", (403, "csrf")),
            ("cookie elsewhere", (403, "csrf")),
        ],
    )
    async def test_who_gets_none(self, site: Site, who: str, expected: tuple[int, str]) -> None:
        recording, _ = await site.recording()
        cookie = await cookie_of(site, recording.owner_id)
        headers = {
            "nobody": {},
            "nonsense": {"Authorization": "Bearer nonsense"},
            "stranger": (await site.sign_in())[1],
            "therapist": (await site.sign_in(Role.THERAPIST))[1],
            "cookie": cookie,
            "cookie elsewhere": cookie | {"Origin": "https://elsewhere.example"},
        }[who]
        answer = await call(site, "POST", ticket_path(recording.id), headers)
        assert refusal(answer.status_code, answer.headers["content-type"], answer.content) == (
            expected
        )
        assert await site.services.pool.fetchval("SELECT count(*) FROM stream_tickets") == 0

    async def test_for_no_session_there_is_none(self, site: Site) -> None:
        _, headers = await site.sign_in()
        answer = await call(site, "POST", ticket_path(uuid4()), headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        odd = await call(site, "POST", "/api/v1/sessions/nonsense/status/ticket", headers)
        assert (odd.status_code, odd.json()["code"]) == (404, "not_found")

    async def test_who_may_see_the_session_gets_one(self, site: Site) -> None:
        recording, owner = await site.recording()
        therapist_id, therapist = await site.sign_in(Role.THERAPIST)
        await insert_assignment(site.services.pool, therapist_id, recording.owner_id)
        _, admin = await site.sign_in(Role.ADMIN)
        own_page = {"Origin": f"http://127.0.0.1:{site.port}"}
        by_cookie = await cookie_of(site, recording.owner_id) | own_page
        for headers in (owner, therapist, admin, by_cookie):
            ticket = await ticket_for(site, recording, headers)
            assert await tried(site, recording, ticket) == OPENED

    async def test_a_ticket_buys_no_ticket(self, site: Site) -> None:
        recording, headers = await site.recording()
        ticket = await ticket_for(site, recording, headers)
        answer = await call(site, "POST", f"{ticket_path(recording.id)}?ticket={ticket}")
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")

    async def test_they_are_limited_by_address_and_preflights_do_not_count(
        self, settings: WebSettings
    ) -> None:
        async with running_site(settings.model_copy(update={"ticket_limit": 3})) as site:
            recording, headers = await site.recording()
            path = ticket_path(recording.id)
            preflight = {
                "Origin": "https://elsewhere.example",
                "Access-Control-Request-Method": "POST",
            }
            for _ in range(5):
                assert (await call(site, "OPTIONS", path, preflight)).status_code == 200
            for _ in range(3):
                await ticket_for(site, recording, headers)
            answer = await call(site, "POST", path, headers)
            assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
            assert 1 <= int(answer.headers["retry-after"]) <= 60

    async def test_a_session_or_sign_in_that_goes_meanwhile_gets_none(self, pool: Pool) -> None:
        recording = await make_recording(pool)
        login_id = await insert_login(pool, recording.owner_id, 3600)
        assert await insert_ticket(pool, login_id, uuid4(), 60) is None
        assert await insert_ticket(pool, uuid4(), recording.id, 60) is None
        assert await insert_ticket(pool, login_id, recording.id, 60)


class TestUsing:
    """`?ticket=` of a stream."""

    @pytest.mark.parametrize("end", STREAM_ENDS)
    async def test_it_opens_a_stream_once(self, site: Site, end: str) -> None:
        recording, headers = await site.recording()
        ticket = await ticket_for(site, recording, headers)
        path = f"/api/{end.format(recording.id)}?ticket={ticket}"
        async with requested(site, path) as stream:
            assert stream.status == 200
            await stream.block()
            sent = await recording.publish(progress=10)
            while (block := await stream.block()).get("id") != str(sent.id):
                pass
            assert block["data"]
            assert await tried(site, recording, ticket) == INVALID
        assert await tried(site, recording, ticket) == INVALID

    @pytest.mark.parametrize("end", SOCKET_ENDS)
    async def test_it_opens_a_websocket_once(self, site: Site, end: str) -> None:
        recording, headers = await site.recording()
        ticket = await ticket_for(site, recording, headers)
        url = f"ws://127.0.0.1:{site.port}/api/{end.format(recording.id)}?ticket={ticket}"
        async with websockets.connect(url) as socket:
            assert json.loads(await socket.recv())["event"]
        with pytest.raises(InvalidStatus) as refused:
            await websockets.connect(url)
        answer = refused.value.response
        content_type = answer.headers["Content-Type"]
        assert refusal(answer.status_code, content_type, bytes(answer.body or b"")) == INVALID

    @pytest.mark.parametrize(
        "end",
        [
            "v1/sessions/{}",
            "v1/sessions/{}/status",
            "v1/sessions/{}/status/history",
            "v1/sessions/{}/transcript.json",
            "v1/sessions/{}/audio",
            "v1/sessions",
            "v1/status/stream",
            "v1/auth/me",
        ],
    )
    async def test_it_opens_nothing_else(self, site: Site, end: str) -> None:
        recording, headers = await site.recording()
        ticket = await ticket_for(site, recording, headers)
        answer = await call(site, "GET", f"/api/{end.format(recording.id)}?ticket={ticket}")
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert await tried(site, recording, ticket) == OPENED

    async def test_of_many_at_the_same_time_one_wins(self, site: Site) -> None:
        recording, headers = await site.recording()
        for _ in range(5):
            ticket = await ticket_for(site, recording, headers)
            answers = await asyncio.gather(*(tried(site, recording, ticket) for _ in range(8)))
            assert sorted(answers, key=str) == [OPENED] + [INVALID] * 7

    async def test_another_session_takes_it_not_even_of_the_same_owner(self, site: Site) -> None:
        recording, headers = await site.recording()
        other = await make_recording(site.services.pool, owner_id=recording.owner_id)
        ticket = await ticket_for(site, recording, headers)
        assert await tried(site, other, ticket) == INVALID
        assert await tried(site, other, ticket, await cookie_of(site, other.owner_id)) == INVALID
        assert await tried(site, recording, ticket) == OPENED

    @pytest.mark.parametrize(
        "ticket",
        [
            "",
            "nonsense",
            "A" * 43,
            "A" * 43 + "%0A",
            "A" * 20_000,
            "%00" * 43,
            "%FF",
            "%C3%84" * 43,
        ],
        ids=["empty", "short", "unknown", "newline", "long", "nul", "no text", "not ascii"],
    )
    @pytest.mark.behaviour("MD-48")
    async def test_a_bad_one_hides_a_good_cookie(self, site: Site, ticket: str) -> None:
        recording, _ = await site.recording()
        cookie = await cookie_of(site, recording.owner_id)
        assert await tried(site, recording, ticket) == INVALID
        assert await tried(site, recording, ticket, cookie) == INVALID
        async with requested(site, stream_path(recording), cookie) as stream:
            assert stream.status == 200

    async def test_a_good_one_hides_the_cookie(self, site: Site) -> None:
        recording, headers = await site.recording()
        stranger_id, _ = await site.sign_in()
        for cookie in (await cookie_of(site, stranger_id), {"Cookie": "quartapp=nonsense"}):
            ticket = await ticket_for(site, recording, headers)
            assert await tried(site, recording, ticket, cookie) == OPENED

    @pytest.mark.behaviour("MD-48")
    async def test_a_bearer_hides_it_and_leaves_it_unused(self, site: Site) -> None:
        recording, owner = await site.recording()
        _, stranger = await site.sign_in()
        ticket = await ticket_for(site, recording, owner)
        spoiled = {"Authorization": "Bearer nonsense"}
        assert await tried(site, recording, ticket, spoiled) == (401, "unauthenticated")
        assert await tried(site, recording, ticket, stranger) == (403, "forbidden")
        assert await tried(site, recording, "nonsense", owner) == OPENED
        assert await tried(site, recording, ticket, owner) == OPENED
        assert await tried(site, recording, ticket) == OPENED

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ("UPDATE stream_tickets SET expires_at = now() WHERE session_id = $1", INVALID),
            ("UPDATE logins SET revoked_at = now() WHERE user_id = $2", INVALID),
            (
                "UPDATE logins SET created_at = '-infinity', expires_at = now() WHERE user_id = $2",
                INVALID,
            ),
            ("UPDATE users SET disabled_at = now() WHERE id = $2", INVALID),
            ("DELETE FROM logins WHERE user_id = $2", INVALID),
            ("DELETE FROM sessions WHERE id = $1", INVALID),
        ],
        ids=["over", "signed out", "sign-in over", "disabled", "sign-in gone", "session gone"],
    )
    async def test_what_happened_since_counts(
        self, site: Site, change: str, expected: tuple[int, str]
    ) -> None:
        recording, headers = await site.recording()
        ticket = await ticket_for(site, recording, headers)
        statement = f"WITH of AS (SELECT $1::uuid, $2::uuid) {change}"
        await site.services.pool.execute(statement, recording.id, recording.owner_id)
        cookie = await cookie_of(site, recording.owner_id)
        assert await tried(site, recording, ticket, method="HEAD") == (401, None)
        assert await tried(site, recording, ticket) == expected
        assert await tried(site, recording, ticket, cookie) == expected

    async def test_access_taken_back_counts(self, site: Site) -> None:
        recording, _ = await site.recording()
        therapist_id, therapist = await site.sign_in(Role.THERAPIST)
        pool = site.services.pool
        await insert_assignment(pool, therapist_id, recording.owner_id)
        ticket = await ticket_for(site, recording, therapist)
        await delete_assignment(pool, therapist_id, recording.owner_id)
        assert await tried(site, recording, ticket) == (403, "forbidden")

    async def test_head_looks_and_takes_nothing(self, site: Site) -> None:
        recording, headers = await site.recording()
        ticket = await ticket_for(site, recording, headers)
        for _ in range(3):
            assert await tried(site, recording, ticket, method="HEAD") == (200, None)
        assert await tried(site, recording, ticket) == OPENED
        assert await tried(site, recording, ticket, method="HEAD") == (401, None)

    async def test_a_cursor_may_stand_beside_it(self, site: Site) -> None:
        recording, headers = await site.recording()
        last = await recording.publish(Status.COMPLETED, message="Done")
        for after, status in ((recording.ids[0], 200), (last.id, 204)):
            ticket = await ticket_for(site, recording, headers)
            path = stream_path(recording, f"?ticket={ticket}&last_event_id={after}")
            async with requested(site, path) as stream:
                assert stream.status == status

    @pytest.mark.behaviour("MD-49")
    async def test_its_stream_ends_with_the_sign_in_behind_it(self, site: Site) -> None:
        recording, headers = await site.recording()
        cookie = await cookie_of(site, recording.owner_id)
        path = stream_path(recording, f"?ticket={await ticket_for(site, recording, headers)}")
        async with requested(site, path, cookie) as stream:
            assert (await stream.until("progress")).row == recording.ids[0]
            answer = await call(site, "POST", "/api/v1/auth/logout", headers)
            assert answer.status_code == 204
            assert (await stream.rest())[-1]["event"] == "unauthorized"

    async def test_it_counts_for_the_limit_of_its_user(self, settings: WebSettings) -> None:
        async with running_site(settings.model_copy(update={"streams_per_user": 1})) as site:
            recording, headers = await site.recording()
            async with requested(site, stream_path(recording), headers) as first:
                assert first.status == 200
                ticket = await ticket_for(site, recording, headers)
                assert await tried(site, recording, ticket) == (429, "too_many_streams")


class TestTable:
    """What is left of those nobody used."""

    @staticmethod
    @asynccontextmanager
    async def with_expired(pool: Pool, count: int) -> AsyncIterator[tuple[Recording, UUID]]:
        recording = await make_recording(pool)
        login_id = await insert_login(pool, recording.owner_id, 3600)
        await pool.execute(
            "INSERT INTO stream_tickets SELECT sha256(int4send(i)), $1, $2, now() - "
            "make_interval(secs => i) FROM generate_series(1, $3::int) AS i",
            login_id,
            recording.id,
            count,
        )
        yield recording, login_id

    async def test_expired_ones_go_with_each_new_one_so_many_at_once(self, pool: Pool) -> None:
        async with self.with_expired(pool, 2 * REMOVED_AT_ONCE + 50) as (recording, login_id):
            left = []
            for _ in range(4):
                made = await insert_ticket(pool, login_id, recording.id, 60)
                assert made is not None
                assert await select_ticket(pool, made.text, recording.id)
                left.append(
                    await pool.fetchval(
                        "SELECT count(*) FROM stream_tickets WHERE expires_at <= now()"
                    )
                )
            assert left == [REMOVED_AT_ONCE + 50, 50, 0, 0]
            assert await pool.fetchval("SELECT count(*) FROM stream_tickets") == 4

    async def test_many_who_ask_at_once_do_not_wait_for_each_other(self, pool: Pool) -> None:
        async with self.with_expired(pool, 500) as (recording, login_id):
            made = await asyncio.gather(
                *(insert_ticket(pool, login_id, recording.id, 60) for _ in range(20))
            )
            assert all(made)
            assert await pool.fetchval("SELECT count(*) FROM stream_tickets") == 20

    async def test_they_go_with_their_session_and_their_sign_in(self, pool: Pool) -> None:
        for table in ("sessions", "logins"):
            async with self.with_expired(pool, 5):
                await pool.execute(f"DELETE FROM {table}")
                assert await pool.fetchval("SELECT count(*) FROM stream_tickets") == 0

    async def test_the_setting_says_how_long(self, pool: Pool) -> None:
        async with self.with_expired(pool, 0) as (recording, login_id):
            made = await insert_ticket(pool, login_id, recording.id, 3)
            assert made is not None
            assert await select_ticket(pool, made.text, recording.id)
            await asyncio.sleep(3.1)
            assert await select_ticket(pool, made.text, recording.id) is None
            assert await delete_ticket(pool, made.text, recording.id) is None


@pytest.mark.behaviour("MD-50")
async def test_no_log_and_no_refusal_holds_a_ticket(dsn: str, tmp_path: Path, pool: Pool) -> None:
    product = Product(dsn, tmp_path, {"QUARTAPP_ROLE": "web"}).start()
    try:
        with product.client("owner@example.com") as client:
            owner_id = UUID(client.get("/api/v1/auth/me").json()["id"])
            recording = await make_recording(pool, owner_id=owner_id)
            stream = stream_path(recording)
            tickets = [_ticket(client, recording) for _ in range(3)]
            bearer = client.headers.pop("Authorization")
            refusals = []
            with client.stream("GET", stream, params={"ticket": tickets[0]}) as opened:
                assert opened.status_code == 200
                assert next(opened.iter_lines()).startswith("retry:")
            for path in (stream, f"/api/v1/sessions/{uuid4()}/status/stream", "/nowhere"):
                refusals.append(client.get(path, params={"ticket": tickets[0]}))
            # A fault of the server while it looks at a ticket.
            await pool.execute("ALTER TABLE stream_tickets RENAME TO elsewhere")
            refusals.append(client.get(stream, params={"ticket": tickets[1]}))
            socket = f"{product.url.replace('http', 'ws')}/api/v1/sessions/{recording.id}/status/ws"
            with pytest.raises(InvalidStatus) as refused:
                await websockets.connect(f"{socket}?ticket={tickets[2]}")
            assert refused.value.response.status_code == 500
    finally:
        assert product.stop() == 0
    assert [answer.status_code for answer in refusals] == [401, 401, 404, 500]
    seen = product.log + product.output + str(refused.value.response.body)
    seen += "".join(f"{answer.text}{answer.headers}" for answer in refusals)
    assert "stream_opened" in product.log
    assert "request_broke" in product.log
    for secret in (*tickets, bearer.removeprefix("Bearer ")):
        assert secret not in seen
        assert hashlib.sha256(secret.encode()).hexdigest() not in seen


def _ticket(client: httpx.Client, recording: Recording) -> Any:
    return client.post(ticket_path(recording.id)).json()["ticket"]
