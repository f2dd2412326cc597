"""What the short way of reports must not do to memory, and to a client that is owed one answer.

Also what a listener does with more connections than it takes, on the event loop of production:
transports of uvloop are no instances of asyncio's class.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from collector import backpressure
from collector.express import Express
from dandelion.service import http_guard
from tests.collector.builders import plain_report
from tests.collector.door import Door, door
from tests.collector.test_express import (
    Held,
    answers,
    changed,
    fresh,
    one_answer,
    request,
    short,
)
from tests.edge.server import SHORT
from tests.edge.wire import listener, talk

__all__ = ["short"]

# asyncio asks a writer to wait above this.
HIGH_WATER = 65_536


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Door]:
    """A door whose first report is in."""
    async with door(tmp_path, Held(), limits={"waiting_reports_max": 8}) as opened:
        await opened.send(0)
        yield opened
        assert opened.node.ingest.waiting_reports == 0


def express_of(it: Door) -> Express:
    """The short way of the door's process."""
    found = it.node.runner._short_way
    assert isinstance(found, Express)
    return found


def transports(it: Door) -> list[asyncio.Transport]:
    """The open connections of the process, from its side."""
    server = it.node.runner.server
    assert server is not None
    return [each.transport for each in server.connections if each.transport is not None]


async def unread(it: Door) -> int:
    """Bytes that the process keeps for a client that sends 500 reports and fetches no answer."""
    # Refused at once, and small enough that the socket of a process that stops reading takes them.
    body = request(it, changed(plain_report(it.d, 0).encode(), 17, bytes(32)))
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", it.node.public_port))
        await asyncio.sleep(0.05)
        for sent in range(500):
            await loop.sock_sendall(client, body)
            await asyncio.sleep(0.002)
            if sent == 0:
                # The kernel takes little, so that what nobody fetches stays with the process.
                for each in transports(it):
                    there = each.get_extra_info("socket")
                    there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        return max(each.get_write_buffer_size() for each in transports(it))


async def test_answers_that_nobody_fetches_do_not_pile_up(it: Door, short: list[bool]) -> None:
    """Above the high-water mark a report goes the long way, which waits for the reader."""
    assert await unread(it) < HIGH_WATER + 2_048
    assert short[0]
    assert not short[-1]


async def test_control_without_waiting_they_pile_up(
    it: Door, short: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each report adds its answer to what the process keeps, however much that is."""
    monkeypatch.setattr(http_guard.Connection, "writing_paused", False)
    assert await unread(it) > 2 * HIGH_WATER
    assert all(short)


async def test_what_was_answered_is_not_kept(it: Door, short: list[bool]) -> None:
    """No report keeps its connection until `answer_s` is over once it has its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.node.public_port)
    make = fresh(it)
    await asyncio.sleep(0.05)
    short.clear()
    for _ in range(20):
        writer.write(make())
        assert (await one_answer(reader))[9:12] == b"201"
    assert short == [True] * 20
    assert len(express_of(it)._line) <= 1
    writer.close()


async def test_connections_that_were_held_and_have_gone_are_forgotten(
    it: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take no turn: while nobody has room, they do not become more and more."""
    # One turn every quarter of a second.
    monkeypatch.setattr(backpressure, "TICK_S", 0.25)
    monkeypatch.setattr(backpressure, "TURNS_PER_S", 4)
    held = express_of(it)._held
    body = request(it, plain_report(it.d, 0).encode())
    it.node.ingest.waiting_reports += 8
    for _ in range(20):
        [answer] = await answers(it, body)
        assert b"overloaded" in answer
        for each in transports(it):
            # As the sweeper does when another one needs the place.
            each.abort()
    # A single turn passes over all of them.
    await asyncio.sleep(1.5 * backpressure.TICK_S)
    assert len(held) == 0
    it.node.ingest.waiting_reports -= 8


async def test_a_report_is_answered_once_whatever_follows_it(
    it: Door, short: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in what is pipelined behind a report is not a second answer to the report."""
    real = http_guard.Connection.data_received

    def received(self: http_guard.Connection, data: bytes) -> None:
        if self._behind is None and data.startswith(b"FAULT"):
            raise RuntimeError("a fault of ours")
        real(self, data)

    monkeypatch.setattr(http_guard.Connection, "data_received", received)
    store = it.node.store
    assert isinstance(store, Held)
    for lane in it.layout.lanes:
        # Its lane begins anew: the report has a task of its own.
        await it.node.ingest._committers.pop(lane).drain(1)
    store.gate.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", it.node.public_port)
    await asyncio.sleep(0.05)
    short.clear()
    writer.write(fresh(it)())
    await asyncio.sleep(0.05)
    writer.write(b"FAULT")
    await asyncio.sleep(0.05)
    store.gate.set()
    assert (await one_answer(reader))[9:12] == b"201"
    assert short == [True]
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            assert await reader.read(1) == b""
    writer.close()


async def test_a_report_does_not_overtake_a_request_of_the_long_way(
    it: Door, short: list[bool]
) -> None:
    """What could be answered at once waits for what came before it, whichever way that goes."""
    store = it.node.store
    assert isinstance(store, Held)
    store.gate.clear()
    slow = fresh(it)()
    quick = request(it, changed(plain_report(it.d, 0).encode(), 17, bytes(32)))
    asyncio.get_running_loop().call_later(0.3, store.gate.set)
    found = await answers(it, slow[:-5], slow[-5:], quick, count=2)
    assert [answer[9:12] for answer in found] == [b"201", b"400"]
    assert True not in short[1:]


async def test_a_chunked_report_is_refused_however_whole_it_is(it: Door, short: list[bool]) -> None:
    """411: no body is chunked, also one that adds up to a report in one segment."""
    body = plain_report(it.d, 3).encode()
    head = request(it, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    [answer] = await answers(it, head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
    assert answer[9:12] == b"411"
    assert True not in short[1:]


async def test_one_connection_too_many_hears_so_on_uvloop() -> None:
    """It is ended; it does not stay outside of every table, unread and unbounded."""
    limits = SHORT | {"header_s": 60, "body_s": 60, "keepalive_s": 60, "connections_max": 3}
    async with listener("collector", **limits) as it:
        target = it.where.target
        begun = target.request(target.size)[:-5]
        with ExitStack() as held:
            for _ in range(3):
                # A request under way: it does not make room.
                client = held.enter_context(socket.create_connection(("127.0.0.1", it.port)))
                client.sendall(begun)
            while (await it.state())["connections"] < 3:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
            assert await talk(it.port, target.request(target.size), seconds=5) == b""
            assert (await it.state())["refused"] == 1
