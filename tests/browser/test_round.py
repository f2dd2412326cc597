"""A whole round of real processes whose clients are pages: left, closed, or still there.

Every page sets its own slot, so the released vector is the list of those that were counted.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext

from client_py.config import Policy
from dandelion.cli.http import Api
from dandelion.cli.stack import Settings, Stack
from tests.browser.chromium import PATIENCE_MS
from tests.browser.collectors import POLICY, Witness, acknowledged
from tests.browser.site import Site
from tests.e2e.test_round import exact, roots
from tests.oracle_membership import assert_exactly_once

PAGES: Final = 200
# Visited before the round opens, to see how fast this machine is.
WARM_UP: Final = 16
# A round is never open for longer, however slow the machine; late pages then stay outside.
OPEN_S_MAX: Final = 120
COHORT_MIN: Final = 100
# Pages that are open at once.
TABS: Final = 8
FATES: Final = ("navigate", "close", "navigate", "stay", "navigate")
REGISTRY: Final = {
    "events": {
        "seat": {"columns": {"id": {"kind": "category", "values": [f"s{i}" for i in range(PAGES)]}}}
    }
}
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

# Receipts by client.
Told = dict[int, list[dict[str, Any]]]
Work = Callable[["Place", Sequence[int]], Awaitable[Told]]


@dataclass
class Place:
    """A deployment with a witness before it, a site with an origin for each page, and a browser."""

    stack: Stack
    api: Api
    witness: Witness
    site: Site
    context: BrowserContext

    def options(self) -> dict[str, object]:
        """Options of `init`."""
        pinned = self.stack.client_config.pinned
        return {
            "endpoint": self.witness.endpoint,
            "config": {
                "collector": pinned.collector.hex(),
                "helpers": [each.hex() for each in pinned.helpers],
            },
            "policy": POLICY,
            "consent": "granted",
        }

    async def open_round(self, seconds: int) -> str:
        """A round that asks how many sit in each seat."""
        query = {
            "name": f"seats-{seconds}",
            "sql": "SELECT id, COUNT(*) FROM seat GROUP BY id",
            "registry": REGISTRY,
            "scope": "seats",
            "epsilon": "4",
            "delta": "1e-8",
            "cohort_min": COHORT_MIN,
            "cohort_max": 1_000,
            "rows_max": 1,
        }
        await self.api.admin_async("POST", "/admin/v1/queries", query)
        body = {"query": query["name"], "duration_s": seconds}
        return str((await self.api.admin_async("POST", "/admin/v1/rounds", body))["round"])

    def acknowledged(self, round_id: str) -> set[int]:
        """Clients whose report the collector has said it counts."""
        return {
            self.site.origins.index(origin) for origin in acknowledged(self.witness.seen, round_id)
        }

    async def ended(self, round_id: str) -> dict[str, Any]:
        """The round once it is in a final phase."""
        while True:
            path = f"/admin/v1/rounds/{round_id}"
            document: dict[str, Any] = await self.api.admin_async("GET", path)
            if document["phase"] in ("released", "abandoned", "damaged"):
                return document
            await asyncio.sleep(0.2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """Everything of it, running."""
    async with Site(PAGES + TABS + WARM_UP) as site:
        stack = Stack(
            Settings(
                folder=tmp_path_factory.mktemp("d"),
                scopes=("seats",),
                cohort_min=COHORT_MIN,
                policy=Policy(cohort_min=COHORT_MIN, epsilon_round=5, epsilon_period=30),
                epsilon_round=5,
                allowed_origins=tuple(site.origins),
            )
        )
        await asyncio.to_thread(stack.start)
        try:
            context = await browser.new_context()
            context.set_default_timeout(PATIENCE_MS)
            async with Witness(stack.deployment.public) as witness:
                yield Place(stack, Api(stack.deployment), witness, site, context)
        finally:
            await asyncio.to_thread(stack.stop)


async def contribute(place: Place, clients: Sequence[int]) -> Told:
    """One tab: a page after the other records its seat, joins the round, and meets its fate."""
    told: Told = {}
    page = await place.context.new_page()
    for client in clients:
        await page.goto(place.site.origins[client])
        seat = {"id": f"s{client}"}
        await page.evaluate("([o, r]) => visit(o, 'seat', [r])", [place.options(), seat])
        if fate(client) == "close":
            await page.close()
            page = await place.context.new_page()
        elif fate(client) == "stay":
            await page.evaluate("client.flush()")
            told[client] = await page.evaluate("client.receipts()")
        # Who navigates away goes where the next one is, or with the last, nowhere.
    await page.goto("about:blank")
    await page.close()
    return told


async def receipts(place: Place, clients: Sequence[int], after_s: int = 0) -> Told:
    """What each client that left has receipts for, when its page is visited again so much later."""
    page = await place.context.new_page()
    await page.add_init_script(
        f"{{ const now = Date.now; Date.now = () => now() + {after_s * 1_000}; }}"
    )
    told = {}
    for client in clients:
        if fate(client) != "stay":
            await page.goto(place.site.origins[client])
            await page.evaluate("(o) => visit(o, 'seat', [])", place.options())
            told[client] = await page.evaluate("client.receipts()")
    await page.close()
    return told


async def in_tabs(work: Work, place: Place, clients: range) -> Told:
    """Does the work for all clients in a few tabs at once."""
    tabs = await asyncio.gather(*(work(place, clients[tab::TABS]) for tab in range(TABS)))
    return {client: told for each in tabs for client, told in each.items()}


def fate(client: int) -> str:
    """What happens to the page of a client."""
    return FATES[client % len(FATES)]


async def test_the_released_sum_holds_every_acknowledged_page_once(place: Place) -> None:
    """200 pages that leave, close or stay: acknowledged, summed and receipted are one set."""
    # Machines differ: a few pages without a round show how long one has to be open.
    await in_tabs(contribute, place, range(PAGES, PAGES + TABS))
    began = time.monotonic()
    await in_tabs(contribute, place, range(PAGES + TABS, PAGES + TABS + WARM_UP))
    pace_s = (time.monotonic() - began) / WARM_UP
    round_id = await place.open_round(min(round(8 + 1.2 * PAGES * pace_s), OPEN_S_MAX))
    known = roots(place.stack)
    told = await in_tabs(contribute, place, range(PAGES))
    at_first = place.acknowledged(round_id)
    # Some come back in time: what left with the page is sent again, and taken for what it is.
    back = await receipts(place, range(12), after_s=60)
    told |= await in_tabs(receipts, place, range(PAGES))
    document = await place.ended(round_id)
    assert document["phase"] == "released", document
    counted = place.acknowledged(round_id)
    assert_exactly_once(exact(await place.api.release(round_id), known), counted)
    mine = {
        client: [each for each in found if each["round"] == round_id]
        for client, found in told.items()
    }
    joined = {client for client in mine if mine[client]}
    assert counted <= joined
    assert [client for client in joined if len(mine[client]) != 1] == []
    assert [client for client in counted if not mine[client][0]["bytesSent"]] == []
    assert {mine[client][0]["outcome"] for client in joined if fate(client) == "stay"} == {
        "accepted"
    }
    outcomes = [each["outcome"] for found in back.values() for each in found]
    assert "duplicate" in outcomes
    assert set(outcomes) <= {"accepted", "duplicate"}
    for each in FATES:
        mates = {client for client in joined if fate(client) == each}
        assert len(mates & at_first) >= 0.9 * len(mates), each
