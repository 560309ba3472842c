"""A browser, and a person at it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright, expect

from tests.browser.person import Person
from tests.clips import LONG_TEXT, SHORT_TEXT, speech
from tests.product import Product

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

# Recognising speech beside the browser takes all of a small machine.
expect.set_options(timeout=20_000)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium."""
    found = [path for name in CHROMIUM_NAMES if (path := shutil.which(name))]
    assert found, "these tests need Chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found[0], args=CHROMIUM_OPTIONS)
        yield browser
        await browser.close()


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
