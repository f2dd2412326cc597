"""Ends connections that hold a place for nothing: without a request, or with an answer that nobody
fetches.

Every deadline is drawn anew between once and `SPREAD` times its limit, and each connection is cut
at its own moment: thousands that came together would otherwise be cut, and come again, in one go,
and nobody else would be served meanwhile.

Leaves out: connections that idle after an answer, which aiohttp itself cuts, and bodies that do not
come (`http_guard.read_body`). Relies on the same private parts of aiohttp as `http_guard`.
"""

import asyncio
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from aiohttp.web_protocol import RequestHandler

from dandelion.service.doorstep import Doorstep

LOOK_S: Final = 0.5
SPREAD: Final = 1.25
_RANDOM: Final = random.SystemRandom()


class Limits(Protocol):
    """Seconds."""

    @property
    def header_s(self) -> float:
        """From a connection to its first request."""

    @property
    def request_s(self) -> float:
        """From the headers of a request to the last byte of its answer."""

    @property
    def keepalive_s(self) -> float:
        """What a connection may idle after an answer, or need to take the last one."""


@dataclass
class Counters:
    """What the guard did; read by the metrics."""

    swept: int = 0
    refused: int = 0


class _Wait(NamedTuple):
    """What is waited for. A request is known by how many came before it on its connection."""

    connection: RequestHandler
    before: int
    closing: bool


class Sweeper:
    """Looks at all connections of a listener again and again, and cuts those whose time is over.

    Args:
        connections: those that brought a head.
        doorsteps: those that did not, with the moment (loop time) at which each is cut.
    """

    def __init__(
        self,
        connections: Mapping[RequestHandler, asyncio.Transport],
        doorsteps: Mapping[Doorstep, float],
        limits: Limits,
        counters: Counters,
    ) -> None:
        self._connections = connections
        self._doorsteps = doorsteps
        self._limits = limits
        self._counters = counters
        self._due: dict[_Wait, float] = {}
        # Without a request at the last look: first those that never brought one.
        self._spare: deque[Doorstep | RequestHandler] = deque()

    async def run(self) -> None:
        """Until cancelled."""
        every = min(LOOK_S, self._limits.header_s / 4)
        while True:
            await asyncio.sleep(every)
            self._look(every)

    def first_deadline(self) -> float:
        """When a connection that comes now is cut, unless it brings the head of a request."""
        return asyncio.get_running_loop().time() + spread(self._limits.header_s)

    def expect(self, connection: RequestHandler, at: float) -> None:
        """A doorstep became this connection: if it brought no whole head, its time goes on."""
        self._due[_Wait(connection, 0, closing=False)] = at

    def make_room(self) -> bool:
        """Cuts one connection that does nothing, if there is one."""
        while self._spare:
            if self._end(self._spare.popleft()):
                return True
        return False

    def _end(self, spare: Doorstep | RequestHandler) -> bool:
        """Cuts it if it still brought nothing."""
        if isinstance(spare, Doorstep):
            transport = spare.transport if spare in self._doorsteps else None
        else:
            transport = self._connections.get(spare) if at_rest(spare) else None
        if transport is None or transport.is_closing():
            return False
        self._counters.swept += 1
        transport.abort()
        return True

    def _look(self, every: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for doorstep, last in self._doorsteps.items():
            if last < now + every:
                loop.call_at(last, self._end, doorstep)
        due: dict[_Wait, float] = {}
        silent: list[RequestHandler] = []
        idle: list[RequestHandler] = []
        for connection, transport in self._connections.items():
            if connection._manager is None:
                # Gone, while its request is still being handled.
                continue
            closing = transport.is_closing()
            if closing:
                # Closed with an answer in its buffer that nobody fetches: it would stay for ever.
                limit = self._limits.keepalive_s
            elif connection._request_count == 0:
                limit = self._limits.header_s
                silent.append(connection)
            elif connection._request_in_progress:
                limit = self._limits.request_s
            else:
                idle.append(connection)
                continue
            wait = _Wait(connection, _begun(connection), closing)
            if (at := self._due.get(wait)) is None:
                at = now + spread(limit)
            due[wait] = at
            if at < now + every:
                loop.call_at(at, self._cut, wait)
        self._due = due
        self._spare = deque([*self._doorsteps, *silent, *idle])

    def _cut(self, wait: _Wait) -> None:
        connection, before, closing = wait
        transport = self._connections.get(connection)
        if (
            transport is None
            or connection._manager is None
            or _begun(connection) != before
            or transport.is_closing() != closing
            or not (closing or connection._request_count == 0 or connection._request_in_progress)
        ):
            return
        self._counters.swept += 1
        transport.abort()


def at_rest(connection: RequestHandler) -> bool:
    """Whether a connection waits for a request."""
    return connection._waiter is not None and not connection._request_in_progress


def _begun(connection: RequestHandler) -> int:
    """How many requests were taken up so far: what is pipelined behind them renews no deadline."""
    return connection._request_count - len(connection._messages)


def spread(seconds: float) -> float:
    """A deadline for one of many."""
    return seconds * _RANDOM.uniform(1.0, SPREAD)
