"""How much a browser has to fetch before the first page works."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Browser, expect

from tests.browser.person import Person
from tests.product import Product

MOST_SCRIPT_BYTES = 150_000


async def test_the_first_page_needs_little_script_and_all_of_it_compressed(
    browser: Browser, brisk: Product
) -> None:
    """Signing in and the list together, as they came over the network with their headers."""
    async with Person.with_account(browser, brisk) as person:
        network = await person.page.context.new_cdp_session(person.page)
        await network.send("Network.enable")
        scripts: dict[str, dict[str, Any]] = {}
        sizes: dict[str, int] = {}

        def answered(event: dict[str, Any]) -> None:
            if event["type"] == "Script":
                scripts[event["requestId"]] = event["response"]

        def loaded(event: dict[str, Any]) -> None:
            sizes[event["requestId"]] = int(event["encodedDataLength"])

        network.on("Network.responseReceived", answered)
        network.on("Network.loadingFinished", loaded)
        await person.sign_in()
        await expect(person.page.get_by_text("Nothing here yet")).to_be_visible()
        await person.page.wait_for_load_state("networkidle")

        total = sum(sizes[request] for request in scripts)
        print(f"scripts of the first page: {len(scripts)}, {total} bytes")
        assert 0 < total < MOST_SCRIPT_BYTES
        for script in scripts.values():
            headers = {name.lower(): value for name, value in script["headers"].items()}
            assert headers.get("content-encoding") in {"br", "gzip"}, script["url"]
            assert "immutable" in headers["cache-control"], script["url"]
