"""What HTTP itself may cost: connections, time, and bytes before a handler runs.

aiohttp reads for as long as a client likes to send, so every phase gets a deadline here: the
sweeper cuts connections that do not bring a request, `read_body` bodies that do not arrive. A
body is judged by its declared length before it is read (docs/protocol.md section 10.2). Nothing
is decompressed.

Relies on private parts of aiohttp (`_request_in_progress`, `_request_count`, the
class of a connection); `tests/collector/test_http_guard.py` fails if an upgrade changes them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, cast

import aiohttp.http_parser
from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.web_protocol import RequestHandler

from collector import logs
from collector.config import Limits
from collector.problems import problem_response, token_of_status
from dandelion.errors import RuleError, WireError

BACKLOG: Final = 2_048
SWEEP_S: Final = 0.5
_CONTINUE: Final = "100-continue"


class Counters:
    """What the guard did; read by the metrics."""

    def __init__(self) -> None:
        self.swept = 0
        self.refused = 0


class _Connection(RequestHandler):
    """A connection: refused beyond the limit, and garbage on it gets a problem document."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        manager = self._manager
        if isinstance(manager, _Server) and manager.full():
            manager.counters.refused += 1
            if isinstance(transport, asyncio.Transport):
                transport.abort()
            return
        super().connection_made(transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be parsed; aiohttp's own would quote the bytes."""
        if status >= 500:
            logs.event("internal", error=exc)
        response = problem_response("internal" if status >= 500 else token_of_status(status))
        response.force_close()
        return response


class _Server(web.Server):
    limit: int
    counters: Counters

    def full(self) -> bool:
        return len(self._connections) >= self.limit

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """aiohttp's runner with this service's connections and their limits."""

    def __init__(self, app: web.Application, limits: Limits) -> None:
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
        self._sweeper = asyncio.create_task(_sweep(server, self._limits, self.counters))
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
        return len(self.server.connections) if self.server is not None else 0


def _guarded(
    inner: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Refuses what aiohttp would let pass before any handler or middleware sees it."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        expect = request.headers.get(hdrs.EXPECT, _CONTINUE)
        versions = (HttpVersion10, HttpVersion11)
        if request.version not in versions or expect.lower() != _CONTINUE:
            response = problem_response("bad_request")
            response.force_close()
            return response
        return await inner(request)

    return handle


async def _sweep(server: web.Server, limits: Limits, counters: Counters) -> None:
    """Cuts connections that are slow to bring their first request, or to take an answer.

    aiohttp itself cuts those that idle after an answer, and `read_body` bodies that do not come.
    """
    since: dict[tuple[RequestHandler, int], float] = {}
    while True:
        await asyncio.sleep(min(SWEEP_S, limits.header_s / 4))
        now = time.monotonic()
        # A request is known by how many came before it on its connection.
        waited_for = [
            (connection, connection._request_count)
            for connection in server.connections
            if connection._request_count == 0 or connection._request_in_progress
        ]
        since = {key: since.get(key, now) for key in waited_for}
        for (connection, count), start in since.items():
            limit = limits.request_s if count else limits.header_s
            if now - start >= limit and connection.transport is not None:
                counters.swept += 1
                connection.transport.abort()


async def expect_nothing_yet(request: web.Request) -> None:
    """Leaves `Expect: 100-continue` to `read_body`, which judges the length first."""


def body_length(request: web.BaseRequest) -> int:
    """The declared length of the body.

    Raises:
        WireError: `length_required`, `encoding_refused`.
    """
    size = request.content_length
    if size is None or hdrs.TRANSFER_ENCODING in request.headers:
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
        async with asyncio.timeout(limits.body_s + size / limits.body_bytes_per_s):
            return await request.content.readexactly(size)
    except TimeoutError:
        raise RuleError("request_timeout") from None
    except (asyncio.IncompleteReadError, web.RequestPayloadError):
        raise WireError("truncated") from None


def _whole(body: bytes, size: int) -> bytes:
    if len(body) != size:
        raise WireError("truncated")
    return body
