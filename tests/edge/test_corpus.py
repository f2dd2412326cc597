"""Hundreds of doubtful requests at every listener: refused or cut, and nothing has changed."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import pytest_asyncio
from aiohttp import web

from dandelion.errors import TOKENS
from tests.collector.builders import descriptor_for
from tests.edge.corpus import CANARY, GROUPS, SMUGGLED, Case, Target
from tests.edge.server import SHORT
from tests.edge.wire import Listener, answers, listener, talk

KINDS = ("collector", "admin", "helper")
COLLECTOR = pytest.mark.parametrize("it", ["collector"], indirect=True)
HELPER = pytest.mark.parametrize("it", ["helper"], indirect=True)
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
# All that a refusal may say in its headers.
HEADERS = {"server", "date", "content-type", "content-length", "connection", "cache-control"}
HEADERS |= {"x-content-type-options", "dandelion-window", "allow", "retry-after", "vary"}
AT_ONCE = 100
# Some of the corpus that aiohttp's own server takes as good requests.
TAKEN_BY_OTHERS = (
    "version 'HTTP/2.0'",
    "coding 'chunked'",
    "path with escaped digit",
    "http://x before the path",
    "coded 'identity', right size",
    "media 'image/png'",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def it(request: pytest.FixtureRequest) -> AsyncIterator[Listener]:
    """Each listener in turn, in a process of its own, with short deadlines."""
    async with listener(request.param, "--exact", **SHORT) as running:
        yield running


def cases_of(group: str, kind: str, target: Target) -> list[Case]:
    """The cases of a group that are refused by this kind of listener."""
    if group == "wrong_lengths" and kind != "collector":
        return []
    cases = list(GROUPS[group](target))
    # There is something to GET under the path that takes queries.
    return [case for case in cases if kind != "admin" or case.name != "method GET"]


def judge(case: Case, came: bytes) -> str:
    """What is wrong with the answer to a case, or nothing."""
    try:
        found = answers(came, bodiless=case.name == "method HEAD")
    except (ValueError, KeyError) as error:
        return f"not an answer: {error}"
    if len(found) > 1:
        return f"answered {len(found)} times: {came[:2_000]!r}"
    for answer in found:
        if not 400 <= answer.status < 500:
            return f"answered {answer.status}"
        if answer.token not in TOKENS or TOKENS[answer.token].status != answer.status:
            return f"not a problem: {answer}"
        if case.tokens and answer.token not in case.tokens:
            return f"answered {answer.token}"
        document = json.loads(answer.body)
        if not set(document) <= {"type", "title", "status", "detail"}:
            return f"more than a problem: {document}"
        if not set(answer.headers) <= HEADERS:
            return f"headers: {set(answer.headers) - HEADERS}"
    if CANARY.encode() in came:
        return "repeats what was sent"
    return ""


async def wrong(it: Listener, cases: list[Case], pieces: int) -> Iterator[str]:
    """What is wrong with the answers to these cases, each on a connection of its own."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> str:
        async with room:
            try:
                came = await talk(it.port, case.sent, pieces=pieces, hangs_up=case.hangs_up)
            except TimeoutError:
                return "neither answered nor cut"
        return judge(case, came)

    verdicts = await asyncio.gather(*(one(case) for case in cases))
    return (f"{case.name}: {it}" for case, it in zip(cases, verdicts, strict=True) if it)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("group", GROUPS)
async def test_doubtful_requests(it: Listener, request: pytest.FixtureRequest, group: str) -> None:
    """However they are cut into packets: 4xx once or cut, nothing stored, nothing echoed, nothing
    smuggled; and whoever comes next is served."""
    kind = request.node.callspec.params["it"]
    cases = cases_of(group, kind, it.where.target)
    before = await it.state()
    for pieces in (1, 3) if kind == "collector" else (1,):
        assert not list(await wrong(it, cases, pieces)), f"in {pieces} pieces"
    after = await it.state()
    assert after["stored"] == before["stored"]
    good = await it.good()
    assert good.status in {"collector": (201, 200), "admin": (201, 409), "helper": (404,)}[kind]


@pytest.mark.asyncio(loop_scope="module")
async def test_deadlines(it: Listener) -> None:
    """Silent, dripping, and without their body: cut or told so; and the listener works on."""
    target = it.where.target
    assert await talk(it.port, b"") == b""
    assert await talk(it.port, b"POST /v1/", pieces=9) == b""
    for part in (b"", target.body[:20]):
        [answer] = answers(await talk(it.port, target.request(target.size, body=part)))
        assert answer.token == "request_timeout"
    assert (await it.good()).status in (200, 201, 404, 409)


@HELPER
@pytest.mark.asyncio(loop_scope="module")
async def test_a_helper_says_continue_to_its_collector_only(it: Listener) -> None:
    """Who has no token is refused before a body is invited; who has one is invited once."""
    target = it.where.target
    expect = ("Expect: 100-continue", target.size, "Connection: close")
    stranger = replace(target, lines=())
    [answer] = answers(await talk(it.port, stranger.request(*expect, body=b"")))
    assert answer.token == "unauthorized"
    found = answers(await talk(it.port, target.request(*expect)))
    assert [answer.status for answer in found] == [100, 404]


@COLLECTOR
@pytest.mark.asyncio(loop_scope="module")
async def test_a_thousand_requests_in_one_go(it: Listener) -> None:
    """All are answered, in order; a report a thousand times is one report."""
    target = it.where.target
    await it.good()
    report, other = target.request(target.size), LIVE + LIVE.replace(b"/livez", b"/nothing")
    came = await talk(it.port, (report + other) * 333 + LAST)
    assert [answer.status for answer in answers(came)] == [200, 200, 404] * 333 + [200]


@COLLECTOR
@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_after_a_doubtful_request_is_read(it: Listener) -> None:
    """A thousand good requests behind a bad one: one refusal, and nothing else."""
    target = it.where.target
    bad = target.request(target.size, "Transfer-Encoding: chunked")
    [answer] = answers(await talk(it.port, bad + target.request(target.size) * 1_000))
    assert answer.status == 400


@COLLECTOR
@pytest.mark.asyncio(loop_scope="module")
async def test_a_body_is_no_request_whatever_it_upgrades_to(it: Listener) -> None:
    """Nothing is upgraded, and what is declared as a body is never read as a request."""
    target, size = it.where.target, f"Content-Length: {len(SMUGGLED)}"
    requests = []
    for protocol in ("websocket", "h2c", "TLS/1.0", "x"):
        upgrade = ("Connection: Upgrade", f"Upgrade: {protocol}", "HTTP2-Settings: AAMAAABk", size)
        for method, path in [("GET", "/livez"), ("POST", target.path), ("PUT", "/livez")]:
            made = target.request(*upgrade, method=method, target=path, body=SMUGGLED)
            requests.append(made)
    for came in await asyncio.gather(*(talk(it.port, request) for request in requests)):
        [answer] = answers(came)
        assert answer.status != 101


def test_the_corpus_is_large() -> None:
    """At least 200 requests, each under a name of its own."""
    d = descriptor_for()
    target = Target("/v1/rounds/x/reports", "text/plain", bytes(d.report_bytes))
    names = [f"{group}: {case.name}" for group in GROUPS for case in GROUPS[group](target)]
    assert len(names) == len(set(names)) >= 200


async def test_control_a_bare_server_takes_many_of_them() -> None:
    """Without the guard the same bytes are served, or what follows them is."""

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=201)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, keepalive_timeout=0.3)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    target = Target("/v1/rounds/x/reports", "text/plain", bytes(300))
    cases = {case.name: case for group in GROUPS.values() for case in group(target)}
    served = set()
    for name in TAKEN_BY_OTHERS:
        came = await talk(port, cases[name].request)
        served |= {name} if b" 201 " in came else set()
    await runner.cleanup()
    assert served == set(TAKEN_BY_OTHERS)
