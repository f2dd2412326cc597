"""What a listener gives to connections: places, time, and an end. The same guard on all of them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiohttp.web_protocol import RequestHandler

from collector.config import Limits
from dandelion.service import http_guard, sweeper
from dandelion.service.http_guard import Runner
from tests.edge.server import SHORT
from tests.edge.wire import answers, listener, talk

LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SLOW = Limits(header_s=60, keepalive_s=60, connections_max=20)


class Bare:
    """The guard around three handlers: `/livez`, `/hang` until told, `/large`."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.go_on = asyncio.Event()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.runner.addresses[0][1]
        return port

    async def live(self, _: web.BaseRequest) -> web.Response:
        """Says that it lives."""
        return web.Response()

    async def hang(self, _: web.BaseRequest) -> web.Response:
        """Answers when told."""
        await self.go_on.wait()
        return web.Response()

    async def large(self, _: web.BaseRequest) -> web.Response:
        """A little more than a socket takes from a writer whose reader does not read."""
        return web.Response(body=bytes(40_000))


@asynccontextmanager
async def bare(limits: Limits) -> AsyncIterator[Bare]:
    """A guarded listener of this process."""
    app = web.Application()
    runner = Runner(app, limits, lambda error: None)
    it = Bare(runner)
    for path, handler in {"/livez": it.live, "/hang": it.hang, "/large": it.large}.items():
        app.router.add_get(path, handler)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield it
    finally:
        it.go_on.set()
        await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that the other side does."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the other side has no event to wait for
            await asyncio.sleep(0.02)


async def hold(port: int, count: int, start: bytes, held: ExitStack) -> None:
    """Opens connections that send `start` and then nothing, for as long as `held` is open."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        client = held.enter_context(socket.socket())
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, start)


async def test_who_brings_nothing_costs_no_more_than_a_socket() -> None:
    """aiohttp makes none of its parsers and tasks for a connection before a head is there."""
    with ExitStack() as held:
        async with bare(SLOW) as it:
            await hold(it.port, 5, b"", held)
            await hold(it.port, 5, b"POST /v1/rounds", held)
            await hold(it.port, 5, b"POST /v1/rounds HTTP/1.1\r\nHost: x\r\nX: ", held)
            await until(lambda: it.runner.connections == 15)
            server = it.runner.server
            assert server is not None
            assert server.connections == []
            await hold(it.port, 1, LIVE, held)
            await until(lambda: len(server.connections) == 1)
            assert it.runner.connections == 16


async def test_a_head_in_pieces_is_a_head() -> None:
    """However a request is cut into packets, it is answered."""
    async with bare(SLOW) as it:
        for at in range(1, len(LAST)):
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            writer.write(LAST[:at])
            await asyncio.sleep(0.002)
            writer.write(LAST[at:])
            assert [a.status for a in answers(await reader.read())] == [200]
            writer.close()


@pytest.mark.parametrize(
    "start",
    [b"\x16\x03\x01\x00\xa5", b"get / HTTP/1.1", b"GET / HTTP/3.0\r\n"],
)
async def test_what_is_no_head_is_refused_at_once(start: bytes) -> None:
    """Nobody waits for the end of a head that cannot become one."""
    async with bare(SLOW) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(start)
        async with asyncio.timeout(20):
            assert [a.status for a in answers(await reader.read())] == [400]
        writer.close()


async def test_the_time_for_a_head_is_not_given_twice() -> None:
    """A head too long to be kept at the door goes to the parser, and its deadline with it."""
    with ExitStack() as held:
        async with bare(SLOW) as it:
            await hold(it.port, 1, b"", held)
            await until(lambda: it.runner.connections == 1)
            server = it.runner.server
            assert isinstance(server, http_guard._Server)
            (doorstep, at) = next(iter(server.doorsteps.items()))
            doorstep.data_received(b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 3_000)
            (connection,) = server.connections
            assert server.doorsteps == {}
            await asyncio.sleep(2 * sweeper.LOOK_S)
            assert server.sweeper._due == {(connection, 0, False): at}


@pytest.mark.parametrize("start", [b"", b"GET /li", LIVE], ids=["silent", "half", "idle"])
async def test_a_full_listener_makes_room(start: bytes) -> None:
    """When every place is taken by connections that bring nothing, the next client gets one."""
    with ExitStack() as held:
        async with bare(SLOW) as it:
            await hold(it.port, SLOW.connections_max, start, held)
            await until(lambda: it.runner.connections == SLOW.connections_max)
            # The sweeper must have seen them at rest.
            await asyncio.sleep(2 * sweeper.LOOK_S)
            for _ in range(5):
                assert [a.status for a in answers(await talk(it.port, LAST))] == [200]
            assert it.runner.counters.refused == 0


async def test_control_without_making_room_the_next_client_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With nothing to spare, a few silent connections keep everybody out."""
    monkeypatch.setattr(sweeper.Sweeper, "make_room", lambda _: False)
    with ExitStack() as held:
        async with bare(SLOW) as it:
            await hold(it.port, SLOW.connections_max, b"", held)
            await until(lambda: it.runner.connections == SLOW.connections_max)
            await asyncio.sleep(2 * sweeper.LOOK_S)
            assert await talk(it.port, LAST) == b""
            assert it.runner.counters.refused == 1


async def test_work_is_never_cut_to_make_room() -> None:
    """Where every connection has a request under way, the newcomer is refused, not the work."""
    async with bare(SLOW) as it:
        head = LAST.replace(b"/livez", b"/hang")
        working = [asyncio.create_task(talk(it.port, head)) for _ in range(SLOW.connections_max)]
        await until(lambda: it.runner.connections == SLOW.connections_max)
        await asyncio.sleep(2 * sweeper.LOOK_S)
        assert await talk(it.port, LAST) == b""
        it.go_on.set()
        for came in await asyncio.gather(*working):
            assert [answer.status for answer in answers(came)] == [200]


async def test_one_too_many_is_cut() -> None:
    """Who comes when all places are taken by work sees the end of the connection."""
    async with bare(Limits(header_s=60, keepalive_s=60, connections_max=2)) as it:
        with ExitStack() as held:
            await hold(it.port, 2, LIVE.replace(b"/livez", b"/hang"), held)
            await until(lambda: it.runner.connections == 2)
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            with suppress(ConnectionError):
                writer.write(LIVE)
                async with asyncio.timeout(20):
                    assert await reader.read() == b""
            assert it.runner.counters.refused == 1
            assert it.runner.connections == 2
            writer.close()


BODIES = b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)


async def waiting_bytes(it: Bare) -> int:
    """What a listener holds of forty pipelined bodies behind a request that hangs."""
    _, writer = await asyncio.open_connection("127.0.0.1", it.port)
    writer.write(LIVE.replace(b"/livez", b"/hang"))
    writer.write(BODIES * 40)
    held = 0
    for _ in range(20):
        await asyncio.sleep(0.05)
        assert it.runner.server is not None
        for connection in it.runner.server.connections:
            held = sum(payload._size for _, payload in connection._messages)
    writer.transport.abort()
    return held


async def test_pipelined_bodies_wait_with_their_sender() -> None:
    """Behind a request that hangs, one body at most is read."""
    async with bare(SLOW) as it:
        assert 0 < await waiting_bytes(it) <= 2 * 100_000


async def test_control_aiohttp_reads_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to itself it takes thirty-two requests ahead, with their bodies."""
    real = http_guard.Connection.begin_with

    def begin(self: http_guard.Connection, transport: asyncio.Transport, came: bytes) -> None:
        self._max_msg_queue_size, self._msg_queue_resume_size = 32, 16
        real(self, transport, came)

    monkeypatch.setattr(http_guard.Connection, "begin_with", begin)
    async with bare(SLOW) as it:
        assert await waiting_bytes(it) > 20 * 100_000


async def test_pipelined_requests_do_not_renew_the_time_of_the_one_before() -> None:
    """A request that hangs is cut in its time, however many more come behind it."""
    async with bare(Limits(header_s=1, keepalive_s=60, request_s=0.4)) as it:
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(LIVE.replace(b"/livez", b"/hang"))
        # uvloop says so if the connection is gone, asyncio writes into nowhere.
        with suppress(RuntimeError):
            for _ in range(20):
                writer.write(LIVE)
                await asyncio.sleep(0.2)
        assert it.runner.counters.swept == 1
        writer.close()


def unread(port: int) -> socket.socket:
    """A client that asks for much, fetches nothing, and stays."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listener's sockets take little, so an answer that nobody fetches stays with it."""
    real = http_guard.Connection.connection_made

    def made(self: http_guard.Connection, transport: asyncio.BaseTransport) -> None:
        there = transport.get_extra_info("socket")
        there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        real(self, transport)

    monkeypatch.setattr(http_guard.Connection, "connection_made", made)


CLOSING = LAST.replace(b"/livez", b"/large")


@pytest.mark.usefixtures("small_buffers")
async def test_a_last_answer_that_nobody_fetches_ends() -> None:
    """A connection that is closed with an answer on its way is cut if the client lets it lie."""
    async with bare(Limits(keepalive_s=0.4, header_s=0.4)) as it:
        client = unread(it.port)
        await asyncio.get_running_loop().sock_sendall(client, CLOSING)
        await until(lambda: it.runner.connections == 1)
        await until(lambda: it.runner.connections == 0)
        assert it.runner.counters.swept == 1
        client.close()


@pytest.mark.usefixtures("small_buffers")
async def test_control_without_the_sweeper_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp waits for such a client for ever."""

    async def asleep(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(sweeper.Sweeper, "run", asleep)
    async with bare(Limits(keepalive_s=0.4, header_s=0.4)) as it:
        client = unread(it.port)
        await asyncio.get_running_loop().sock_sendall(client, CLOSING)
        await until(lambda: it.runner.connections == 1)
        await asyncio.sleep(2)
        assert it.runner.connections == 1
        client.close()


async def test_a_helper_bounds_connections_before_it_knows_who_they_are() -> None:
    """Three hundred strangers at a door with fifty places: its collector still gets in."""
    async with listener(
        "helper", **SHORT | {"header_s": 30, "keepalive_s": 30}, connections_max=50
    ) as it:
        with ExitStack() as held:
            await hold(it.port, 300, b"", held)
            await asyncio.sleep(3 * sweeper.LOOK_S)
            state = await it.state()
            assert state["connections"] <= 50
            assert state["swept"] + state["refused"] >= 250
            assert (await it.good()).status == 404


def test_what_is_relied_on_exists() -> None:
    """The private parts of aiohttp that the guard uses are there."""
    for name in ("_request_in_progress", "_request_count", "_waiter", "_manager", "_messages"):
        assert name in RequestHandler.__slots__
    for name in ("_handler_waiter", "_next_keepalive_close_time", "_keepalive_timeout"):
        assert name in RequestHandler.__slots__
    for name in ("_max_msg_queue_size", "_msg_queue_resume_size"):
        assert name in RequestHandler.__slots__
    assert callable(RequestHandler._process_keepalive)
    request = make_mocked_request("GET", "/")
    assert request.version == request._cache["version"]
