"""What HTTP itself may cost a service: connections, time, and bytes before a handler runs.

aiohttp reads for as long as a client likes to send, so every phase gets a deadline: the `sweeper`
cuts connections that do not bring a request or do not take their answer, `read_body` bodies that do
not arrive. A body is judged by its declared length before it is read (docs/protocol.md
section 10.2). Nothing is decompressed. What two parsers might read differently is refused.

A service may answer some requests the **short way**: after aiohttp's parser, without its tasks and
request objects. Everything above holds for those too.

Relies on private parts of aiohttp (`_request_in_progress`, `_request_count`, `_waiter`,
`_messages`, `_connections`, `_manager`, `_process_keepalive`, `_max_msg_queue_size`, `_cache`, the
class of a connection, what a parser returns); `tests/edge/test_guard.py` and
`tests/collector/test_express.py` fail if an upgrade changes them.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

import aiohttp.http_parser
from aiohttp import HttpVersion10, HttpVersion11, StreamReader, hdrs, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from dandelion.errors import RuleError, WireError
from dandelion.service import sweeper
from dandelion.service.doorstep import Doorstep
from dandelion.service.problems import problem_response, token_of_status
from dandelion.service.sweeper import Counters, Sweeper, spread

BACKLOG: Final = 2_048
_CONTINUE: Final = "100-continue"
_RANDOM: Final = random.SystemRandom()
_VERSIONS: Final = (HttpVersion10, HttpVersion11)


class Limits(sweeper.Limits, Protocol):
    """Connections, seconds, and bytes per second of a listener."""

    @property
    def connections_max(self) -> int:
        """Open connections."""

    @property
    def body_s(self) -> float:
        """What any body may take,"""

    @property
    def body_bytes_per_s(self) -> int:
        """and a second more for each so many bytes of it."""

    @property
    def linger_s(self) -> float:
        """For the unread rest of a refused body, about."""


# Told of a fault of ours.
Fault = Callable[[BaseException | None], None]


class ShortWay(Protocol):
    """Answers requests that need none of aiohttp's machinery."""

    def take(
        self, connection: "Connection", message: RawRequestMessage, body: StreamReader
    ) -> bool:
        """Whether it answers this request, of which every byte is there.

        If so it calls `connection.begin` now and `connection.end` later, and has read the body.
        If not it has done nothing, and the request goes the usual way.
        """


class Connection(RequestHandler):
    """A connection that brought something: garbage on it gets a problem document."""

    __slots__ = ("_behind", "_fault", "_short_way")

    _fault: Fault
    _short_way: ShortWay | None
    # What came and is to be read later: behind a request that goes the short way, and what a
    # connection begins with. None if there is nothing to wait for.
    _behind: bytes | None

    def begin_with(self, transport: asyncio.Transport, came: bytes) -> None:
        """Takes a connection over, with what came on it so far.

        That is read when aiohttp's task waits for it; a request before would miss the short way.
        """
        self._behind = came
        transport.set_protocol(self)
        self.connection_made(transport)
        self._loop.call_soon(self._go_on)

    def data_received(self, data: bytes) -> None:
        if self._behind is None:
            super().data_received(data)
            return
        # In order: what came before is still to be read, or to be answered.
        self._behind += data
        if self.transport is not None:
            self.transport.pause_reading()

    def sort(self, message: RawRequestMessage, body: StreamReader) -> bool:
        """Whether a request goes the short way: all of it is there and nothing is before it."""
        waiter = self._waiter
        return (
            self._short_way is not None
            and waiter is not None
            and not waiter.done()
            and not self._messages
            and body.is_eof()
            and body.exception() is None
            and message.version == HttpVersion11
            and not (message.should_close or message.upgrade or message.chunked)
            and self._short_way.take(self, message, body)
        )

    def begin(self) -> None:
        """A request goes the short way. Deadlines hold for it as for any other."""
        self._behind = b""
        self._request_count += 1
        self._request_in_progress = True

    def end(self, answer: bytes) -> None:
        """Answers the request that began; then what came behind it has its turn."""
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(answer)
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            if self._close or self._force_close:
                transport.close()
        self._go_on()

    def _process_keepalive(self) -> None:
        if self._behind is not None:
            # aiohttp's task waits while a request goes the short way: that is no idle connection.
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def _go_on(self) -> None:
        """Reads what waited."""
        behind, self._behind = self._behind, None
        if behind and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
            try:
                self.data_received(behind)
            except Exception as error:  # noqa: BLE001 - as a loop does with what it reads
                self._fault(error)
                self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that could not be parsed (4xx) or handled (5xx).

        aiohttp's own would quote the bytes, and its log the exception's message.
        """
        token = token_of_status(status)
        # A peer that has gone in the middle of its request is nobody's fault.
        if token == "internal" and not isinstance(exc, ConnectionError):  # noqa: S105 - section 12
            self._fault(exc)
        response = problem_response(token)
        response.force_close()
        return response


class _Sorting:
    """aiohttp's parser of one connection, without the requests that go the short way."""

    __slots__ = ("_connection", "_parser")

    def __init__(self, parser: Any, connection: Connection) -> None:
        self._parser = parser
        self._connection = connection

    def feed_data(self, data: bytes) -> tuple[Any, bool, bytes]:
        """Requests (message, body), whether the connection was upgraded, and the rest."""
        found: tuple[Any, bool, bytes] = self._parser.feed_data(data)
        messages, upgraded, _ = found
        if len(messages) == 1 and not upgraded and self._connection.sort(*messages[0]):
            self._parser.message_consumed()
            return (), False, b""
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


class _Server(web.Server):
    limit: int
    short_way: ShortWay | None
    counters: Counters
    fault: Fault
    sweeper: Sweeper
    doorsteps: dict[Doorstep, float]

    # aiohttp's annotation says that the first protocol of a connection is the last.
    def __call__(self) -> Doorstep:  # type: ignore[override]
        """The first protocol of a connection."""
        return Doorstep(self)

    def arrive(self, doorstep: Doorstep) -> bool:
        """Whether one more may come, if need be in the place of one that does nothing.

        Otherwise a few thousand silent connections would keep everybody out for `header_s`.
        """
        if self.open >= self.limit and not self.sweeper.make_room():
            self.counters.refused += 1
            return False
        self.doorsteps[doorstep] = self.sweeper.first_deadline()
        return True

    def enter(self, doorstep: Doorstep, came: bytes) -> None:
        """Makes aiohttp's connection for one that brought a head, or something else to answer."""
        made = Connection(self, loop=self._loop, **self._kwargs)
        made._fault = self.fault
        made._short_way = self.short_way
        # What is pipelined waits with its sender: up to 32 unread bodies would wait here.
        made._max_msg_queue_size, made._msg_queue_resume_size = 1, 0
        # What was refused together does not end together.
        made._lingering_time *= _RANDOM.uniform(0.5, 1.5)
        if self.short_way is not None:
            made._parser = cast(Any, _Sorting(made._parser, made))
        self.sweeper.expect(made, self.doorsteps.pop(doorstep))
        made.begin_with(doorstep.transport, came)

    @property
    def open(self) -> int:
        """Connections, with or without a request so far."""
        return len(self._connections) + len(self.doorsteps)

    def pre_shutdown(self) -> None:
        for doorstep in list(self.doorsteps):
            doorstep.transport.abort()
        super().pre_shutdown()


class Runner(web.AppRunner):
    """aiohttp's runner with guarded connections. `fault` is told of what went wrong in here."""

    def __init__(
        self,
        app: web.Application,
        limits: Limits,
        fault: Fault,
        short_way: ShortWay | None = None,
    ) -> None:
        if aiohttp.http_parser.HttpRequestParser is aiohttp.http_parser.HttpRequestParserPy:
            raise RuntimeError("aiohttp runs without its C parser; unset AIOHTTP_NO_EXTENSIONS")
        super().__init__(
            app,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=limits.keepalive_s,
            lingering_time=limits.linger_s,
            shutdown_timeout=2.0,
        )
        self._limits = limits
        self._fault = fault
        self._short_way = short_way
        self.counters = Counters()
        self._sweeper: asyncio.Task[None] | None = None

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.request_handler = _guarded(server.request_handler)
        # aiohttp has no argument for the class of a connection.
        server.__class__ = _Server
        guarded = cast(_Server, server)
        guarded.limit = self._limits.connections_max
        guarded.counters = self.counters
        guarded.fault = self._fault
        guarded.short_way = self._short_way
        guarded.doorsteps = {}
        guarded.sweeper = Sweeper(
            server._connections, guarded.doorsteps, self._limits, self.counters
        )
        self._sweeper = asyncio.create_task(guarded.sweeper.run())
        return server

    async def cleanup(self) -> None:
        """Ends listeners, connections and the sweeper."""
        await super().cleanup()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.wait({self._sweeper})

    @property
    def connections(self) -> int:
        """Open connections."""
        return cast(_Server, self.server).open if self.server is not None else 0


def _guarded(
    inner: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Refuses what aiohttp would let pass before any handler or middleware sees it.

    Other versions; expectations; targets that name an authority, and tunnels; a transfer coding in
    HTTP/1.0, which somebody in between did not understand (RFC 9112 section 6.1).
    """

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        headers = request.headers
        if (
            request.version not in _VERSIONS
            or (hdrs.EXPECT in headers and headers[hdrs.EXPECT].lower() != _CONTINUE)
            or not request.raw_path.startswith("/")
            or request.method == hdrs.METH_CONNECT
            or (request.version == HttpVersion10 and hdrs.TRANSFER_ENCODING in headers)
        ):
            # No answer claims a version that is not spoken here.
            request._cache["version"] = HttpVersion11
            response = problem_response("bad_request")
            response.force_close()
            return response
        return await inner(request)

    return handle


def require_plain(request: web.BaseRequest) -> None:
    """What holds for every request of either service, whatever its path.

    Raises:
        WireError: `length_required`: no body of any request is chunked.
        RuleError: `not_found`: every path has one spelling, and none needs an escape.
    """
    if hdrs.TRANSFER_ENCODING in request.headers:
        raise WireError("length_required")
    if "%" in request.raw_path.partition("?")[0]:
        raise RuleError("not_found")


async def expect_nothing_yet(request: web.Request) -> None:
    """Leaves `Expect: 100-continue` to `read_body`, which judges the length first."""


def body_length(request: web.BaseRequest) -> int:
    """The declared length of the body.

    Raises:
        WireError: `length_required`, `encoding_refused`.
    """
    size = request.content_length
    if size is None:
        raise WireError("length_required")
    if hdrs.CONTENT_ENCODING in request.headers:
        raise WireError("encoding_refused")
    return size


async def read_body(request: web.BaseRequest, size: int, limits: Limits) -> bytes:
    """Reads exactly `size` bytes, the declared length, before the deadline for that size.

    Raises:
        RuleError: `request_timeout`.
        WireError: `truncated`: the client closed its side before.
    """
    if hdrs.EXPECT in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    if request.content.is_eof() and request.content.exception() is None:
        # All of it came with the headers, as nearly always: there is nothing to wait for.
        return _whole(request.content.read_nowait(), size)
    try:
        async with asyncio.timeout(spread(limits.body_s + size / limits.body_bytes_per_s)):
            return await request.content.readexactly(size)
    except TimeoutError:
        raise RuleError("request_timeout") from None
    except (asyncio.IncompleteReadError, web.RequestPayloadError):
        raise WireError("truncated") from None


def _whole(body: bytes, size: int) -> bytes:
    if len(body) != size:
        raise WireError("truncated")
    return body
