"""A server, and nothing in the way of a test that is about something else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quartapp.settings import WebSettings
from tests.integration.streaming_fixtures import Site, running_site


@pytest.fixture
def limited(settings: WebSettings) -> WebSettings:
    """Streams limited as they are by default; other requests are not."""
    return settings.model_copy(update={"request_limit": 1_000_000})


@pytest.fixture
def quick(limited: WebSettings) -> WebSettings:
    """No limit in the way."""
    return limited.model_copy(
        update={"streams_per_user": 1000, "stream_opens_per_minute": 1_000_000}
    )


@pytest.fixture
async def site(quick: WebSettings) -> AsyncIterator[Site]:
    async with running_site(quick) as running:
        yield running
