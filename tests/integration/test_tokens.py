"""Tokens for programs: shown once, good until they expire or are revoked, and one's own alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from itsdangerous import TimestampSigner

from quartapp.auth import credentials
from quartapp.settings import WebSettings
from quartapp.tokens import MAX_DURATION_DAYS, MAX_TOKENS, insert_token
from tests.integration.streaming_fixtures import running_site
from tests.product import PASSWORD, Product
from tests.sessions import address

TOKENS = "/api/v1/auth/tokens"
ME = "/api/v1/auth/me"


@pytest.fixture
def person(product: Product) -> Iterator[httpx.Client]:
    with product.client(address()) as client:
        yield client


def make(client: httpx.Client, name: str = "backup script", **more: Any) -> dict[str, Any]:
    answer = client.post(TOKENS, json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def listed(client: httpx.Client) -> list[dict[str, Any]]:
    tokens: list[dict[str, Any]] = client.get(TOKENS).json()["tokens"]
    return tokens


def status_with(product: Product, token: str) -> int:
    return httpx.get(product.url + ME, headers={"Authorization": f"Bearer {token}"}).status_code


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def test_a_token_acts_as_the_person_who_made_it(product: Product, person: httpx.Client) -> None:
    made = make(person, "  backup script ")
    assert made["name"] == "backup script"
    answer = httpx.get(product.url + ME, headers={"Authorization": f"Bearer {made['token']}"})
    assert answer.json() == person.get(ME).json()


def test_the_text_of_a_token_is_shown_once(person: httpx.Client) -> None:
    made = make(person)
    answer = person.get(TOKENS)
    assert made["token"] not in answer.text
    (token,) = answer.json()["tokens"]
    assert token == {name: value for name, value in made.items() if name != "token"}


def test_ordinary_sign_ins_are_no_tokens(product: Product, person: httpx.Client) -> None:
    product.sign_in(person.get(ME).json()["email"])
    assert listed(person) == []
    (row,) = product.rows("SELECT id FROM logins WHERE name IS NULL LIMIT 1")
    assert code(person.delete(f"{TOKENS}/{row[0]}")) == (404, "not_found")


def test_a_revoked_token_is_refused_and_the_others_are_not(
    product: Product, person: httpx.Client
) -> None:
    kept, revoked = make(person, "kept"), make(person, "revoked")
    assert person.delete(f"{TOKENS}/{revoked['id']}").status_code == 204
    assert status_with(product, revoked["token"]) == 401
    assert status_with(product, kept["token"]) == 200
    assert [token["name"] for token in listed(person)] == ["kept"]
    assert code(person.delete(f"{TOKENS}/{revoked['id']}")) == (404, "not_found")


@pytest.mark.parametrize("role", ["patient", "therapist", "admin"])
def test_nobody_else_sees_or_revokes_a_token(
    product: Product, person: httpx.Client, role: str
) -> None:
    made = make(person)
    with product.client(address(), role) as other:
        assert listed(other) == []
        assert code(other.delete(f"{TOKENS}/{made['id']}")) == (404, "not_found")
    assert status_with(product, made["token"]) == 200
    assert code(person.delete(f"{TOKENS}/{uuid4()}")) == (404, "not_found")


def test_by_cookie_it_must_come_from_our_own_pages(product: Product) -> None:
    email = address()
    product.create_user(email)
    with httpx.Client(base_url=product.url) as browser:
        browser.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD})
        assert code(browser.post(TOKENS, json={"name": "theirs"})) == (403, "csrf")
        own = {"Sec-Fetch-Site": "same-origin"}
        made = browser.post(TOKENS, json={"name": "ours"}, headers=own).json()
        assert code(browser.delete(f"{TOKENS}/{made['id']}")) == (403, "csrf")
        assert status_with(product, made["token"]) == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "   "},
        {"name": "x" * 101},
        {"name": "a\0b"},
        {"name": "x", "expires_in_days": 0},
        {"name": "x", "expires_in_days": MAX_DURATION_DAYS + 1},
        {"name": "x", "role": "admin"},
        [],
    ],
)
def test_a_token_that_cannot_be_is_refused(person: httpx.Client, body: object) -> None:
    assert code(person.post(TOKENS, json=body)) == (422, "invalid_request")
    assert listed(person) == []


@pytest.mark.parametrize("days", [1, MAX_DURATION_DAYS])
def test_it_lasts_as_long_as_was_asked_for(person: httpx.Client, days: int) -> None:
    made = make(person, expires_in_days=days)
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert abs(lasts - timedelta(days=days)) < timedelta(hours=2), "summer time may come between"


async def test_its_signature_lasts_as_long_as_the_token(settings: WebSettings) -> None:
    """It carries a time too, and must not be over before the row is."""
    brief = settings.model_copy(update={"login_duration_s": 60})
    async with running_site(brief) as site:
        owner_id, _ = await site.sign_in()
        token = await insert_token(site.services.pool, owner_id, "long", MAX_DURATION_DAYS)
        assert token is not None
        year = timedelta(days=MAX_DURATION_DAYS) - timedelta(minutes=1)
        async with site.app.app_context():
            with aged(year):
                text = credentials().bearer_token(token.id)
        bearer = {"Authorization": f"Bearer {text}"}
        answer = await site.app.test_client().get(ME, headers=bearer)
        assert answer.status_code == 200


@contextmanager
def aged(age: timedelta) -> Iterator[None]:
    """What is signed meanwhile was signed so long ago."""
    signed_at = int(time.time() - age.total_seconds())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimestampSigner, "get_timestamp", lambda _: signed_at)
        yield


def test_an_expired_token_is_refused_and_not_listed(product: Product, person: httpx.Client) -> None:
    made = make(person)
    product.rows(
        "UPDATE logins SET created_at = now() - interval '2 days', "
        "expires_at = now() - interval '1 s' WHERE id = %s RETURNING 1",
        UUID(made["id"]),
    )
    assert status_with(product, made["token"]) == 401
    assert listed(person) == []


def test_no_more_than_so_many_however_they_are_asked_for(person: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(
                lambda number: person.post(TOKENS, json={"name": f"token {number}"}),
                range(MAX_TOKENS + 5),
            )
        )
    refused = [answer for answer in answers if answer.status_code != 201]
    assert len(refused) == 5
    assert {code(answer) for answer in refused} == {(409, "too_many_tokens")}
    tokens = listed(person)
    assert len(tokens) == MAX_TOKENS
    assert person.delete(f"{TOKENS}/{tokens[0]['id']}").status_code == 204
    make(person, "in its place")


def test_the_newest_comes_first(person: httpx.Client) -> None:
    for name in ("first", "second", "third"):
        make(person, name)
    assert [token["name"] for token in listed(person)] == ["third", "second", "first"]


def test_a_use_is_noted_once_a_minute(product: Product, person: httpx.Client) -> None:
    made = make(person)
    token_id = UUID(made["id"])

    def last_used() -> Any:
        (row,) = product.rows("SELECT last_used_at FROM logins WHERE id = %s", token_id)
        return row[0]

    assert listed(person)[0]["last_used_at"] is None, "making it is no use of it"
    assert status_with(product, made["token"]) == 200
    first = last_used()
    assert datetime.fromisoformat(listed(person)[0]["last_used_at"]) == first
    assert status_with(product, made["token"]) == 200
    assert last_used() == first
    product.rows(
        "UPDATE logins SET last_used_at = last_used_at - interval '61 s' WHERE id = %s RETURNING 1",
        token_id,
    )
    assert status_with(product, made["token"]) == 200
    assert last_used() >= first


def test_signing_out_with_a_token_revokes_it(product: Product, person: httpx.Client) -> None:
    made = make(person)
    bearer = {"Authorization": f"Bearer {made['token']}"}
    assert httpx.post(f"{product.url}/api/v1/auth/logout", headers=bearer).status_code == 204
    assert status_with(product, made["token"]) == 401
    assert listed(person) == []
