"""A browser, and a person at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from playwright.async_api import Browser, expect

from jobs.database import Pool
from tests.browser.chromium import chromium
from tests.browser.person import Person
from tests.browser.together import Played, play_of
from tests.browser.viewer import Viewer
from tests.clips import LONG_TEXT, SHORT_TEXT, speech
from tests.conftest import make_database
from tests.product import Product

# Nothing is transcribed here: tests say what a worker would say. Heartbeats are brisk, so that
# their absence is noticed soon.
BRISK = {
    "QUARTAPP_ROLE": "web",
    "QUARTAPP_HEARTBEAT_S": "2",
    "QUARTAPP_ACCESS_CHECK_S": "2",
    "QUARTAPP_RECOVERY_INTERVAL_S": "3600",  # these sessions have no job, and shall get none
}

# Recognising speech beside the browser takes all of a small machine.
expect.set_options(timeout=20_000)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium."""
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def owner(browser: Browser, product: Product) -> AsyncIterator[Person]:
    """Somebody with an account, not signed in yet."""
    async with Person.with_account(browser, product) as person:
        yield person


@pytest.fixture
async def stranger(browser: Browser, product: Product) -> AsyncIterator[Person]:
    """Somebody else with an account, in a browser profile of their own."""
    async with Person.with_account(browser, product) as person:
        yield person


@pytest.fixture(scope="session")
def brisk(
    server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Product]:
    """A product that serves, and leaves transcription to the tests."""
    for dsn in make_database(server_dsn, template):
        running = Product(dsn, tmp_path_factory.mktemp("brisk"), BRISK).start()
        yield running
        running.stop()


@pytest.fixture
async def writing(brisk: Product) -> AsyncIterator[Pool]:
    """The database under it, for what a worker would write."""
    async with asyncpg.create_pool(brisk.dsn, min_size=1, max_size=2) as pool:
        yield pool


@pytest.fixture
async def viewer(browser: Browser, brisk: Product, writing: Pool) -> AsyncIterator[Viewer]:
    """Somebody at the page of a session that is about to be transcribed."""
    async with Viewer.arriving(browser, brisk, writing) as viewer:
        yield viewer


@pytest.fixture(scope="session")
def played(brisk: Product, request: pytest.FixtureRequest) -> Iterator[Played]:
    """The tests that mostly wait, all at the same time."""
    plays = [play for item in request.session.items if (play := play_of(item))]
    with Played(brisk, plays) as played:
        yield played


@pytest.fixture(scope="session", autouse=True)
def _begun(request: pytest.FixtureRequest) -> None:
    """They begin with the first test of a browser, whichever it is."""
    if any(play_of(item) for item in request.session.items):
        request.getfixturevalue("played")


@pytest.fixture(scope="session")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few seconds of speech."""
    return _clip(tmp_path_factory.mktemp("short"), SHORT_TEXT)


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech that takes long enough to watch its transcription."""
    return _clip(tmp_path_factory.mktemp("long"), LONG_TEXT * 2)


@pytest.fixture(scope="session")
def endless_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech that is still being transcribed when its test is over."""
    return _clip(tmp_path_factory.mktemp("endless"), LONG_TEXT * 8)


def _clip(directory: Path, text: str) -> Path:
    recording = speech(text, directory)
    path = directory / "garden talk.wav"
    path.write_bytes(recording)
    return path
