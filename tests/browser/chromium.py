"""Debian's Chromium, driven by Playwright: one headless browser for as long as a block runs."""

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, BrowserContext, async_playwright

# Milliseconds. Far more than a busy machine needs; a page that hangs ends here.
PATIENCE_MS: Final = 60_000
_NAMES: Final = ("chromium", "chromium-browser")
# Whatever the browser itself wants of the world goes to a proxy that is not there; loopback
# addresses need none.
_ARGUMENTS: Final = (
    "--disable-dev-shm-usage",
    "--proxy-server=127.0.0.1:9",
)


def chromium_binary() -> Path:
    """The browser, which `make test` installs."""
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found)
    raise RuntimeError("Chromium is needed: apt-get install chromium, or run make test")


def _sandbox() -> bool:
    # Chromium's own sandbox does not work for root.
    return os.geteuid() != 0


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A running browser, ended with all its processes."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium_binary(),
            chromium_sandbox=_sandbox(),
            args=list(_ARGUMENTS),
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def chromium_with_extension(folder: Path, profile: Path) -> AsyncIterator[BrowserContext]:
    """A running browser with an unpacked extension and an empty profile."""
    arguments: Sequence[str] = (
        *_ARGUMENTS,
        f"--load-extension={folder}",
        f"--disable-extensions-except={folder}",
        "--disable-features=DisableLoadExtensionCommandLineSwitch",
    )
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium_binary(),
            chromium_sandbox=_sandbox(),
            ignore_default_args=["--disable-extensions"],
            args=list(arguments),
        )
        try:
            yield context
        finally:
            await context.close()
