"""The demo page as a person meets it, with the keyboard, from the first record to the answer.

One visitor walks through the page; the tests look at what was shown and at what left the browser.
"""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route

from tests.browser.chromium import PATIENCE_MS
from tests.browser.site import PACKAGE

ROOT: Final = PACKAGE.parent
PEOPLE: Final = 120
COHORT_MIN: Final = 100
# A visitor has half of it at most until the report leaves by itself.
ROUND: Final = "16s"
MODE: Final = "bus"
MINUTES: Final = "140"
MODES: Final = ["walk", "bicycle", "bus", "train", "car", "other"]
HEADER_BYTES: Final = 49
# 18 numbers of three bytes each.
REPORT_BYTES: Final = HEADER_BYTES + 54
PHONE: Final = 360
AXE: Final = PACKAGE / "node_modules" / "axe-core" / "axe.min.js"
# Runs before anything of the page does, and is not the page's own script.
WATCH: Final = """
globalThis.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


class Up(NamedTuple):
    """Where `dandelion up --demo` serves page and collector."""

    page: str
    collector: str


@dataclass
class Visit:
    """A page, what it asked for, what it complained about, and what it showed on the way."""

    page: Page
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    before: str = ""
    explained: list[str] = field(default_factory=list)
    previewed: list[list[str]] = field(default_factory=list)

    @property
    def reports(self) -> list[bytes]:
        """Bodies that were sent."""
        return [it.post_data_buffer or b"" for it in self.requests if it.method == "POST"]


@pytest.fixture(scope="module")
def up(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The command with the page built from what is published, stopped at the end in any case."""
    del package
    folder = tmp_path_factory.mktemp("demo")
    build = ["node", str(PACKAGE / "demo" / "build.mjs"), str(folder / "page")]
    subprocess.run(build, check=True, timeout=60)
    words = [sys.executable, "-c", "from dandelion.cli import main; main()", "up", "--demo"]
    words += ["--page", str(folder / "page"), "--folder", str(folder / "state"), "--port", "0"]
    words += ["--people", str(PEOPLE), "--cohort-min", str(COHORT_MIN), "--round", ROUND]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as process:
        try:
            said: dict[str, str] = {}
            assert process.stdout is not None
            for line in process.stdout:
                name, _, value = line.partition("  ")
                said[name] = value.strip()
                if line.startswith("Control-C"):
                    break
            yield Up(said["demo page"], said["public"])
        finally:
            process.terminate()


async def opened(context: BrowserContext, up: Up) -> Visit:
    """The page, as soon as it shows a round that is open."""
    await context.add_init_script(WATCH)
    await context.add_init_script(path=AXE)
    visit = Visit(await context.new_page())
    visit.page.set_default_timeout(PATIENCE_MS)

    def complained(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            visit.complaints.append(message.text)

    def asked(request: Request) -> None:
        visit.requests.append(request)

    visit.page.on("console", complained)
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on("request", asked)
    await visit.page.goto(up.page)
    await visit.page.wait_for_selector("#round[data-state=open]")
    return visit


async def keep_by_keyboard(page: Page) -> None:
    """Chooses a mode, types the minutes and submits, without a pointer."""
    await page.keyboard.press("Tab")
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Control+A")
    await page.keyboard.type(MINUTES)
    await page.keyboard.press("Enter")


async def table(page: Page, selector: str) -> list[list[str]]:
    """The cells of a table's body."""
    rows = await page.query_selector_all(f"{selector} tbody tr")
    cells = [await row.query_selector_all("th, td") for row in rows]
    return [[await it.inner_text() for it in row] for row in cells]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def visit(browser: Browser, up: Up) -> AsyncIterator[Visit]:
    """The whole way: look, allow and record, read, send, wait for the answer."""
    context = await browser.new_context(viewport={"width": 1100, "height": 900})
    made = await opened(context, up)
    page = made.page
    made.before = await page.inner_text("main")
    await keep_by_keyboard(page)
    await page.wait_for_selector("#vector:not([hidden])")
    made.explained = [await it.inner_text() for it in await page.query_selector_all("#explain li")]
    made.previewed = await table(page, "#vector-table")
    if await page.is_visible("#send"):
        await page.press("#send", "Enter")
    await page.wait_for_selector("#outcome[data-outcome=accepted]")
    await page.wait_for_selector("#answer:not([hidden]) >> text=yours")
    yield made
    await context.close()


async def test_nothing_is_kept_or_asked_before_it_is_allowed(browser: Browser, up: Up) -> None:
    """A visitor who only looks meets the collector's published list, and no question."""
    context = await browser.new_context()
    visit = await opened(context, up)
    asked = [it.url.removeprefix(up.collector) for it in visit.requests if up.collector in it.url]
    assert "stores nothing" in await visit.page.inner_text("#consent-words")
    assert [it for it in asked if not it.startswith("/v1/releases")] == []
    assert await visit.page.evaluate("async () => (await indexedDB.databases()).length") == 0
    await context.close()


async def test_the_question_is_explained_in_words(visit: Visit) -> None:
    """What the client reads, adds and promises, from the plan that it has verified."""
    words = " ".join(visit.explained)
    assert len(visit.explained) > 3
    assert "“commute”" in words
    assert "minutes, limited to 0 to 120" in words
    assert f"at least {COHORT_MIN} clients" in words
    assert "epsilon 1" in words
    assert "explain" not in visit.before


async def test_the_numbers_are_shown_before_they_are_masked(visit: Visit) -> None:
    """One record of 140 minutes counts as 120, which is 60 above the centre; all else is zero."""
    assert [row[0] for row in visit.previewed] == MODES
    for mode, *numbers in visit.previewed:
        assert numbers == (["60"] * 3 if mode == MODE else ["0"] * 3)
    facts = await visit.page.inner_text("#bounds")
    assert "0 to 120" in facts
    assert "never above 60" in facts
    assert "10,800, never above 10,800" in facts
    assert await table(visit.page, "#vector-table") == visit.previewed


async def test_the_bytes_shown_are_those_that_left(visit: Visit) -> None:
    """Part by part, and once more number by number in the order of the first table."""
    rows = await table(visit.page, "#bytes-table")
    parts = [bytes.fromhex(digits) for _, _, digits in rows]
    assert [len(part) for part in parts[:3]] == [1, 16, 32]
    assert [int(size) for _, size, _ in rows] == [len(part) for part in parts]
    assert b"".join(parts) == visit.reports[0]
    numbers = await table(visit.page, "#masked-table")
    columns = list(zip(*(row[1:] for row in numbers), strict=True))
    shown = "".join(digits for column in columns for digits in column)
    assert bytes.fromhex(shown) == visit.reports[0][HEADER_BYTES:]


async def test_the_receipt_says_what_was_sent_and_what_it_cost(visit: Visit) -> None:
    """In words, of the SDK itself."""
    words = await visit.page.inner_text("#receipt-words")
    assert "was sent and accepted" in words
    assert f"{len(visit.reports[0])} bytes" in words
    assert "epsilon 1" in words


async def test_the_answer_is_verified_and_has_its_uncertainty(visit: Visit) -> None:
    """All simulated people and this visitor, each once; an interval beside each estimate."""
    checks = await visit.page.inner_text("#checks")
    assert f"The sum of {PEOPLE + 1} reports" in checks
    assert "one of them is yours" in checks
    assert "Signed by the collector and by each of the 2 helpers" in checks
    rows = await table(visit.page, ".chart:first-child")
    assert [row[0] for row in rows] == MODES
    for _, estimate, interval, _ in rows:
        low, high = (float(it.replace("−", "-")) for it in interval.split(" to "))
        assert low < float(estimate.replace("−", "-")) < high


async def test_the_page_keeps_to_its_policy_and_to_two_origins(visit: Visit, up: Up) -> None:
    """No violation, no complaint, and nobody is asked but the page's origin and the collector."""
    assert await visit.page.evaluate("() => violations") == []
    assert visit.complaints == []
    elsewhere = [it.url for it in visit.requests if not it.url.startswith((up.page, up.collector))]
    assert elsewhere == []


async def test_a_violation_would_be_noticed(context: BrowserContext, up: Up) -> None:
    """The control of the test above: a picture from elsewhere is blocked and complained of."""
    visit = await opened(context, up)
    # A later answer of the page's own server comes after the violation was told.
    async with visit.page.expect_response("**/now.json"):
        await visit.page.evaluate("(url) => { new Image().src = url }", "http://127.0.0.1:9/x.png")
    found = await visit.page.evaluate("() => violations")
    assert found == ["img-src http://127.0.0.1:9/x.png"]
    assert visit.complaints != []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_is_in_the_way_of_a_screen_reader(visit: Visit, scheme: str) -> None:
    """No finding of axe, with every step filled in."""
    await visit.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    found = await visit.page.evaluate("async () => (await axe.run()).violations")
    assert findings(found) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_neither_is_there_at_the_beginning_or_after_leaving(
    browser: Browser, up: Up, scheme: str
) -> None:
    """The two other faces of the page."""
    context = await browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    visit = await opened(context, up)
    found = await visit.page.evaluate("async () => (await axe.run()).violations")
    await visit.page.goto(f"{up.page}/left.html")
    found += await visit.page.evaluate("async () => (await axe.run()).violations")
    assert findings(found) == []
    await context.close()


def findings(found: list[dict[str, Any]]) -> list[str]:
    """One line for each place."""
    return [f"{it['id']}: {node['html']}" for it in found for node in it["nodes"]]


async def test_it_fits_a_phone(visit: Visit) -> None:
    """Nothing but the tables in their own frames is wider than the screen."""
    await visit.page.set_viewport_size({"width": PHONE, "height": 740})
    width = await visit.page.evaluate("() => document.scrollingElement.scrollWidth")
    await visit.page.set_viewport_size({"width": 1100, "height": 900})
    assert width <= PHONE


async def test_leaving_sends_the_report(context: BrowserContext, up: Up) -> None:
    """Who follows the link away and comes back finds the receipt of what left meanwhile."""
    visit = await opened(context, up)
    page = visit.page
    await keep_by_keyboard(page)
    await page.wait_for_selector("#receipt:not([hidden])")
    if await page.is_visible("#leave"):
        await page.click("#leave")
        await page.wait_for_selector("text=You left.")
    await page.goto(up.page)
    await page.wait_for_selector("#receipt:not([hidden])")
    said = await page.inner_text("#receipt-words")
    assert f"{REPORT_BYTES} bytes, sent" in said
    assert "was made as the page was left" in await page.inner_text("#send-words")


async def test_stopping_deletes_what_was_kept(context: BrowserContext, up: Up) -> None:
    """Records and receipts are gone, and stay gone after a reload."""
    visit = await opened(context, up)
    page = visit.page
    await keep_by_keyboard(page)
    await page.wait_for_selector("#kept:not([hidden])")
    await page.click("#withdraw")
    await page.wait_for_selector("#kept[hidden]", state="attached")
    await page.reload()
    await page.wait_for_selector("#round[data-state=open]")
    assert not await page.is_visible("#kept")
    assert not await page.is_visible("#receipt")
    assert "stores nothing" in await page.inner_text("#consent-words")


async def test_a_release_that_was_touched_is_not_shown(
    context: BrowserContext, visit: Visit, up: Up
) -> None:
    """One bit of the artefact differs: the page says so, and shows no answer."""
    del visit  # there is a release by now

    async def touch(route: Route) -> None:
        answer = await route.fetch()
        body = bytearray(await answer.body())
        body[-1] ^= 1
        await route.fulfill(response=answer, body=bytes(body))

    await context.route(f"{up.collector}/v1/releases/*", touch)
    page = (await opened(context, up)).page
    await page.wait_for_selector("#answer-words >> text=not valid")
    assert not await page.is_visible("#answer")
