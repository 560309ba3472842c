"""A client that can only ask: it misses nothing, and asks for little."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from jobs.model import Status
from quartapp.settings import WebSettings
from tests.integration.streaming_fixtures import Recording, Site, running_site

PAGE = 7


class Poller:
    """Follows one session by its status and, when that has changed, by its history."""

    def __init__(self, client: httpx.AsyncClient, recording: Recording) -> None:
        self._client = client
        self._path = f"/api/v1/sessions/{recording.id}/status"
        self._etag = ""
        self.events: list[dict[str, Any]] = []
        self.latest: dict[str, Any] = {}
        self.unchanged = 0

    async def ask(self) -> None:
        answer = await self._client.get(self._path, headers={"If-None-Match": self._etag})
        if answer.status_code == 304:
            assert answer.content == b""
            self.unchanged += 1
            return
        assert answer.status_code == 200
        self._etag = answer.headers["ETag"]
        self.latest = answer.json()
        after: int | None = self.events[-1]["id"] if self.events else 0
        while after is not None:
            query = {"after": after, "limit": PAGE}
            page = (await self._client.get(f"{self._path}/history", params=query)).json()
            self.events += page["events"]
            after = page["next_after"]


async def published(recording: Recording) -> None:
    for number in range(60):
        await recording.publish(progress=number, pieces=number % 3)
        if random.random() < 0.5:
            await asyncio.sleep(random.uniform(0, 0.02))
    await recording.publish(Status.COMPLETED)


@pytest.mark.criterion("AC-3.1.5")
async def test_it_has_every_event_once_in_order_and_as_the_stream_tells_it(
    settings: WebSettings,
) -> None:
    unlimited = settings.model_copy(update={"request_limit": 1_000_000})
    async with running_site(unlimited) as site, asking(site) as (client, recording):
        poller = Poller(client, recording)
        writing = asyncio.create_task(published(recording))
        async with asyncio.timeout(60):
            while poller.latest.get("status") != "completed":
                await poller.ask()
        await writing
        assert [event["id"] for event in poller.events] == recording.ids
        assert [event["prev_id"] for event in poller.events] == [0, *recording.ids[:-1]]
        # The same messages, field by field, as everybody gets.
        assert poller.events == [dict(message.fields()) for message in recording.published]
        # What is shown of the state alone is the last of them, and where it stands.
        assert poller.latest == {**poller.events[-1], "queue_position": None} | {
            "worker_seen_at": poller.latest["worker_seen_at"]
        }


async def test_while_nothing_happens_an_answer_has_no_body(settings: WebSettings) -> None:
    async with running_site(settings) as site, asking(site) as (client, recording):
        poller = Poller(client, recording)
        for _ in range(5):
            await poller.ask()
        assert poller.unchanged == 4
        await recording.publish(progress=10)
        await poller.ask()
        assert poller.unchanged == 4
        assert poller.latest["progress"] == 10


@asynccontextmanager
async def asking(site: Site) -> AsyncIterator[tuple[httpx.AsyncClient, Recording]]:
    """A client of the owner of a new session."""
    recording, headers = await site.recording()
    url = f"http://127.0.0.1:{site.port}"
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        yield client, recording
