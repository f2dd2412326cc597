"""Proxies that lose, delay and reorder what two processes say to each other, on purpose.

One between collector and store, one between collector and each helper. "Executed, but the reply
was lost" finds most mistakes in retries; "late" is its sibling, where the request is executed
after the caller has given up and asked again on another connection.
"""

import asyncio
import contextlib
import hashlib
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.collector.proxy import _read_value as read_value

LATE_S: Final = 3.0


class Fault(StrEnum):
    """What may happen to one exchange."""

    DROP_REQUEST = "request dropped"
    DROP_REPLY = "reply dropped"
    DELAY = "delayed"
    LATE = "executed late"
    CUT = "unreachable"


@dataclass
class Weather:
    """How often what goes wrong; changed while proxies run. `counts` says what did go wrong."""

    rng: random.Random
    shares: Mapping[Fault, float] = field(default_factory=dict)
    delay_s: float = 0.2
    counts: Counter[str] = field(default_factory=Counter)

    def draw(self) -> Fault | None:
        """The fault of the next exchange, if any."""
        at = self.rng.random()
        for fault, share in self.shares.items():
            at -= share
            if at < 0:
                return fault
        return None

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self.shares = {}


class Moments:
    """What passes the proxies, by name, so that a fault can hit just then."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self.counts: Counter[str] = Counter()

    def pass_(self, name: str) -> None:
        """Something of this name is under way now."""
        self.counts[name] += 1
        for future in self._waiting.pop(name, []):
            if not future.done():
                future.set_result(None)

    async def next(self, name: str) -> None:
        """Waits for the next one of this name."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append(future)
        await future


class Proxy(ABC):
    """Forwards one exchange at a time on each connection, between two Unix sockets.

    A fault closes the caller's connection, as a broken network would.
    """

    def __init__(self, listen: Path, target: Path, weather: Weather, name: str) -> None:
        self._listen = listen
        self._target = target
        self._weather = weather
        self._name = name
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        """One request; empty at the end."""

    @abstractmethod
    async def read_reply(self, reader: asyncio.StreamReader) -> bytes:
        """One reply; empty if the other side has gone."""

    def may_be_late(self, request: bytes) -> bool:
        """Whether this request could arrive alone, after its connection was given up."""
        return bool(request)

    def sent(self, request: bytes) -> None:  # noqa: B027 - nothing, unless overridden
        """Told of each request that is passed on."""

    def answered(self, request: bytes, reply: bytes) -> None:  # noqa: B027 - as above
        """Told of each reply, whether or not it is passed on."""

    async def __aenter__(self) -> Self:
        self._server = await self.listen()
        return self

    async def listen(self) -> asyncio.Server:
        """Starts listening."""
        return await asyncio.start_unix_server(self._accept, str(self._listen))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._keep(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.transport.abort()

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, to_them = await asyncio.open_unix_connection(str(self._target))
        try:
            while True:
                # Commands of one pipeline share their fate: they travel together.
                together = bool(getattr(reader, "_buffer", b""))
                if not (request := await self.read_request(reader)):
                    return
                fault = None if together else self._weather.draw()
                if fault is Fault.LATE and not self.may_be_late(request):
                    fault = Fault.DROP_REQUEST
                if fault is not None:
                    self._weather.counts[f"{self._name}: {fault}"] += 1
                if fault in (Fault.DROP_REQUEST, Fault.CUT):
                    return
                if fault is Fault.LATE:
                    self._keep(asyncio.create_task(self._late(request)))
                    return
                if fault is Fault.DELAY:
                    await asyncio.sleep(self._weather.rng.uniform(0, self._weather.delay_s))
                self.sent(request)
                to_them.write(request)
                reply = await self.read_reply(theirs)
                if not reply:
                    return
                self.answered(request, reply)
                if fault is Fault.DROP_REPLY:
                    return
                writer.write(reply)
                await writer.drain()
        finally:
            to_them.transport.abort()

    async def _late(self, request: bytes) -> None:
        """Delivers a request whose sender has given it up. Nobody hears the reply."""
        await asyncio.sleep(self._weather.rng.uniform(0, LATE_S))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_unix_connection(str(self._target))
            try:
                self.sent(request)
                writer.write(request)
                reply = await self.read_reply(reader)
                if reply:
                    self.answered(request, reply)
            finally:
                writer.transport.abort()


class StoreProxy(Proxy):
    """Between collector and store. Moments: `commit`, `seal`, `epoch`."""

    def __init__(
        self, listen: Path, target: Path, weather: Weather, moments: Moments | None = None
    ) -> None:
        super().__init__(listen, target, weather, "store")
        self._moments = moments or Moments()
        self._shas = {_sha(name): name for name in ("commit", "step", "epoch")}

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        return await read_value(reader)

    async def read_reply(self, reader: asyncio.StreamReader) -> bytes:
        return await read_value(reader)

    def may_be_late(self, request: bytes) -> bool:
        # A step of a transaction never travels alone.
        return b"EVAL" in request[:40]

    def sent(self, request: bytes) -> None:
        head = request[:120]
        for sha, name in self._shas.items():
            if sha in head:
                sealing = name == "step" and b"\r\nsealed\r\n" in request
                self._moments.pass_("seal" if sealing else name)


@dataclass(frozen=True)
class Exchange:
    """What a helper was told and what it said."""

    helper: str
    method: str
    path: str
    body: bytes
    status: int
    reply: bytes


class HelperProxy(Proxy):
    """Between collector and helper. Moments: `sign`, `ask`, `answer`. Keeps asks and answers."""

    def __init__(
        self,
        listen: Path,
        target: Path,
        weather: Weather,
        name: str,
        port: int,
        moments: Moments,
        record: Callable[[Exchange], None],
    ) -> None:
        super().__init__(listen, target, weather, name)
        self._port = port
        self._moments = moments
        self._record = record

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        return await _read_http(reader)

    async def read_reply(self, reader: asyncio.StreamReader) -> bytes:
        return await _read_http(reader)

    def sent(self, request: bytes) -> None:
        _, path = _line(request)
        for ending, name in (("/ask", "ask"), ("/answer", "answer"), ("/descriptors", "sign")):
            if path.endswith(ending):
                self._moments.pass_(name)

    def answered(self, request: bytes, reply: bytes) -> None:
        method, path = _line(request)
        status = int(reply.split(b" ", 2)[1])
        bodies = (request.partition(b"\r\n\r\n")[2], reply.partition(b"\r\n\r\n")[2])
        self._record(Exchange(self._name, method, path, bodies[0], status, bodies[1]))


def _line(request: bytes) -> tuple[str, str]:
    method, path, _ = request.partition(b"\r\n")[0].decode("latin-1").split(" ", 2)
    return method, path


async def _read_http(reader: asyncio.StreamReader) -> bytes:
    """One message with a Content-Length, or without content. Empty at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    length = 0
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return head + await reader.readexactly(length)


def _sha(script: str) -> bytes:
    text = files("collector").joinpath("scripts", f"{script}.lua").read_bytes()
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
