"""What rate limits count by, and that they forget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from quart import Quart

from quartapp.limits import PRUNE_AT, ExpiringStore, client_address


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (("10.1.2.3", 5), "10.1.2.3"),
        (("2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::9", 5), "2001:db8:1:2::/64"),
        (("x" * 1000, 5), "x" * 64),
        (None, "unknown"),
    ],
)
async def test_a_client_is_who_is_connected(client: object, expected: str) -> None:
    app = Quart(__name__)
    headers = {"X-Forwarded-For": "1.1.1.1"}
    async with app.test_request_context("/", headers=headers, scope_base={"client": client}):
        assert await client_address() == expected


async def test_the_store_forgets_what_is_over() -> None:
    store = ExpiringStore()
    past = datetime.now(UTC) - timedelta(seconds=1)
    future = datetime.now(UTC) + timedelta(hours=1)
    await store.set("kept", future)
    for n in range(5 * PRUNE_AT):
        await store.set(f"key {n}", past)
    assert len(store) <= PRUNE_AT
    assert await store.get("kept", past) == future
    assert await store.get("never", past) == past
