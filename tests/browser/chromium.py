"""The system's Chromium."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# Real browsers keep pages that are left, and show them again as they were.
NOT_AS_IN_TESTS = ["--disable-back-forward-cache"]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser without a window."""
    found = [path for name in NAMES if (path := shutil.which(name))]
    assert found, "these tests need Chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=found[0], args=OPTIONS, ignore_default_args=NOT_AS_IN_TESTS
        )
        yield browser
        await browser.close()
