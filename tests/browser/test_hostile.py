"""A page whose collector is hostile: it never throws, never hangs, and sends nothing it should not.

Time-outs are not waited for here: the package's own tests have a clock that they move.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import BrowserContext, Page

from tests.browser.collectors import DEPLOYMENT, HostileCollector, open_now, options, reports
from tests.browser.site import Handler, Site
from tests.client.fake_collector import refusal

ROWS: Final = [{"carrier": "UA", "dep_delay": 7}]
# More than the package reads of any answer, and less than this sends if nobody stops it.
MANY_BYTES: Final = 64 * 2**20
CHUNK: Final = bytes(2**16)
HTML: Final = "<!doctype html><title>Welcome to the hotel</title><script>alert(1)</script>"

pytestmark = pytest.mark.asyncio(loop_scope="module")


def fixed(body: str | bytes, status: int = 200, media: str = "application/json") -> Handler:
    """Always the same answer."""

    async def answer(_: web.Request) -> web.Response:
        content = body.encode() if isinstance(body, str) else body
        return web.Response(body=content, status=status, content_type=media)

    return answer


def listed(round_id: object, envelope: object) -> Handler:
    """A list of one round."""
    return fixed(json.dumps({"rounds": [{"round": round_id, "envelope": envelope}]}))


def redirect(status: int) -> Handler:
    """Sends the page elsewhere, where everybody is welcome."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    return answer


async def window(_: web.Request) -> web.Response:
    """A list, and a window that is none."""
    return web.json_response({"rounds": []}, headers={"Dandelion-Window": "9" * 5_000})


async def cut(request: web.Request) -> web.StreamResponse:
    """Less than was promised, then nothing."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"rounds"')
    assert request.transport is not None
    request.transport.abort()
    return response


ANSWERS: Final[Mapping[str, Handler]] = {
    "301": redirect(301),
    "302": redirect(302),
    "307": redirect(307),
    "500": fixed("no", 500),
    "503 that lies": fixed('{"type":"urn:dandelion:problem:round_closed"}', 503),
    "html": fixed(HTML, media="text/html"),
    "html as json": fixed(HTML),
    "empty": fixed(""),
    "204": fixed("", 204),
    "cut": cut,
    "window": window,
    "deep": fixed("[" * 500_000),
    "not utf-8": fixed(b"\xff" * 1_000),
}
LISTINGS: Final[Mapping[str, Handler]] = {
    "null": fixed("null"),
    "rounds of another type": fixed('{"rounds": {"length": 1}}'),
    "prototype": fixed('{"__proto__": {"rounds": []}, "rounds": [{"__proto__": null}]}'),
    "many rounds": fixed(json.dumps({"rounds": [{"round": "0" * 32, "envelope": ""}] * 10_000})),
    "round of another type": listed(7, "AAAA"),
    "envelope of another type": listed("0" * 32, ["AAAA"]),
    "not base64": listed("0" * 32, "!!!!"),
    "random envelope": listed("0" * 32, base64.b64encode(bytes(range(256)) * 100).decode()),
    "descriptor that claims to be huge": listed(
        "0" * 32, base64.b64encode(b"\xff\xff\xff\xff" + bytes(1_000)).decode()
    ),
    "long envelope": listed("0" * 32, "A" * 3_000_000),
}


class Stream:
    """An answer that goes on and on; `ended` once the page has had enough."""

    def __init__(self, chunk: bytes = CHUNK, pause_s: float = 0) -> None:
        self.chunk = chunk
        self.pause_s = pause_s
        self.sent = 0
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await response.prepare(request)
            while self.sent < MANY_BYTES:
                await response.write(self.chunk)
                self.sent += len(self.chunk)
                self.begun.set()
                await asyncio.sleep(self.pause_s)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.ended.set()
        return response


class Watched:
    """A page with a client of a hostile collector, and what it complains of."""

    def __init__(self, page: Page, collector: HostileCollector) -> None:
        self.page = page
        self.collector = collector
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught {error}"))
        page.on("console", self._heard)
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))

    def _heard(self, message: Any) -> None:
        # What the browser itself says of a failed request names the collector.
        if not message.location["url"].startswith(self.collector.endpoint):
            self.complaints.append(f"{message.type}: {message.text}")

    async def visit(self) -> None:
        """Records a row and joins, as far as the collector lets it."""
        given = options(self.collector.endpoint)
        await self.page.evaluate("([o, r]) => visit(o, 'flight', r)", [given, ROWS])

    async def goes_on(self) -> None:
        """Frames go by, and rows are recorded."""
        ticks = await self.page.evaluate("ticks")
        await self.page.wait_for_function("(ticks) => window.ticks > ticks + 3", arg=ticks)
        await self.page.evaluate("([row]) => client.record('flight', row)", ROWS)

    async def troubles(self) -> list[str]:
        """What was thrown, said or left unhandled since the last time, in a page that goes on."""
        await self.goes_on()
        found = [*await self.page.evaluate("troubles.splice(0)"), *self.complaints]
        self.complaints.clear()
        return found


@asynccontextmanager
async def at_a_hostile_collector(context: BrowserContext) -> AsyncIterator[Watched]:
    """A page of an origin of its own, and a collector with one good round."""
    async with (
        Site() as site,
        HostileCollector(DEPLOYMENT.envelope(open_now())) as collector,
    ):
        page = await context.new_page()
        await page.goto(site.origins[0])
        yield Watched(page, collector)


@pytest_asyncio.fixture(loop_scope="module")
async def watched(context: BrowserContext) -> AsyncIterator[Watched]:
    """One page at a collector of its own."""
    async with at_a_hostile_collector(context) as made:
        yield made


async def test_a_bad_list_of_rounds_does_nothing(watched: Watched) -> None:
    """One after the other, whatever it is: nothing is sent, neither at once nor at the end."""
    unwell: dict[str, list[str]] = {}
    watched.collector.list_rounds = ANSWERS["500"]
    await watched.visit()
    for name, answer in {**ANSWERS, **LISTINGS}.items():
        watched.collector.list_rounds = answer
        asked = len(watched.collector.seen)
        await watched.page.evaluate("client.flush({ early: true })")
        assert len(watched.collector.seen) > asked, name
        if troubles := await watched.troubles():
            unwell[name] = troubles
    assert unwell == {}
    await watched.page.goto("about:blank")
    assert reports(watched.collector.seen) == []
    assert watched.collector.elsewhere == 0


async def test_a_bad_answer_to_a_report_leaves_it_waiting(context: BrowserContext) -> None:
    """Whatever it is: the report is kept, sent again as it is, and its receipt says so."""

    async def after(answer: Handler) -> tuple[str, int, int, list[str]]:
        async with at_a_hostile_collector(context) as watched:
            watched.collector.behave = answer
            await watched.visit()
            await watched.page.evaluate("client.flush()")
            [told] = await watched.page.evaluate("client.receipts()")
            sent = {each.body for each in reports(watched.collector.seen)}
            elsewhere = watched.collector.elsewhere
            return told["outcome"], len(sent), elsewhere, await watched.troubles()

    found = await asyncio.gather(*(after(answer) for answer in ANSWERS.values()))
    assert dict(zip(ANSWERS, found, strict=True)) == dict.fromkeys(ANSWERS, ("waiting", 1, 0, []))


async def test_a_good_answer_to_a_report_ends_it(watched: Watched) -> None:
    """The control of what is above: 201 accepts, a problem with its own status refuses."""
    await watched.visit()
    await watched.page.evaluate("client.flush()")
    [told] = await watched.page.evaluate("client.receipts()")
    assert told["outcome"] == "accepted"
    watched.collector.envelopes.append(DEPLOYMENT.envelope(open_now(cohort_max=1_999)))
    watched.collector.behave = lambda _: answered("round_closed")
    await watched.page.evaluate("client.flush({ early: true })")
    told = (await watched.page.evaluate("client.receipts()"))[-1]
    assert (told["outcome"], told["token"]) == ("rejected", "round_closed")
    assert await watched.troubles() == []


async def answered(token: str) -> web.Response:
    """A refusal."""
    return refusal(token)


@pytest.mark.parametrize("which", ["list", "report"])
async def test_an_answer_without_end_is_ended(watched: Watched, which: str) -> None:
    """The page reads no more than it has to and goes on; the answer never was complete."""
    stream = Stream()
    if which == "list":
        watched.collector.list_rounds = stream
    else:
        watched.collector.behave = stream
    await watched.visit()
    await watched.page.evaluate("client.flush({ early: true })")
    await asyncio.wait_for(stream.ended.wait(), 30)
    assert stream.sent < MANY_BYTES
    assert await watched.troubles() == []


async def test_a_page_goes_on_while_an_answer_trickles(watched: Watched) -> None:
    """A byte now and then: frames go by, rows are recorded, and a withdrawal ends the request."""
    stream = Stream(b" ", pause_s=0.02)
    watched.collector.list_rounds = stream
    await watched.page.evaluate("(o) => start(o)", options(watched.collector.endpoint))
    await watched.page.wait_for_function("client !== undefined")
    await asyncio.wait_for(stream.begun.wait(), 30)
    await watched.goes_on()
    assert not stream.ended.is_set()
    await watched.page.evaluate("client.setConsent(false)")
    await asyncio.wait_for(stream.ended.wait(), 30)
    assert await watched.troubles() == []


async def test_troubles_of_a_page_are_noticed(watched: Watched) -> None:
    """The control of `troubles`: what is thrown, said or left unhandled is in the list."""
    await watched.visit()
    for trouble in (
        "setTimeout(() => { throw new Error('one'); })",
        "void Promise.reject(new Error('two'))",
        "console.error('three')",
    ):
        await watched.page.evaluate(f"() => {{ {trouble} }}")
    await watched.page.wait_for_function("troubles.length === 2")
    said = " ".join(await watched.troubles())
    assert [word for word in ("one", "two", "three") if word not in said] == []


async def test_a_redirect_would_be_followed(watched: Watched) -> None:
    """The control of the redirects: a careless page follows them, with its report."""
    watched.collector.behave = redirect(307)
    path = f"{watched.collector.endpoint}/v1/rounds/{'0' * 32}/reports"
    await watched.page.evaluate("(url) => fetch(url, { method: 'POST', body: 'a report' })", path)
    assert watched.collector.elsewhere == 1
