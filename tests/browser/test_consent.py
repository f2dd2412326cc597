"""What a person has said decides what is stored and sent; requests carry nothing but reports."""

from collections.abc import AsyncIterator, Mapping
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page

from tests.browser.collectors import DEPLOYMENT, HostileCollector, open_now, options, reports
from tests.browser.site import Site

GPC: Final = "Object.defineProperty(navigator, 'globalPrivacyControl', { value: true })"
ROWS: Final = [{"carrier": "UA", "dep_delay": 7}]
# Charges stay after a withdrawal, and so does the time of the next visit: neither tells of events.
KEPT: Final = {"decisions", "meta"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Place:
    """A page of a person, and the collector it would talk to."""

    def __init__(self, page: Page, site: Site, collector: HostileCollector) -> None:
        self.page = page
        self.site = site
        self.collector = collector

    async def visit(self, **given: object) -> None:
        """A fresh page with a client that records a row, and joins if it may."""
        await self.page.goto(self.site.origins[0])
        all_options = options(self.collector.endpoint, **given)
        await self.page.evaluate("([o, r]) => visit(o, 'flight', r)", [all_options, ROWS])

    async def leave(self) -> None:
        """Asks once more, and leaves."""
        await self.page.evaluate("client.flush({ early: true })")
        await self.page.goto("about:blank")

    async def stored(self) -> Mapping[str, int]:
        """Entries by store; none without a database."""
        found: Mapping[str, int] = await self.page.evaluate("stored()")
        return found


@pytest_asyncio.fixture(loop_scope="module")
async def place(context: BrowserContext) -> AsyncIterator[Place]:
    """A page that has not said anything yet."""
    async with (
        Site() as site,
        HostileCollector(DEPLOYMENT.envelope(open_now())) as collector,
    ):
        yield Place(await context.new_page(), site, collector)


@pytest.mark.parametrize("consent", ["pending", "denied", "nonsense"])
async def test_before_consent_nothing_is_stored_and_nobody_is_asked(
    place: Place, consent: str
) -> None:
    """No database, no request; recording, sending and leaving change nothing about that."""
    await place.visit(consent=consent)
    assert await place.stored() == {}
    await place.leave()
    assert place.collector.seen == []


async def test_with_consent_a_row_is_stored_and_a_report_sent(place: Place) -> None:
    """The control: the same page with `granted`, first pending and then said in the page."""
    await place.visit(consent="pending")
    await place.page.evaluate("client.setConsent(true)")
    await place.page.evaluate("([row]) => client.record('flight', row)", ROWS)
    assert (await place.stored())["events"] == 1
    await place.leave()
    assert len(reports(place.collector.seen)) == 1


async def test_a_withdrawal_deletes_what_was_stored_and_stops(place: Place) -> None:
    """Events, waiting reports and receipts go; the report that was held is never made."""
    await place.visit()
    before = await place.stored()
    assert {name for name, count in before.items() if count} >= {"events", "reports"}
    await place.page.evaluate("client.setConsent(false)")
    after = await place.stored()
    assert {name for name, count in after.items() if count} <= KEPT
    await place.page.evaluate("([row]) => client.record('flight', row)", ROWS)
    assert await place.stored() == after
    await place.leave()
    assert reports(place.collector.seen) == []


async def test_a_withdrawal_in_one_tab_holds_in_all(place: Place, context: BrowserContext) -> None:
    """The other tab forgets what it held and records no more."""
    await place.visit()
    other = await context.new_page()
    await other.goto(place.site.origins[0])
    await other.evaluate("(o) => visit(o, 'flight', [])", options(place.collector.endpoint))
    await other.evaluate("client.setConsent(false)")
    await place.page.evaluate("client.flush()")
    await place.page.evaluate("([row]) => client.record('flight', row)", ROWS)
    assert {name for name, count in (await place.stored()).items() if count} <= KEPT
    await place.leave()
    assert reports(place.collector.seen) == []


@pytest.mark.parametrize("honoured", [True, False])
async def test_global_privacy_control_is_a_no(
    place: Place, context: BrowserContext, honoured: bool
) -> None:
    """A browser that says so is left in peace; the control is a page that does not honour it."""
    await context.add_init_script(GPC)
    await place.visit(**({} if honoured else {"honorGPC": False}))
    assert await place.page.evaluate("navigator.globalPrivacyControl") is True
    assert ("events" in await place.stored()) == (not honoured)
    await place.leave()
    assert bool(place.collector.seen) == (not honoured)


async def test_requests_carry_no_cookie_no_referrer_and_no_credentials(place: Place) -> None:
    """Neither the question for rounds, nor a report of a page that stays, nor of one that left."""
    await tempted(place)
    await place.visit()
    await place.page.evaluate("client.flush()")
    place.collector.envelopes.append(DEPLOYMENT.envelope(open_now(cohort_max=1_999)))
    await place.page.evaluate("Date.now = ((now) => () => now() + 2_000_000)(Date.now)")
    await place.visit()
    await place.leave()
    seen = place.collector.seen
    assert sum(each.path == "/v1/rounds" for each in seen) >= 2
    assert len(reports(seen)) >= 2
    assert [each for each in seen if {"Cookie", "Referer", "Authorization"} & {*each.headers}] == []
    # A preflight would ask before each report, and a page that leaves has no time for an answer.
    assert {each.method for each in seen} == {"GET", "POST"}


async def test_a_careless_request_would_carry_them(place: Place) -> None:
    """The control: there is a cookie, and a referrer for whoever does not leave them out."""
    await tempted(place)
    await place.page.goto(place.site.origins[0])
    url = place.collector.endpoint + "/v1/rounds"
    await place.page.evaluate(
        "(url) => fetch(url, { credentials: 'include', mode: 'no-cors' })", url
    )
    [request] = place.collector.seen
    assert request.headers["Cookie"] == "who=you"
    assert request.headers["Referer"].startswith(place.site.origins[0])


async def tempted(place: Place) -> None:
    """Gives the browser a cookie for the collector."""
    url = place.collector.endpoint
    await place.page.context.add_cookies([{"name": "who", "value": "you", "url": url}])
