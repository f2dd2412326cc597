"""Real HTTP with a collector that misbehaves: nothing raises, and the receipt says what it was."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from client_py.client import Client, Patience, SyncClient
from client_py.config import Policy
from client_py.receipts import Outcome, Receipt
from client_py.sqlite_store import SqliteStore
from client_py.store import MemoryStore
from client_py.transport import (
    LISTING_BYTES_MAX,
    REPLY_BYTES_MAX,
    HttpTransport,
    Reply,
    Timeouts,
    TransportError,
    read_listing,
    reply,
)
from dandelion.params import MEDIA_REPORT
from tests.client.builders import ROWS, Clock, Deployment
from tests.client.fake_collector import FakeCollector, Handler, refusal

HOME = Deployment()
QUICK = Timeouts(connect_s=1.0, total_s=0.5)


@pytest.fixture
async def collector() -> AsyncIterator[FakeCollector]:
    """A collector with one open round."""
    async with FakeCollector(HOME.round()) as running:
        yield running


async def contribute(endpoint: str, clock: Clock | None = None) -> list[Receipt]:
    """One call of a client that tries twice."""
    time = clock or Clock()
    async with HttpTransport(endpoint, QUICK) as transport:
        client = Client(
            HOME.config(endpoint),
            Policy(),
            MemoryStore(ROWS),
            transport,
            patience=Patience(attempts=2, step_s=0),
            clock=time,
            sleep=time.sleep,
        )
        return await client.contribute()


async def test_one_post_of_exactly_the_report(collector: FakeCollector) -> None:
    """The length is announced, the type is the report's, nothing identifies the client."""
    (receipt,) = await contribute(collector.endpoint)
    assert receipt.outcome is Outcome.ACCEPTED
    assert receipt.bytes_sent == len(collector.bodies[0])
    (headers,) = collector.headers
    assert headers["Content-Length"] == str(len(collector.bodies[0]))
    assert headers["Content-Type"] == MEDIA_REPORT
    assert not {"Cookie", "Authorization", "Transfer-Encoding"} & set(headers)


async def test_the_window_of_a_real_answer_is_kept(collector: FakeCollector) -> None:
    """`Dandelion-Window` reaches the store."""
    async with HttpTransport(collector.endpoint) as transport:
        answer = await transport.get_rounds()
    assert answer.window == (1_800_000_010, 1_800_000_020)
    assert len(read_listing(answer)) == 1


async def redirect(request: web.Request) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": "/elsewhere"})


async def crash(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500, body=b"Traceback (most recent call last)")


async def stall(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(1.0)
    return web.Response(status=201)


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=201, headers={"Content-Length": "1000"})
    await response.prepare(request)
    for _ in range(10):
        await response.write(b" ")
        await asyncio.sleep(0.1)
    return response


async def flood(request: web.Request) -> web.StreamResponse:
    return web.Response(status=201, body=b" " * (LISTING_BYTES_MAX + 1))


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=201)


async def not_http(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"220 smtp.example ESMTP\r\n\r\n")
    request.transport.close()
    return web.Response(status=201)


async def packed(request: web.Request) -> web.StreamResponse:
    return web.Response(
        status=201,
        body=b"not worth unpacking",
        headers={"Content-Encoding": "gzip"},
    )


HOSTILE: dict[str, tuple[Handler, str]] = {
    "redirect": (redirect, "redirected, which is refused"),
    "crash": (crash, "status 500"),
    "stall": (stall, "no answer in time"),
    "drip": (drip, "no answer in time"),
    "flood": (flood, "the answer is too large"),
    "hang up": (hang_up, "no connection, or not HTTP"),
    "not HTTP": (not_http, "no connection, or not HTTP"),
    "packed": (packed, "a content coding, which is refused"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_answer_to_a_report_shows_in_the_receipt(
    collector: FakeCollector, kind: str
) -> None:
    """The report waits; the receipt gives a fixed phrase, never the peer's words."""
    collector.behave, detail = HOSTILE[kind]
    (receipt,) = await contribute(collector.endpoint)
    assert (receipt.outcome, receipt.attempts) == (Outcome.WAITING, 2)
    assert receipt.detail == detail
    assert len(set(collector.bodies)) == 1
    assert collector.elsewhere == 0


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_answer_to_the_first_question_shows_in_the_receipt(
    collector: FakeCollector, kind: str
) -> None:
    """Without a list nothing is made."""
    collector.list_rounds, detail = HOSTILE[kind]
    (receipt,) = await contribute(collector.endpoint)
    assert (receipt.outcome, receipt.detail) == (Outcome.UNREACHABLE, detail)
    assert collector.bodies == []


async def test_a_followed_redirect_would_hand_the_report_to_somebody_else(
    collector: FakeCollector,
) -> None:
    """The control: a plain HTTP client follows a 307 and posts the body again, elsewhere."""
    import aiohttp

    collector.behave = redirect
    async with aiohttp.ClientSession() as session:
        url = f"{collector.endpoint}/v1/rounds/{'0' * 32}/reports"
        async with session.post(url, data=b"body") as response:
            assert response.status == 201
    assert collector.elsewhere == 1


async def test_a_refusal_over_http_is_understood(collector: FakeCollector) -> None:
    """A problem document ends it; `Retry-After` is read."""

    async def closed(request: web.Request) -> web.StreamResponse:
        return refusal("round_closed")

    async def full(request: web.Request) -> web.StreamResponse:
        return refusal("overloaded", **{"Retry-After": "77"})

    collector.behave = closed
    (receipt,) = await contribute(collector.endpoint)
    assert (receipt.outcome, receipt.token) == (Outcome.REJECTED, "round_closed")
    clock = Clock()
    collector.behave = full
    (receipt,) = await contribute(collector.endpoint, clock)
    assert (receipt.outcome, receipt.token) == (Outcome.WAITING, "overloaded")
    assert 77 <= clock.slept[0] <= 78


async def test_cookies_are_not_kept(collector: FakeCollector) -> None:
    """What a collector sets would mark this client in every later request."""
    seen: list[str | None] = []

    async def marking(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Cookie"))
        response = web.Response(status=503)
        response.set_cookie("you", "again")
        return response

    collector.list_rounds = marking
    await contribute(collector.endpoint)
    assert seen == [None, None]


def body(text: str) -> Reply:
    """A 200 with this body."""
    return Reply(200, text.encode())


def listed(envelope: object, round_id: str = "0" * 32, times: int = 1) -> Reply:
    """A list of rounds with this envelope."""
    return body(json.dumps({"rounds": [{"round": round_id, "envelope": envelope}] * times}))


@pytest.mark.parametrize(
    "answer",
    [
        body(""),
        body("[]"),
        body("7"),
        body("[" * 100_000),
        body("{}"),
        body('{"rounds":{}}'),
        body('{"rounds":[7]}'),
        listed("", round_id="00"),
        listed("", round_id="../" * 10 + "ab"),
        listed(7),
        listed("*"),
        listed("é"),
        listed("A" * 400_000),
        listed("", times=65),
        Reply(404, b'{"rounds":[]}'),
        Reply(200, b"\xff\xfe"),
    ],
)
def test_a_list_that_is_none_is_refused_as_one(answer: Reply) -> None:
    """One error for whatever a stranger may send."""
    with pytest.raises(TransportError):
        read_listing(answer)


@pytest.mark.parametrize(
    "header, value, read",
    [
        ("Retry-After", "120", 120),
        ("Retry-After", "-1", None),
        ("Retry-After", "1.5", None),
        ("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("Retry-After", "9" * 5_000, None),
        ("Retry-After", "²", None),
        ("Dandelion-Window", "5 9", (5, 9)),
        ("Dandelion-Window", "9 5", None),
        ("Dandelion-Window", "5", None),
        ("Dandelion-Window", "5  9", None),
        ("Dandelion-Window", "5 9 11", None),
        ("Dandelion-Window", f"5 {'9' * 50}", None),
    ],
)
def test_headers_that_make_no_sense_are_absent(header: str, value: str, read: object) -> None:
    """They are advice, so bad advice is no advice."""
    answer = reply(503, {header: value}, b"")
    assert (answer.retry_after if header == "Retry-After" else answer.window) == read


async def test_a_transport_is_entered_before_use() -> None:
    """Otherwise it says so like any other lack of connection."""
    with pytest.raises(TransportError, match="not connected"):
        await HttpTransport("http://127.0.0.1:9").get_rounds()


def test_limits_leave_room_for_what_is_real() -> None:
    """A list of a few full envelopes fits, an answer to a report is tiny."""
    assert LISTING_BYTES_MAX > 8 * 4 * 131_072 // 3
    assert REPLY_BYTES_MAX < 100_000


def test_the_synchronous_client_contributes(tmp_path: Path) -> None:
    """A program without an event loop: record, contribute, read the receipt; again is nothing new.

    The round is open by the machine's own clock, which is what this client goes by.
    """
    now = int(time.time())
    envelope = HOME.round(opens=now - 60, closes=now + 600, expires=now + 900)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    collector = FakeCollector(envelope)
    try:
        asyncio.run_coroutine_threadsafe(collector.__aenter__(), loop).result(10)
        with SqliteStore(tmp_path / "client") as store:
            store.events.record("flight", {"carrier": "UA", "dep_delay": 7}, now)
            client = SyncClient(HOME.config(collector.endpoint), Policy(), store)
            (receipt,) = client.contribute()
            assert receipt.outcome is Outcome.ACCEPTED
            assert client.contribute(early=True) == []
            assert store.receipts() == [receipt]
        assert len(collector.bodies) == 1
    finally:
        asyncio.run_coroutine_threadsafe(collector.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
