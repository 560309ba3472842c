"""The system's Chromium."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory

from playwright.async_api import Browser, BrowserContext, async_playwright

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
    """A browser without a window, of which every page believes to be in front."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=_program(), args=OPTIONS, ignore_default_args=NOT_AS_IN_TESTS
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def chromium_with_tabs() -> AsyncIterator[BrowserContext]:
    """A browser, without a window too, whose tabs are hidden while another one is in front."""
    with TemporaryDirectory(prefix="quartapp-tests-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            _program(),
            *OPTIONS,
            "--headless",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        said = (await process.stderr.readuntil(b"ws://")) + await process.stderr.readline()
        [address] = re.findall(r"ws://\S+", said.decode())
        try:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.connect_over_cdp(address, no_defaults=True)
                yield browser.contexts[0]
                await browser.close()
        finally:
            process.terminate()
            await process.communicate()


def _program() -> str:
    found = [path for name in NAMES if (path := shutil.which(name))]
    assert found, "these tests need Chromium"
    return found[0]
