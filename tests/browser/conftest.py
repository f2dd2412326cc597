"""What the tests in a browser share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from tests.browser.chromium import PATIENCE_MS, chromium
from tests.browser.site import DIST, PACKAGE

_BUILT = ("index.js", "worker.js", "extension.js", "dandelion.iife.js")


@pytest.fixture(scope="session")
def package() -> Path:
    """The built package. It is built by `make sdk`, and nothing here builds it in its place."""
    missing = [name for name in _BUILT if not (DIST / name).exists()]
    if missing:
        raise RuntimeError(
            f"{DIST.relative_to(PACKAGE.parent)} lacks {', '.join(missing)}: run `make sdk`"
        )
    return DIST


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(package: Path) -> AsyncIterator[Browser]:
    """One browser for all tests of a file."""
    del package
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """Cookies and storage of one person, gone after the test."""
    made = await browser.new_context()
    made.set_default_timeout(PATIENCE_MS)
    yield made
    await made.close()
