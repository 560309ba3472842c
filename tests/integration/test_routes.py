"""House rules of the HTTP face, held over the whole URL map: authorised, limited, documented."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from quart import Quart
from quart_rate_limiter import QUART_RATE_LIMITER_EXEMPT_ATTRIBUTE
from werkzeug.routing import Rule

from quartapp import pages
from quartapp.app import SECURITY_HEADERS, create_app
from quartapp.services import Services
from quartapp.settings import WebSettings
from tests.product import Product

# Open to anybody on purpose.
PUBLIC = {
    *pages.PAGES,
    "/docs",
    "/favicon.ico",
    "/healthz",
    "/metrics",
    "/openapi.json",
    "/readyz",
    "/static/<path:filename>",
    "/api/v1/auth/login",
    "/api/v1/auth/register",
    "/api/v1/config",
}
UNLIMITED = {"/healthz"}


def make_app() -> Quart:
    settings = WebSettings(database_url="postgresql://x/y", secret_key="x" * 20)  # type: ignore[arg-type]
    return create_app(cast(Services, SimpleNamespace(settings=settings, drain=asyncio.Event())))


APP = make_app()
RULES: list[Rule] = list(APP.url_map.iter_rules())


def calls() -> list[tuple[str, str]]:
    """Every (method, rule) that is not public."""
    return [
        (method, rule.rule)
        for rule in RULES
        if rule.rule not in PUBLIC and not rule.websocket
        for method in sorted((rule.methods or set()) - {"OPTIONS"})
    ]


def path_of(rule: str) -> str:
    """A path that the rule matches."""
    (adapter,) = [each for each in RULES if each.rule == rule][:1]
    values: dict[str, Any] = {}
    for name, converter in adapter._converters.items():
        kind = type(converter).__name__
        values[name] = {"UUIDConverter": uuid4(), "AnyConverter": "json"}.get(kind, "x")
    built = adapter.build(values)
    assert built is not None
    return built[1]


@pytest.mark.parametrize(("method", "rule"), calls())
def test_every_route_asks_who_is_there(product: Product, method: str, rule: str) -> None:
    answer = httpx.request(method, product.url + path_of(rule), json={})
    assert answer.status_code == 401, answer.text


def test_the_public_routes_are_all_there_is_to_be_public() -> None:
    assert {rule.rule for rule in RULES} >= PUBLIC


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.rule} {rule.endpoint}")
def test_every_route_is_limited(rule: Rule) -> None:
    view = APP.view_functions[rule.endpoint]
    exempt = getattr(view, QUART_RATE_LIMITER_EXEMPT_ATTRIBUTE, False)
    assert exempt == (rule.rule in UNLIMITED)


async def test_every_route_of_the_api_is_documented() -> None:
    document = await (await APP.test_client().get("/openapi.json")).get_json()
    documented = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    for rule in RULES:
        if not rule.rule.startswith("/api/") or rule.websocket:
            continue
        plain = rule.rule
        for name, converter in rule._converters.items():
            plain = plain.replace(f"<{_kind(rule, name)}{name}>", f"{{{name}}}")
            assert converter is not None
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            assert (method, plain) in documented
            summary = document["paths"][plain][method.lower()]["summary"]
            assert summary.endswith("."), f"{method} {plain}: {summary!r} is half a sentence"
            answers = document["paths"][plain][method.lower()]["responses"]
            assert any(code.startswith("2") for code in answers), f"{method} {plain} never succeeds"


def _kind(rule: Rule, name: str) -> str:
    start = rule.rule.index(f"{name}>")
    opening = rule.rule.rindex("<", 0, start)
    return rule.rule[opening + 1 : start]


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/api/v1/auth/me", "/nowhere"])
def test_every_answer_carries_the_security_headers(product: Product, path: str) -> None:
    headers = httpx.get(product.url + path).headers
    for name, value in SECURITY_HEADERS.items():
        assert headers[name] == value


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nowhere", (404, "not_found")),
        ("PUT", "/api/v1/auth/login", (405, "method_not_allowed")),
        ("POST", "/api/v1/auth/login", (400, "bad_request")),
    ],
)
def test_what_goes_wrong_before_a_route_is_a_problem_document_too(
    product: Product, method: str, path: str, expected: tuple[int, str]
) -> None:
    answer = httpx.request(
        method, product.url + path, content=b"{", headers={"Content-Type": "application/json"}
    )
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == expected


class TestHealth:
    def test_alive_and_ready(self, product: Product) -> None:
        assert httpx.get(f"{product.url}/healthz").json() == {"status": "ok"}
        ready = httpx.get(f"{product.url}/readyz")
        assert ready.status_code == 200
        assert ready.json() == {
            "status": "ready",
            "draining": False,
            "listener": "push",
            "database": "ok",
            "migrations": "ok",
        }

    def test_a_schema_behind_or_a_database_away_is_not_ready(
        self, product: Product, server_dsn: str
    ) -> None:
        removed = product.rows("DELETE FROM schema_migrations RETURNING number, name")
        try:
            behind = httpx.get(f"{product.url}/readyz")
        finally:
            for number, name in removed:
                product.rows(
                    "INSERT INTO schema_migrations (number, name) VALUES (%s, %s) RETURNING 1",
                    number,
                    name,
                )
        assert behind.status_code == 503
        assert behind.json()["migrations"] == "behind"
        assert httpx.get(f"{product.url}/readyz").status_code == 200

    def test_metrics_are_prometheus_text(self, product: Product) -> None:
        answer = httpx.get(f"{product.url}/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        assert "process_resident_memory_bytes" in answer.text
