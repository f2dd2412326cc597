"""How many reports arrive of pages that are left at once (`make leave`).

A page joins a round, records, and is gone: by navigation to another page, or because its tab is
closed. Counted is what a collector sees without the page ever coming back. What does not arrive is
not lost: it is stored, and sent at the next visit.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

from playwright.async_api import Page

from tests.bench.record import RESULTS, Figure, Run
from tests.browser.chromium import PATIENCE_MS, chromium
from tests.browser.collectors import DEPLOYMENT, HostileCollector, open_now, options, reports
from tests.browser.firefox import firefox
from tests.browser.site import Site

RUNS: Final = 60
WAYS: Final = ("navigate", "close")
PROMISE: Final = ">= 95"
# How long an answer may take that does not come.
GRACE_S: Final = 3.0
_VISIT: Final = "([options, rows]) => visit(options, 'flight', rows)"
_ROWS: Final = [{"carrier": "UA", "dep_delay": 7}]


class Tab(Protocol):
    """What is done to a tab."""

    async def goto(self, url: str) -> None:
        """Leaves the page for another one."""

    async def run(self, function: str, argument: object) -> None:
        """Calls a function of the page and waits for its promise."""

    async def close(self) -> None:
        """Closes the tab."""


NewTab = Callable[[], Awaitable[Tab]]
Engine = Callable[[], AbstractAsyncContextManager[tuple[str, NewTab]]]


class ChromiumTab:
    """A tab of Chromium."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def goto(self, url: str) -> None:
        """Leaves the page for another one; returns when that is loaded."""
        await self._page.goto(url)

    async def run(self, function: str, argument: object) -> None:
        """Calls a function of the page and waits for its promise."""
        await self._page.evaluate(function, argument)

    async def close(self) -> None:
        """Closes the tab."""
        await self._page.close()


@asynccontextmanager
async def in_chromium() -> AsyncIterator[tuple[str, NewTab]]:
    """Name and version of a running Chromium, and how to open a tab."""
    async with chromium() as browser:
        context = await browser.new_context()
        context.set_default_timeout(PATIENCE_MS)

        async def tab() -> Tab:
            return ChromiumTab(await context.new_page())

        yield f"Chromium {browser.version}", tab


@asynccontextmanager
async def in_firefox() -> AsyncIterator[tuple[str, NewTab]]:
    """Name and version of a running Firefox, and how to open a tab."""
    async with firefox() as running:
        yield f"Firefox {running.version}", running.tab


async def delivered(new_tab: NewTab, way: str, runs: int, consent: str = "granted") -> float:
    """Percentage of the pages whose report arrives. Each is on an origin of its own."""
    async with (
        Site(runs) as site,
        HostileCollector(DEPLOYMENT.envelope(open_now())) as collector,
    ):
        given = options(collector.endpoint, consent=consent)
        tab = await new_tab()
        for origin in site.origins:
            await tab.goto(f"{origin}/")
            await tab.run(_VISIT, [given, _ROWS])
            if way == "close":
                await tab.close()
                tab = await new_tab()
            else:
                await tab.goto(f"{origin}/elsewhere")
        await tab.close()

        def arrived() -> set[str]:
            return {each.origin for each in reports(collector.seen)}

        for _ in range(int(GRACE_S / 0.1)):
            if len(arrived()) == runs:
                break
            await asyncio.sleep(0.1)
        return 100 * len(arrived()) / runs


async def measure(engine: Engine, runs: int) -> tuple[str, dict[str, float]]:
    """The browser, and the percentage for each way to leave."""
    async with engine() as (name, new_tab):
        return name, {way: await delivered(new_tab, way, runs) for way in WAYS}


def main() -> None:
    """Measures, prints, and with `--record` appends to the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--firefox", action="store_true", help="Firefox, too")
    parser.add_argument("--record", action="store_true", help="append to the record")
    args = parser.parse_args()
    for engine in [in_chromium, *([in_firefox] if args.firefox else [])]:
        run = Run.begin("leave")
        name, found = asyncio.run(measure(engine, args.runs))
        figures = {
            f"arrived, {way}": Figure.of(
                share, "%", promise=PROMISE if engine is in_chromium else None
            )
            for way, share in found.items()
        }
        run.record(
            {"browser": name, "runs": args.runs}, figures, to=RESULTS if args.record else None
        )


if __name__ == "__main__":
    main()
