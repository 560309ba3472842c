"""How the built pages are served: who keeps what for how long, compressed or not, and where."""

from __future__ import annotations

import gzip
import http.client
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from quartapp import pages
from quartapp.pages import FOR_EVER, PAGES, STATIC
from tests.integration.test_routes import make_app
from tests.product import Product

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def browser(product: Product) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=product.url, headers=HTML) as client:
        yield client


@pytest.fixture(scope="module")
def script(browser: httpx.Client) -> str:
    """The address of the page's script."""
    found = re.search(r'<script [^>]*src="(/static/assets/[^"]+\.js)"', browser.get("/").text)
    assert found is not None
    return found[1]


def plain(address: str) -> bytes:
    return (STATIC.parent / address.lstrip("/")).read_bytes()


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


class TestAssets:
    """What the build named by its content."""

    def test_they_are_kept_for_ever(self, browser: httpx.Client, script: str) -> None:
        answer = browser.get(script)
        assert answer.headers["cache-control"] == FOR_EVER
        assert "expires" not in answer.headers
        assert "javascript" in answer.headers["content-type"]
        assert answer.headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize(
        ("accepted", "encoding"),
        [
            ("gzip, deflate, br, zstd", "br"),
            ("br;q=0.1, gzip;q=1", "br"),
            ("*", "br"),
            ("gzip, deflate", "gzip"),
            ("br;q=0, gzip", "gzip"),
            ("GZIP", "gzip"),
            ("identity", None),
            ("br;q=0, gzip;q=0", None),
            ("", None),
            ("nonsense;;q=x", None),
        ],
    )
    def test_a_browser_gets_them_as_it_can_read_them(
        self, browser: httpx.Client, script: str, accepted: str, encoding: str | None
    ) -> None:
        with browser.stream("GET", script, headers={"Accept-Encoding": accepted}) as answer:
            raw = b"".join(answer.iter_raw())
        assert answer.headers.get("content-encoding") == encoding
        assert answer.headers["vary"] == "Accept-Encoding"
        assert "javascript" in answer.headers["content-type"]
        assert int(answer.headers["content-length"]) == len(raw)
        suffix = {"br": ".br", "gzip": ".gz", None: ""}[encoding]
        assert raw == plain(script + suffix)
        assert (len(raw) < len(plain(script)) / 2) == (encoding is not None)
        if encoding == "gzip":
            assert gzip.decompress(raw) == plain(script)

    def test_each_encoding_has_a_tag_of_its_own_that_is_honoured(
        self, browser: httpx.Client, script: str
    ) -> None:
        tags = set()
        for accepted in ("br", "gzip", "identity"):
            headers = {"Accept-Encoding": accepted}
            tag = browser.head(script, headers=headers).headers["etag"]
            again = browser.get(script, headers=headers | {"If-None-Match": tag})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["cache-control"] == FOR_EVER
            assert again.headers["vary"] == "Accept-Encoding"
            tags.add(tag)
        assert len(tags) == 3

    def test_what_is_not_there_is_not_kept(self, browser: httpx.Client) -> None:
        answer = browser.get("/static/assets/index-00000000.js")
        assert code(answer) == (404, "not_found")
        assert answer.headers["cache-control"] == "no-store"

    @pytest.mark.parametrize(
        "path",
        [
            "/static/../pages.py",
            "/static/assets/../../pages.py",
            "/static/%2e%2e/pages.py",
            "/static/assets/%2e%2e/%2e%2e/pages.py",
            "/static//etc/passwd",
            "/static/assets//etc/passwd",
            "/static/assets",
            "/static/assets/",
        ],
    )
    def test_nothing_else_of_the_machine_is_served(self, product: Product, path: str) -> None:
        host = product.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request("GET", path)  # as it stands: other clients tidy it first
        answer = connection.getresponse()
        assert answer.status in {404, 308}
        assert b"import" not in answer.read()
        connection.close()


class TestPages:
    """One page at every address of the client."""

    @pytest.mark.parametrize("address", PAGES)
    def test_every_address_gives_the_page(self, browser: httpx.Client, address: str) -> None:
        answer = browser.get(re.sub(r"<\w+>", str(uuid4()), address))
        assert answer.status_code == 200
        assert answer.content == plain("/static/index.html")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"

    @pytest.mark.parametrize("address", ["/", "/docs", "/static/docs.js", "/favicon.ico"])
    def test_what_has_no_name_by_content_is_asked_for_anew(
        self, browser: httpx.Client, address: str
    ) -> None:
        answer = browser.get(address)
        assert answer.headers["cache-control"] == "no-cache"
        assert "expires" not in answer.headers
        assert "content-encoding" not in answer.headers
        tag = {"If-None-Match": answer.headers["etag"]}
        assert browser.get(address, headers=tag).status_code == 304

    def test_all_that_the_page_names_is_there(self, browser: httpx.Client) -> None:
        for page in ("/", "/docs"):
            named = re.findall(r'(?:src|href)="(/static/[^"]+)"', browser.get(page).text)
            assert len(named) >= 2
            for address in named:
                assert browser.get(address).status_code == 200, address

    def test_nothing_in_the_pages_needs_a_weaker_policy(self, browser: httpx.Client) -> None:
        """No script or style inline, and nothing from elsewhere (CSP Level 3)."""
        for page in ("/", "/docs"):
            text = browser.get(page).text
            for tag, attributes in re.findall(r"<(script|style|link|img)\b([^>]*)>", text):
                assert tag != "style"
                if tag != "link" or "src" in attributes:
                    assert re.search(r'(src|href)="/', attributes), attributes
            assert not re.search(r"\s(style|on\w+)=", text)

    def test_an_unknown_address_is_the_page_for_a_person(self, browser: httpx.Client) -> None:
        tag = browser.get("/").headers["etag"]
        answer = browser.get("/nowhere", headers={"If-None-Match": tag})
        assert answer.status_code == 404
        assert answer.content == plain("/static/index.html")
        assert answer.headers["cache-control"] == "no-store"

    @pytest.mark.parametrize("address", ["/nowhere", "/sessions/a/b", "/account/x"])
    @pytest.mark.parametrize("accepted", ["*/*", "application/json", "text/html;q=0"])
    def test_an_unknown_address_is_a_problem_for_a_program(
        self, browser: httpx.Client, address: str, accepted: str
    ) -> None:
        assert code(browser.get(address, headers={"Accept": accepted})) == (404, "not_found")

    def test_the_api_has_no_pages(self, browser: httpx.Client) -> None:
        for address in ("/api/v1/nothing", "/api/", "/static/nothing.js"):
            assert code(browser.get(address)) == (404, "not_found")
        assert code(browser.post("/nowhere")) == (404, "not_found")

    def test_answers_of_the_api_are_never_compressed(self, browser: httpx.Client) -> None:
        for address in ("/openapi.json", "/api/v1/config", "/api/v1/auth/me", "/metrics"):
            answer = browser.get(address, headers={"Accept-Encoding": "br, gzip"})
            assert "content-encoding" not in answer.headers, address


async def test_a_checkout_that_is_not_built_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pages, "STATIC", tmp_path)
    client = make_app().test_client()
    for address in ("/", "/docs", "/nowhere"):
        answer = await client.get(address, headers=HTML)
        body = await answer.get_json()
        assert (answer.status_code, body["code"]) == (404, "not_built")
        assert "scripts/build_web.py" in body["detail"]
