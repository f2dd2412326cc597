"""Helpers that lie, babble, stall or refuse: nothing of it is used or passed on unjudged."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from collector.config import HelperPeer
from collector.helper_client import Helper, HelperRefused, HelperUnavailable, new_session
from collector.opening import open_round
from dandelion.encoding import identity_of
from dandelion.errors import DandelionError
from dandelion.params import MEDIA_ANSWER, MEDIA_PROBLEM
from dandelion.schemes import oneshot
from tests.collector.builders import COLLECTOR_SEED, HELPER_SEEDS, seed

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CTX = bytes(32)


class Stage:
    """A helper that answers as the test says."""

    def __init__(self) -> None:
        self.handler: Handler | None = None
        self.requests: list[web.Request] = []
        self.counted: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        assert self.handler is not None
        return await self.handler(request)

    def says(self, response: Callable[[], web.StreamResponse]) -> None:
        """Every request gets this answer."""

        async def handler(request: web.Request) -> web.StreamResponse:
            await request.read()
            return response()

        self.handler = handler

    def helper(self, session: aiohttp.ClientSession, timeout_s: float = 5) -> Helper:
        """The collector's view of it."""
        peer = HelperPeer(url=self.url, identity=seed("h").hex(), token="secret-token")
        return Helper(session, peer, timeout_s, self.counted.append)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A server whose answers the test decides."""
    it = Stage()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", it.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    it.url = f"http://{host}:{port}"
    yield it
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """The session of production."""
    async with new_session() as found:
        yield found


def reply(body: bytes, status: int = 200, **headers: str) -> Callable[[], web.Response]:
    """An answer."""
    return lambda: web.Response(body=body, status=status, headers=headers)


def refusal(kind: object, status: int = 409) -> Callable[[], web.Response]:
    """A problem document."""
    body = json.dumps({"type": kind}).encode()
    return lambda: web.Response(body=body, status=status, content_type=MEDIA_PROBLEM)


async def test_a_request_carries_the_token_and_nothing_of_others(
    stage: Stage, session: aiohttp.ClientSession
) -> None:
    """The bearer token goes along; cookies that were offered do not come back."""
    key = json.dumps({"mask_key": "11" * 32}).encode()
    stage.says(reply(key, 201, **{"Set-Cookie": "a=b"}))
    helper = stage.helper(session)
    assert await helper.new_key() == b"\x11" * 32
    assert await helper.new_key() == b"\x11" * 32
    for request in stage.requests:
        assert request.headers["Authorization"] == "Bearer secret-token"
        assert "Cookie" not in request.headers
    assert stage.counted == ["ok", "ok"]


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"no json", 201),
        reply(b"[]", 201),
        reply(b"{}", 201),
        reply(b'{"mask_key": 7}', 201),
        reply(b'{"mask_key": "zz"}', 201),
        reply(b'{"mask_key": "1111"}', 201),
        reply(b"x" * 100_000, 201),
        reply(b"", 200),
        reply(b"", 302, Location="http://127.0.0.1:9/"),
        reply(b"", 500),
        refusal("urn:dandelion:problem:overloaded", 503),
        refusal("urn:dandelion:problem:colour", 400),
        refusal("https://example.org/", 400),
        refusal(7, 400),
        lambda: web.Response(body=b"{", status=400, content_type=MEDIA_PROBLEM),
        # The library reads the number of a continued parameter as an integer, however long.
        reply(b"{}", 201, **{"Content-Type": f"text/plain; a*{'9' * 5_000}=b"}),
        reply(b"{}", 400, **{"Content-Type": f"text/plain; a*{'9' * 5_000}=b"}),
    ],
)
async def test_answers_that_are_no_key(
    stage: Stage, session: aiohttp.ClientSession, answer: Callable[[], web.Response]
) -> None:
    """Garbage, floods, redirects and passing troubles are all: not now."""
    stage.says(answer)
    with pytest.raises(HelperUnavailable):
        await stage.helper(session).new_key()


async def test_a_refusal_travels_with_its_token(
    stage: Stage, session: aiohttp.ClientSession
) -> None:
    """A token of the protocol's list is told to the caller."""
    stage.says(refusal("urn:dandelion:problem:budget_exhausted", 403))
    with pytest.raises(HelperRefused) as refused:
        await stage.helper(session).sign(b"descriptor")
    assert refused.value.token == "budget_exhausted"
    assert stage.counted == ["refused"]


async def test_a_helper_that_stalls(stage: Stage, session: aiohttp.ClientSession) -> None:
    """No answer within the time: not now."""

    async def stall(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    stage.handler = stall
    with pytest.raises(HelperUnavailable, match="timeout"):
        await stage.helper(session, timeout_s=0.1).new_key()
    assert stage.counted == ["unavailable"]


async def test_a_helper_that_is_not_there(session: aiohttp.ClientSession) -> None:
    """Nobody listens: not now."""
    stage = Stage()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        stage.url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(HelperUnavailable):
        await stage.helper(session).new_key()


async def test_polling_an_answer(stage: Stage, session: aiohttp.ClientSession) -> None:
    """202 says when to come again, whatever nonsense it says; 200 must be an answer."""
    helper = stage.helper(session)
    waits = [("3", 3.0), ("0", 0.0), ("99999999", 30.0)]
    waits += [(text, 1.0) for text in ("-1", "soon", "", "1.5", "9" * 10, "9" * 5_000, "\u0664")]
    for text, seconds in waits:
        stage.says(reply(b"", 202, **{"Retry-After": text}))
        assert await helper.answer(CTX, 0, 100) == seconds
        assert await helper.ask(CTX, 0, b"ask") == seconds
    stage.says(lambda: web.Response(body=b"answer", content_type=MEDIA_ANSWER))
    assert await helper.answer(CTX, 0, 100) == b"answer"
    stage.says(lambda: web.Response(body=b"answer", content_type="text/html"))
    with pytest.raises(HelperUnavailable):
        await helper.answer(CTX, 0, 100)


DOCUMENT = {
    "suite": 1,
    "slots": 4,
    "width": 32,
    "shard_bits": 0,
    "cohort_min": 2,
    "cohort_max": 100,
    "linf": 1,
    "l2sq": 1,
    "noise_var": 1,
    "scope": "test",
    "plan_bytes": "{}",
    "name": "q",
}


class Liar(Helper):
    """A helper whose key and signature the test decides."""

    def __init__(self, seed_: bytes, key: bytes, signature: bytes) -> None:
        self.identity = identity_of(seed_)
        self._key, self._given = key, signature

    async def new_key(self) -> bytes:
        return self._key

    async def sign(self, partial_envelope: bytes) -> bytes:
        return self._given


@pytest.mark.parametrize("case", ["small-order key", "equal keys", "wrong signature"])
async def test_a_round_is_not_opened_on_a_lie(case: str) -> None:
    """Keys and signatures are judged before anything is stored or shown."""
    keys = [oneshot.round_keys(seed(f"root {number}"))[1] for number in (1, 2)]
    if case == "small-order key":
        keys[0] = bytes(32)
    if case == "equal keys":
        keys[1] = keys[0]
    liars = [Liar(key, mask, bytes(64)) for key, mask in zip(HELPER_SEEDS, keys, strict=True)]
    with pytest.raises(DandelionError) as refused:
        await open_round(DOCUMENT, (1, 2, 3), helpers=liars, seed=COLLECTOR_SEED, partitions=1)
    expected = "bad_helpers" if case == "equal keys" else "helper_unavailable"
    assert refused.value.token == expected
