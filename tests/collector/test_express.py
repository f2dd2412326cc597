"""A report that goes the short way hears exactly what it would hear on the long way."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp.web_protocol import RequestHandler

from collector import express
from collector.store import LanePhase, MemoryStore
from dandelion.params import MEDIA_REPORT
from tests.collector.builders import plain_report
from tests.collector.door import Door, door

SITE = "https://www.example.org"
ROOM = 8
# The parts of an answer that may differ between two of the same.
VARIES = re.compile(rb"(Date|Retry-After|Dandelion-Window): [^\r]*")


class Held(MemoryStore):
    """Commits wait until `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, *arguments: Any) -> Any:
        await self.gate.wait()
        return await super().commit(*arguments)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What became of every report: whether it went the short way."""
    taken: list[bool] = []
    take = express.Express.take

    def seen(self: express.Express, connection: Any, message: Any, body: Any) -> bool:
        took = take(self, connection, message, body)
        if message.path.endswith("/reports"):
            taken.append(took)
        return took

    monkeypatch.setattr(express.Express, "take", seen)
    return taken


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Door]:
    """A door with little room, whose first report is in: its lane has begun."""
    limits = {"waiting_reports_max": ROOM, "answer_s": 1.0, "keepalive_s": 1.2, "header_s": 3.0}
    async with door(tmp_path, Held(), allowed_origins=[SITE], limits=limits) as opened:
        await opened.send(0)
        yield opened
        # Whatever became of the reports of a test, none still takes up room.
        assert opened.node.ingest.waiting_reports == 0


def request(it: Door, body: bytes, *headers: str, media: str = MEDIA_REPORT) -> bytes:
    """A POST of a report."""
    lines = [f"POST {it.path} HTTP/1.1", "Host: x", f"Content-Type: {media}"]
    lines += [f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def answers(it: Door, *parts: bytes, count: int = 1) -> list[bytes]:
    """Sends the parts, each as a segment of its own, and reads so many answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.node.public_port)
    # A first exchange: aiohttp's task for a connection must run before anything is taken from it.
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    await one_answer(reader)
    await asyncio.sleep(0.02)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0.03)
    try:
        async with asyncio.timeout(5):
            return [await one_answer(reader) for _ in range(count)]
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def one_answer(reader: asyncio.StreamReader) -> bytes:
    """One final answer with its body."""
    head = b""
    while not head or head.startswith(b"HTTP/1.1 100"):
        head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length is not None
    return head + await reader.readexactly(int(length[1]))


def parts_of(answer: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, headers in one order and without what varies, body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = VARIES.sub(rb"\1", head).split(b"\r\n")
    return status, sorted(lines), body


async def both(it: Door, short: list[bool], make: Callable[[], bytes]) -> int:
    """The status of a request that goes the short way; the long way must answer the same."""
    short.clear()
    [quick] = await answers(it, make())
    assert short == [True]
    short.clear()
    whole = make()
    [slow] = await answers(it, whole[:-5], whole[-5:])
    # Of a request whose body is not there the short way is not even asked.
    assert True not in short
    assert parts_of(quick) == parts_of(slow)
    return int(quick[9:12])


def fresh(it: Door, *headers: str, media: str = MEDIA_REPORT) -> Callable[[], bytes]:
    """Makes a report of another client each time."""
    clients = iter(range(1, 64))

    def make() -> bytes:
        return request(it, plain_report(it.d, next(clients)).encode(), *headers, media=media)

    return make


def changed(body: bytes, at: int, to: bytes) -> bytes:
    """The body with some bytes replaced."""
    return body[:at] + to + body[at + len(to) :]


@pytest.mark.parametrize(
    "media,headers",
    [
        (MEDIA_REPORT, ()),
        ("text/plain", (f"Origin: {SITE}",)),
        ("text/plain;charset=UTF-8", ("Origin: https://other.example", "Sec-Fetch-Mode: cors")),
    ],
    ids=["plain", "allowed origin", "other origin"],
)
async def test_a_first_report(
    it: Door, short: list[bool], media: str, headers: tuple[str, ...]
) -> None:
    """201, with the headers that the sender's browser needs."""
    assert await both(it, short, fresh(it, *headers, media=media)) == 201


async def test_the_same_again(it: Door, short: list[bool]) -> None:
    """200."""
    again = request(it, plain_report(it.d, 0).encode(), f"Origin: {SITE}")
    assert await both(it, short, lambda: again) == 200


async def test_another_payload_under_the_same_key(it: Door, short: list[bool]) -> None:
    """409, and nothing changes."""
    body = plain_report(it.d, 0).encode()
    before = await it.contents()
    assert await both(it, short, lambda: request(it, changed(body, 49, b"\x09"))) == 409
    assert await it.contents() == before


@pytest.mark.parametrize(
    "at,to", [(0, b"\x02"), (1, b"\x00"), (17, bytes(32))], ids=["version", "round", "key"]
)
async def test_wrong_bytes(it: Door, short: list[bool], at: int, to: bytes) -> None:
    """400 with the token of the first fault, and nothing changes."""
    body = plain_report(it.d, 5).encode()
    before = await it.contents()
    assert await both(it, short, lambda: request(it, changed(body, at, to))) == 400
    assert await it.contents() == before


async def test_a_sealed_lane(it: Door, short: list[bool]) -> None:
    """The process has not heard of the seal yet: 409 `round_closed`."""
    for lane in it.layout.lanes:
        await it.node.store.step(lane, LanePhase.SEALED)
    assert await both(it, short, fresh(it)) == 409


async def test_a_lost_lane(it: Door, short: list[bool]) -> None:
    """The store has forgotten the lane: the round is damaged, for everybody from now on."""
    it.node.store._lanes.clear()  # type: ignore[attr-defined]
    assert await both(it, short, fresh(it)) == 409


async def test_a_store_that_does_not_answer(it: Door, short: list[bool]) -> None:
    """503 after `answer_s`; the reports keep their room until the store has had them."""
    store = it.node.store
    assert isinstance(store, Held)
    store.gate.clear()
    assert await both(it, short, fresh(it, f"Origin: {SITE}")) == 503
    assert it.node.ingest.waiting_reports == 2
    store.gate.set()
    await asyncio.sleep(0.1)
    assert it.node.ingest.waiting_reports == 0
    assert (await it.contents())[0] == 3


@pytest.mark.parametrize("why", ["overloaded", "draining"])
async def test_no_room_or_no_time(it: Door, short: list[bool], why: str) -> None:
    """503 at once, with a moment to come again that is not the same for all."""
    ingest = it.node.ingest
    if why == "draining":
        ingest.draining = True
    else:
        ingest.waiting_reports += ROOM
    make = fresh(it)
    assert await both(it, short, make) == 503
    found = await answers(it, *(make() for _ in range(12)), count=12)
    if why == "overloaded":
        ingest.waiting_reports -= ROOM
    assert all(why.encode() in answer for answer in found)
    assert len({answer.split(b"Retry-After: ")[1][:1] for answer in found}) > 1


@pytest.mark.parametrize(
    "header",
    ["Expect: 100-continue", "Content-Encoding: gzip", "Sec-Fetch-Mode: navigate"],
)
async def test_what_is_not_plain_goes_the_long_way(
    it: Door, short: list[bool], header: str
) -> None:
    """The short way knows nothing of these."""
    await answers(it, fresh(it, header)())
    assert short == [False]


async def test_copies_at_the_same_time(it: Door, short: list[bool]) -> None:
    """One is the first, the other the same again, whichever way they take."""
    body = request(it, plain_report(it.d, 7).encode())
    found = await asyncio.gather(*(answers(it, body) for _ in range(4)))
    assert sorted(answer[9:12] for [answer] in found) == [b"200", b"200", b"200", b"201"]
    assert short == [True] * 4


async def test_answers_leave_in_the_order_of_requests(it: Door, short: list[bool]) -> None:
    """What comes behind a report waits for its answer, in one segment or in several."""
    make = fresh(it)
    other = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    store = it.node.store
    assert isinstance(store, Held)
    store.gate.clear()
    asyncio.get_running_loop().call_later(0.15, store.gate.set)
    found = await answers(it, make(), other, make() + other, count=4)
    assert [answer[9:12] for answer in found] == [b"201", b"200", b"201", b"200"]
    assert short[0]


async def test_a_client_that_left_is_counted_and_its_report_kept(
    it: Door, short: list[bool]
) -> None:
    """A tab that closes after its POST has contributed."""
    store = it.node.store
    assert isinstance(store, Held)
    store.gate.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", it.node.public_port)
    await asyncio.sleep(0.05)
    writer.write(fresh(it)())
    await asyncio.sleep(0.05)
    assert short == [True]
    writer.transport.abort()
    await asyncio.sleep(0.05)
    store.gate.set()
    await asyncio.sleep(0.1)
    assert (await it.contents())[0] == 2
    assert it.node.ingest.waiting_reports == 0
    assert it.node.metrics.snapshot()["reports_total|accepted"] == 2


async def test_a_connection_outlives_a_slow_answer_and_no_more(it: Door, short: list[bool]) -> None:
    """`keepalive_s` counts from the answer: longer waits do not cut a connection, silence does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.node.public_port)
    make = fresh(it)
    await asyncio.sleep(0.05)
    for _ in range(4):
        writer.write(make())
        assert (await one_answer(reader))[9:12] == b"201"
        await asyncio.sleep(0.4)
    assert short == [True] * 4
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_a_report_under_way_is_no_idle_connection(tmp_path: Path, short: list[bool]) -> None:
    """A store that needs longer than `keepalive_s`: the connection waits for its answer."""
    store = Held()
    limits = {"answer_s": 5, "keepalive_s": 0.4, "header_s": 5}
    async with door(tmp_path, store, limits=limits) as slow:
        await slow.send(0)
        short.clear()
        store.gate.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", slow.node.public_port)
        writer.write(fresh(slow)())
        asyncio.get_running_loop().call_later(1.0, store.gate.set)
        assert (await one_answer(reader))[9:12] == b"201"
        assert short == [True]
        writer.close()


async def test_a_fault_behind_a_report_ends_the_connection(
    tmp_path: Path, short: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read behind a report is read where nobody else catches: nobody waits for an answer
    that will not come."""
    feed = RequestHandler.data_received

    def broken(self: RequestHandler, data: bytes) -> None:
        if b"GET /livez" in data:
            raise RuntimeError("a fault of ours")
        feed(self, data)

    store = Held()
    async with door(tmp_path, store, limits={"keepalive_s": 60, "header_s": 60}) as it:
        await it.send(0)
        short.clear()
        store.gate.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", it.node.public_port)
        writer.write(fresh(it)())
        await asyncio.sleep(0.1)
        monkeypatch.setattr(RequestHandler, "data_received", broken)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.1)
        store.gate.set()
        assert (await one_answer(reader))[9:12] == b"201"
        with suppress(ConnectionError):
            async with asyncio.timeout(5):
                assert await reader.read() == b""
        assert short == [True]
        writer.close()
