"""Hundreds of doubtful requests at every listener: refused or cut, and nothing has changed."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from aiohttp import web

from dandelion.errors import TOKENS
from tests.collector.builders import descriptor_for
from tests.edge.corpus import CANARY, GROUPS, Case, Target
from tests.edge.server import SHORT
from tests.edge.wire import Listener, answers, listener, talk

KINDS = ("collector", "admin", "helper")
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
