"""Accounts and credentials over real HTTP: registration, sign-in, sign-out, CSRF, refusals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from itertools import product as pairs
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
import websockets
from websockets.exceptions import InvalidStatus
from werkzeug.routing import Rule

from jobs.database import Pool
from jobs.model import Role
from quartapp.access import sees
from quartapp.accounts import (
    insert_assignment,
    insert_login,
    select_allowed,
    select_viewer,
    update_login_revoked,
)
from quartapp.auth import COOKIE_NAME, credentials
from quartapp.settings import WebSettings
from tests.integration.streaming_fixtures import Site, running_site
from tests.net import free_port
from tests.people import make_user
from tests.product import PASSWORD, Product
from tests.sessions import address

AUTH = "/api/v1/auth"


@pytest.fixture
def visitor(product: Product) -> Iterator[httpx.Client]:
    """A client without credentials; keeps cookies."""
    with httpx.Client(base_url=product.url) as client:
        yield client


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["detail"]
    return answer.status_code, body["code"]


def test_a_registered_account_is_a_patient_and_signed_in(visitor: httpx.Client) -> None:
    email = address()
    made = visitor.post(f"{AUTH}/register", json={"email": email, "password": PASSWORD})
    assert made.status_code == 201
    assert set(made.json()) == {"token", "user"}
    assert (made.json()["user"]["email"], made.json()["user"]["role"]) == (email, "patient")
    assert visitor.get(f"{AUTH}/me").json() == made.json()["user"]
    assert "password" not in made.text.replace(email, "")


def test_cookie_is_http_only_and_same_site(visitor: httpx.Client) -> None:
    made = visitor.post(f"{AUTH}/register", json={"email": address(), "password": PASSWORD})
    cookie = made.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"email": "no-address", "password": PASSWORD}, (422, "invalid_request")),
        ({"email": "a@example.com", "password": "short"}, (422, "invalid_request")),
        ({"email": "a@example.com"}, (422, "invalid_request")),
        (
            {"email": "a@example.com", "password": PASSWORD, "role": "admin"},
            (422, "invalid_request"),
        ),
        ([], (422, "invalid_request")),
    ],
)
def test_a_registration_that_cannot_be_is_refused(
    visitor: httpx.Client, body: object, expected: tuple[int, str]
) -> None:
    assert code(visitor.post(f"{AUTH}/register", json=body)) == expected


def test_a_body_that_is_not_called_json_is_asked_to_be(visitor: httpx.Client) -> None:
    answer = visitor.post(f"{AUTH}/login", content=b'{"email": "a@b.c", "password": "x"}')
    assert code(answer) == (415, "not_json")
    assert "Content-Type: application/json" in answer.json()["detail"]


def test_an_address_has_one_account_whatever_its_case(visitor: httpx.Client) -> None:
    email = address()
    first = {"email": email, "password": PASSWORD}
    again = {"email": email.upper(), "password": PASSWORD}
    assert visitor.post(f"{AUTH}/register", json=first).status_code == 201
    assert code(visitor.post(f"{AUTH}/register", json=again)) == (409, "email_taken")


def test_wrong_password_and_unknown_address_answer_alike(
    product: Product, visitor: httpx.Client
) -> None:
    email = address()
    product.create_user(email)
    wrong = visitor.post(f"{AUTH}/login", json={"email": email, "password": "not this one"})
    unknown = visitor.post(f"{AUTH}/login", json={"email": address(), "password": PASSWORD})
    assert code(wrong) == code(unknown) == (401, "wrong_credentials")
    assert wrong.json() == unknown.json()


@pytest.mark.criterion("AC-1.1.5")
def test_every_byte_of_a_token_counts(product: Product) -> None:
    email = address()
    product.create_user(email)
    token = product.sign_in(email)

    def status(candidate: str) -> int:
        headers = {"Authorization": f"Bearer {candidate}"}
        return httpx.get(f"{product.url}{AUTH}/me", headers=headers).status_code

    assert status(token) == 200
    for place, letter in enumerate(token):
        # The neighbour in base64's alphabet differs in the lowest bits alone.
        other = chr(ord(letter) ^ 1) if letter.isalnum() and chr(ord(letter) ^ 1).isalnum() else "A"
        if other != letter:
            assert status(token[:place] + other + token[place + 1 :]) == 401, place
    assert status("nothing.like.one") == 401


def test_logout_ends_cookie_and_token_together(product: Product, visitor: httpx.Client) -> None:
    email = address()
    product.create_user(email)
    token = visitor.post(f"{AUTH}/login", json={"email": email, "password": PASSWORD}).json()[
        "token"
    ]
    kept = visitor.cookies["quartapp"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert visitor.post(f"{AUTH}/logout", headers=bearer).status_code == 204
    assert code(httpx.get(f"{product.url}{AUTH}/me", headers=bearer)) == (401, "unauthenticated")
    stale = httpx.get(f"{product.url}{AUTH}/me", cookies={"quartapp": kept})
    assert code(stale) == (401, "unauthenticated")


def test_with_cookie_and_bearer_the_bearer_decides_alone(
    product: Product, visitor: httpx.Client
) -> None:
    first, second = address(), address()
    product.create_user(first)
    product.create_user(second)
    visitor.post(f"{AUTH}/login", json={"email": first, "password": PASSWORD})
    good = {"Authorization": f"Bearer {product.sign_in(second)}"}
    assert visitor.get(f"{AUTH}/me", headers=good).json()["email"] == second
    assert visitor.get(f"{AUTH}/me", headers={"Authorization": "Bearer no"}).status_code == 401
    assert visitor.get(f"{AUTH}/me", headers={"Authorization": "Bearer"}).status_code == 401
    basic = visitor.get(f"{AUTH}/me", headers={"Authorization": "Basic eDp5"})
    assert basic.json()["email"] == first, "a proxy in front may ask for a password of its own"
    assert visitor.get(f"{AUTH}/me").json()["email"] == first


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, False),
        ({"Origin": "https://elsewhere.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({"Origin": "{own}.elsewhere.example"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "{own}"}, True),
    ],
)
def test_a_change_by_cookie_must_come_from_our_own_pages(
    product: Product, visitor: httpx.Client, headers: dict[str, str], allowed: bool
) -> None:
    email = address()
    product.create_user(email)
    visitor.post(f"{AUTH}/login", json={"email": email, "password": PASSWORD})
    sent = {name: value.format(own=product.url) for name, value in headers.items()}
    answer = visitor.post(f"{AUTH}/logout", headers=sent)
    if allowed:
        assert answer.status_code == 204
    else:
        assert code(answer) == (403, "csrf")
        assert visitor.get(f"{AUTH}/me").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/sessions"),
        ("DELETE", f"/api/v1/sessions/{uuid4()}"),
        ("POST", f"/api/v1/sessions/{uuid4()}/cancel"),
        ("POST", f"/api/v1/sessions/{uuid4()}/retry"),
        ("PUT", f"/api/v1/admin/assignments/{uuid4()}/{uuid4()}"),
        ("DELETE", f"/api/v1/admin/assignments/{uuid4()}/{uuid4()}"),
    ],
)
def test_every_change_by_cookie_asks_for_that_proof(
    product: Product, visitor: httpx.Client, method: str, path: str
) -> None:
    email = address()
    product.create_user(email, role="admin")
    visitor.post(f"{AUTH}/login", json={"email": email, "password": PASSWORD})
    assert code(visitor.request(method, path)) == (403, "csrf")
    proof = {"Sec-Fetch-Site": "same-origin"}
    assert visitor.request(method, path, headers=proof).status_code != 403


def test_over_https_the_cookie_is_secure(dsn: str, tmp_path: Path) -> None:
    public = Product(dsn, tmp_path, {"PUBLIC_URL": "https://transcripts.example"})
    public.announced = "https://transcripts.example"
    public.arguments = ("serve", "--host", "127.0.0.1", "--port", str(port := free_port()))
    public.start()
    public.url = f"http://127.0.0.1:{port}"
    try:
        body = {"email": address(), "password": PASSWORD}
        made = httpx.post(f"{public.url}{AUTH}/register", json=body)
        assert "Secure" in made.headers["set-cookie"]
        assert made.headers["cache-control"] == "no-store"
    finally:
        public.stop()


@pytest.mark.parametrize("email", ["a\u0000b@example.com", "x" * 300])
def test_an_address_that_cannot_be_is_no_fault_of_the_server(
    visitor: httpx.Client, email: str
) -> None:
    answer = visitor.post(f"{AUTH}/login", json={"email": email, "password": "x"})
    assert code(answer) == (422, "invalid_request")


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://["])
def test_a_foreign_page_cannot_sign_its_visitor_in(product: Product, origin: str) -> None:
    email = address()
    product.create_user(email)
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-origin"}):
        answer = httpx.post(
            f"{product.url}{AUTH}/login",
            json={"email": email, "password": PASSWORD},
            headers={"Origin": origin} | headers,
        )
        assert code(answer) == (403, "csrf")


def test_an_expired_or_disabled_sign_in_is_none(product: Product) -> None:
    for change in (
        "UPDATE logins SET created_at = now() - interval '2 days', expires_at = now() "
        "- interval '1 s' WHERE user_id = %s RETURNING 1",
        "UPDATE users SET disabled_at = now() WHERE id = %s RETURNING 1",
    ):
        email = address()
        user_id = product.create_user(email)
        headers = {"Authorization": f"Bearer {product.sign_in(email)}"}
        assert httpx.get(f"{product.url}{AUTH}/me", headers=headers).status_code == 200
        product.rows(change, user_id)
        assert httpx.get(f"{product.url}{AUTH}/me", headers=headers).status_code == 401


class TestAdministration:
    """Users and assignments are an administrator's."""

    @pytest.mark.parametrize("role", ["patient", "therapist"])
    def test_others_are_refused(self, product: Product, role: str) -> None:
        with product.client(address(), role) as client:
            pair = f"/api/v1/admin/assignments/{uuid4()}/{uuid4()}"
            for answer in (
                client.get("/api/v1/admin/users"),
                client.get("/api/v1/admin/assignments"),
                client.put(pair),
                client.delete(pair),
            ):
                assert code(answer) == (403, "forbidden")

    def test_a_cursor_that_cannot_be_is_refused(self, product: Product) -> None:
        with product.client(address(), "admin") as admin:
            answer = admin.get("/api/v1/admin/users", params={"cursor": "\0"})
            assert code(answer) == (422, "invalid_request")

    def test_users_are_listed_in_pages(self, product: Product) -> None:
        addresses = {address() for _ in range(3)}
        for email in addresses:
            product.create_user(email)
        seen: set[str] = set()
        cursor: str | None = ""
        with product.client(address(), "admin") as admin:
            while cursor is not None:
                page = admin.get(
                    "/api/v1/admin/users", params={"limit": 2, "cursor": cursor}
                ).json()
                assert len(page["users"]) <= 2
                seen |= {user["email"] for user in page["users"]}
                cursor = page["next_cursor"]
        assert addresses <= seen

    def test_assignments_are_made_and_taken_back(self, product: Product) -> None:
        therapist = product.create_user(address(), role="therapist")
        patient = product.create_user(address())
        pair = {"therapist_id": str(therapist), "patient_id": str(patient)}
        path = f"/api/v1/admin/assignments/{therapist}/{patient}"
        with product.client(address(), "admin") as admin:
            assert admin.put(path).status_code == 204
            assert admin.put(path).status_code == 204
            assert pair in admin.get("/api/v1/admin/assignments").json()["assignments"]
            assert admin.delete(path).status_code == 204
            assert pair not in admin.get("/api/v1/admin/assignments").json()["assignments"]

    def test_only_a_patient_is_assigned_only_to_a_therapist(self, product: Product) -> None:
        patient, other = product.create_user(address()), product.create_user(address())
        with product.client(address(), "admin") as admin:
            swapped = admin.put(f"/api/v1/admin/assignments/{patient}/{other}")
            assert code(swapped) == (409, "wrong_role")
            nobody = admin.put(f"/api/v1/admin/assignments/{uuid4()}/{other}")
            assert code(nobody) == (404, "not_found")


class TestAllowed:
    """`select_allowed`: what a request asks for one stream, asked for many at once."""

    @pytest.fixture
    async def site(self, settings: WebSettings) -> AsyncIterator[Site]:
        async with running_site(settings) as running:
            yield running

    async def test_it_is_the_rule_of_single_requests(self, site: Site) -> None:
        pool = site.services.pool
        roles = (Role.ADMIN, Role.THERAPIST, Role.THERAPIST, Role.PATIENT, Role.PATIENT)
        people = [await make_user(pool, role) for role in roles]
        _, therapist, _, patient, other = people
        await insert_assignment(pool, therapist, patient)
        # As of somebody who was a therapist once.
        await insert_assignment(pool, other, patient)
        logins = [await insert_login(pool, person, 3600) for person in people]
        wanted = list(pairs(logins, [*people, uuid4()]))
        allowed = await select_allowed(pool, wanted)
        async with site.app.app_context():
            for (login_id, owner_id), answer in zip(wanted, allowed, strict=True):
                viewer = await select_viewer(pool, login_id)
                assert viewer is not None
                assert await sees(viewer, owner_id) is answer
        # All of the administrator's, everybody's own, and the one assignment.
        assert sum(allowed) == 6 + 4 + 1

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE logins SET revoked_at = now() WHERE id = $1",
            "UPDATE logins SET created_at = '-infinity', expires_at = now() WHERE id = $1",
            "UPDATE users SET disabled_at = now() FROM logins "
            "WHERE users.id = user_id AND logins.id = $1",
            "DELETE FROM logins WHERE id = $1",
        ],
        ids=["revoked", "over", "disabled", "gone"],
    )
    async def test_a_sign_in_that_is_over_may_nothing(self, pool: Pool, change: str) -> None:
        owner, admin = await make_user(pool), await make_user(pool, Role.ADMIN)
        for person in (owner, admin):
            login_id = await insert_login(pool, person, 3600)
            wanted: list[tuple[UUID, UUID | None]] = [(login_id, owner), (login_id, None)]
            assert await select_allowed(pool, wanted) == [True, True]
            await pool.execute(change, login_id)
            assert await select_allowed(pool, wanted) == [False, False]
            assert await select_viewer(pool, login_id) is None

    async def test_answers_stand_in_the_order_of_the_questions(self, pool: Pool) -> None:
        good, bad = [await insert_login(pool, await make_user(pool), 3600) for _ in range(2)]
        await update_login_revoked(pool, bad)
        questions: list[tuple[UUID, UUID | None]] = [
            (good if number % 3 else bad, None) for number in range(1000)
        ]
        answers = await select_allowed(pool, questions)
        assert answers == [bool(number % 3) for number in range(1000)]
        assert await select_allowed(pool, []) == []


class TestSockets:
    """Handshakes of WebSockets: the same credentials, and an origin of our own."""

    @pytest.fixture
    async def site(self, settings: WebSettings) -> AsyncIterator[Site]:
        settings = settings.model_copy(
            update={"public_url": "https://transcripts.example", "streams_per_user": 100}
        )
        async with running_site(settings) as running:
            yield running

    async def test_refused_ones_get_the_status_and_the_problem(self, site: Site) -> None:
        recording, owner = await site.recording()
        _, stranger = await site.sign_in()
        _, therapist = await site.sign_in(Role.THERAPIST)
        for headers, expected in (
            ({}, (401, "unauthenticated")),
            ({"Authorization": "Bearer nonsense"}, (401, "unauthenticated")),
            ({"Cookie": f"{COOKIE_NAME}=nonsense"}, (401, "unauthenticated")),
            (stranger, (403, "forbidden")),
            (therapist, (403, "forbidden")),
            (owner, None),
        ):
            assert await handshake(site, recording.id, headers) == expected
        assert await handshake(site, uuid4(), owner) == (404, "not_found")

    async def test_cookie_or_bearer_and_with_both_the_bearer_alone(self, site: Site) -> None:
        recording, owner = await site.recording()
        stranger_id, stranger = await site.sign_in()
        own = await cookie_for(site, recording.owner_id)
        other = await cookie_for(site, stranger_id)
        assert await handshake(site, recording.id, own) is None
        assert await handshake(site, recording.id, other | owner) is None
        assert await handshake(site, recording.id, other) == (403, "forbidden")
        assert await handshake(site, recording.id, own | stranger) == (403, "forbidden")
        spoiled = own | {"Authorization": "Bearer nonsense"}
        assert await handshake(site, recording.id, spoiled) == (401, "unauthenticated")

    @pytest.mark.behaviour("MD-52")
    @pytest.mark.parametrize(
        ("origin", "allowed"),
        [
            (None, True),
            ("http://127.0.0.1:{port}", True),
            ("https://127.0.0.1:{port}", True),
            ("https://transcripts.example", True),
            ("http://transcripts.example", False),
            ("https://transcripts.example.elsewhere.example", False),
            ("https://transcripts.example:444", False),
            ("http://127.0.0.1:1", False),
            ("http://127.0.0.1", False),
            ("http://localhost:{port}", False),
            ("http://elsewhere@127.0.0.1:{port}", False),
            ("https://elsewhere.example", False),
            ("null", False),
            ("", False),
            ("http://[", False),
            ("127.0.0.1:{port}", False),
        ],
    )
    async def test_a_page_of_another_site_opens_none(
        self, site: Site, origin: str | None, allowed: bool
    ) -> None:
        recording, bearer = await site.recording()
        cookie = await cookie_for(site, recording.owner_id)
        page = {} if origin is None else {"Origin": origin.format(port=site.port)}
        for headers in (cookie, bearer):
            answer = await handshake(site, recording.id, headers | page)
            assert answer == (None if allowed else (403, "origin"))

    async def test_every_socket_looks_at_the_origin(self, site: Site) -> None:
        recording, owner = await site.recording()
        sockets: list[Rule] = [rule for rule in site.app.url_map.iter_rules() if rule.websocket]
        assert len(sockets) >= 2
        page = {"Origin": "https://elsewhere.example"}
        for rule in sockets:
            path = rule.rule.replace("<uuid:session_id>", str(recording.id))
            assert await handshake(site, path, owner | page) == (403, "origin")
            assert await handshake(site, path, owner) is None


async def cookie_for(site: Site, user_id: UUID) -> dict[str, str]:
    login_id = await insert_login(site.services.pool, user_id, 3600)
    async with site.app.app_context():
        return {"Cookie": f"{COOKIE_NAME}={credentials().cookie.dump_token(str(login_id))}"}


async def handshake(
    site: Site, where: UUID | str, headers: dict[str, str]
) -> tuple[int, str] | None:
    """Status and code of the refusal, or None when the WebSocket says something."""
    path = f"/api/v1/sessions/{where}/status/ws" if isinstance(where, UUID) else where
    url = f"ws://127.0.0.1:{site.port}{path}"
    try:
        async with websockets.connect(url, additional_headers=headers) as socket:
            await socket.recv()
            return None
    except InvalidStatus as refused:
        answer = refused.response
        assert answer.headers["Content-Type"] == "application/problem+json"
        return answer.status_code, json.loads(answer.body or b"")["code"]
