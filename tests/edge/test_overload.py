"""Who is told to come again and comes at once costs the others nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from collector import backpressure
from collector.backpressure import Held
from tests.collector.builders import FaultyStore, plain_report
from tests.collector.door import Door, door

ROOM, CLIENTS, TRIES = 5, 20, 10


class Insistent:
    """A client that sends its report again at once, on the same connection, until it is taken."""

    def __init__(self, it: Door, client: int) -> None:
        body = plain_report(it.d, client).encode()
        head = f"POST {it.path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
        self.request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self.port = it.node.public_port
        self.refused = 0
        self.statuses: list[bytes] = []

    async def insist(self, tries: int) -> None:
        """At most so many times."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for _ in range(tries):
                writer.write(self.request)
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(size)
                self.statuses.append(head[9:12])
                if head[9:12] == b"201":
                    return
                self.refused += 1
        finally:
            writer.transport.abort()


@pytest.fixture
async def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    """A collector without room: its store is away, and all places are taken."""
    monkeypatch.setattr(backpressure, "TURNS_PER_S", 0)
    store = FaultyStore()
    async with door(tmp_path, store, limits={"waiting_reports_max": ROOM, "answer_s": 30}) as it:
        assert await it.send(63) == 201
        store.blocked = True
        waiting = [asyncio.create_task(it.send(50 + client)) for client in range(ROOM)]
        while it.node.ingest.waiting_reports < ROOM:  # noqa: ASYNC110 - the door has no event
            await asyncio.sleep(0.01)
        yield it
        store.blocked = False
        await asyncio.gather(*waiting)


async def refused(clients: list[Insistent], count: int) -> None:
    """Waits until they were refused so often, all together."""
    async with asyncio.timeout(20):
        while sum(client.refused for client in clients) < count:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_each_connection_is_refused_once_and_read_when_there_is_room(full: Door) -> None:
    """Twenty clients that insist hear `overloaded` once each, although they sent again; as soon as
    there is room they are all taken."""
    clients = [Insistent(full, client) for client in range(CLIENTS)]
    tasks = [asyncio.create_task(client.insist(TRIES)) for client in clients]
    await refused(clients, CLIENTS)
    await asyncio.sleep(0.3)
    assert [client.refused for client in clients] == [1] * CLIENTS
    assert isinstance(full.node.store, FaultyStore)
    full.node.store.blocked = False
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks)
    assert all(client.statuses[-1] == b"201" for client in clients)


async def test_control_without_it_every_copy_is_answered(
    full: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nobody held, each of them is turned away as often as it likes."""
    monkeypatch.setattr(Held, "hold", lambda *_: None)
    clients = [Insistent(full, client) for client in range(CLIENTS)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(client.insist(TRIES) for client in clients))
    assert sum(client.refused for client in clients) == CLIENTS * TRIES


async def test_nobody_is_held_for_ever(full: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without any room, whoever sends again is told again in its turn."""
    monkeypatch.setattr(backpressure, "TURNS_PER_S", 1_000)
    clients = [Insistent(full, client) for client in range(CLIENTS)]
    async with asyncio.timeout(20):
        await asyncio.gather(*(client.insist(TRIES) for client in clients))
    assert all(client.statuses == [b"503"] * TRIES for client in clients)
