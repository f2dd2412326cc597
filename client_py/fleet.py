"""Many clients in one process, over real HTTP: for demonstrations, tests and benchmarks.

Each client is a real `Client` with a store of its own; only its transport differs from the
product's. What a fleet measures should be the protocol and the server, so each of a bounded number
of connections speaks the little HTTP/1.1 it needs and no more. The list of rounds is fetched once:
in the field it comes out of a cache.

Clients may misbehave in ways that the protocol must bear: vanish before they send, send twice, or
lose an answer.
"""

import asyncio
import random
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

from client_py.admit import RoundCache
from client_py.client import Client, Patience
from client_py.config import PinnedConfig, Policy
from client_py.receipts import Receipt
from client_py.store import MemoryStore, Pending
from client_py.transport import (
    LISTING_BYTES_MAX,
    HttpTransport,
    Reply,
    Transport,
    TransportError,
    judge,
    read_listing,
    reply,
)
from dandelion.params import MEDIA_REPORT
from dandelion.queries.measures import Row

HEADER_BYTES_MAX: Final = 16_384
# Nobody watches when the clients of a simulation send.
AT_ONCE: Final = Patience(step_s=0)

ClientEvents = Mapping[str, Sequence[Row]]
"""The rows of one client, by event."""


@dataclass(frozen=True)
class Behaviour:
    """Shares of clients, each between 0 and 1, drawn independently.

    Attributes:
        never_send: make and store a report, then vanish.
        send_twice: send the same bytes again after they were acknowledged.
        lose_answer: lose the first answer, so that the client has to try again.
    """

    never_send: float = 0.0
    send_twice: float = 0.0
    lose_answer: float = 0.0


@dataclass
class FleetResult:
    """What a fleet did.

    Attributes:
        outcomes: number of receipts by outcome; a refusal is `refused:<token>`, likewise
            `rejected:<token>`; vanished clients are `vanished`.
        acknowledged: by round id, the indices of the clients whose report was acknowledged,
            ascending.
        again: outcomes of what `send_twice` sent a second time.
        seconds: wall time of the whole run.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    acknowledged: dict[str, list[int]] = field(default_factory=dict)
    again: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Acknowledged reports per second."""
        count = sum(len(indices) for indices in self.acknowledged.values())
        return count / self.seconds if self.seconds else 0.0


async def run_fleet(
    config: PinnedConfig,
    policy: Policy,
    clients: Sequence[ClientEvents],
    *,
    rounds: Sequence[bytes] | None = None,
    connections: int = 64,
    behaviour: Behaviour = Behaviour(),
    patience: Patience = AT_ONCE,
    seed: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> FleetResult:
    """Lets every client contribute once.

    Args:
        config, policy: the same for all clients.
        clients: what each client holds.
        rounds: envelopes of the rounds to answer; None asks the collector once.
        connections: how many clients are busy at a time, each on a connection of its own.
        behaviour: shares of clients that misbehave.
        seed: makes coins, row samples and behaviour repeatable; keys are fresh in any case.
        progress: called now and then with the number of clients that are done.

    Raises:
        TransportError: the list of rounds could not be fetched.
    """
    if rounds is None:
        async with HttpTransport(config.endpoint) as transport:
            listed = read_listing(await transport.get_rounds())
        rounds = [each.envelope for each in listed]
    # Keys never come from here, so a seed costs no secrecy.
    rng = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311
    fleet = _Fleet(config, policy, clients, rounds, behaviour, patience, rng, progress)
    started = time.monotonic()
    queue = iter(range(len(clients)))
    async with asyncio.TaskGroup() as group:
        for _ in range(min(connections, len(clients))):
            group.create_task(fleet.work(queue))
    for indices in fleet.result.acknowledged.values():
        indices.sort()
    fleet.result.seconds = time.monotonic() - started
    return fleet.result


class _Fleet:
    """What the workers of one run share."""

    def __init__(
        self,
        config: PinnedConfig,
        policy: Policy,
        clients: Sequence[ClientEvents],
        rounds: Sequence[bytes],
        behaviour: Behaviour,
        patience: Patience,
        rng: random.Random,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._config = config
        self._policy = policy
        self._clients = clients
        self._rounds = rounds
        self._behaviour = behaviour
        self._patience = patience
        self._rng = rng
        self._progress = progress
        self._cache = RoundCache()
        self._done = 0
        self.result = FleetResult()

    async def work(self, queue: Iterator[int]) -> None:
        """One connection: takes the next client until none is left."""
        connection = FleetTransport(self._config.endpoint)
        try:
            for index in queue:
                await self._client(index, connection)
                self._done += 1
                if self._progress is not None:
                    self._progress(self._done)
        finally:
            connection.close()

    async def _client(self, index: int, connection: "FleetTransport") -> None:
        vanishes = self._draw(self._behaviour.never_send)
        twice = self._draw(self._behaviour.send_twice)
        loses = self._draw(self._behaviour.lose_answer)
        transport: Transport = connection
        if twice or loses:
            transport = _Misbehaving(connection, twice, loses, self.result.again)
        client = Client(
            self._config,
            self._policy,
            MemoryStore(self._clients[index]),
            transport,
            cache=self._cache,
            patience=self._patience,
            rng=self._rng,
        )
        if vanishes:
            for envelope in self._rounds:
                made = client.prepare(envelope)
                self.result.outcomes["vanished" if isinstance(made, Pending) else _name(made)] += 1
            return
        for receipt in await client.contribute(self._rounds):
            self.result.outcomes[_name(receipt)] += 1
            if receipt.outcome.delivered:
                self.result.acknowledged.setdefault(receipt.round_id, []).append(index)

    def _draw(self, share: float) -> bool:
        return share > 0 and self._rng.random() < share


class _Misbehaving:
    """A connection whose client loses its first answer, or sends a second time."""

    def __init__(
        self, inner: "FleetTransport", twice: bool, loses: bool, again: Counter[str]
    ) -> None:
        self._inner = inner
        self._twice = twice
        self._loses = loses
        self._again = again

    async def get_rounds(self) -> Reply:
        return await self._inner.get_rounds()

    async def post_report(self, round_id: bytes, body: bytes) -> Reply:
        answer = await self._inner.post_report(round_id, body)
        if self._loses:
            self._loses = False
            raise TransportError("the answer was lost")
        if self._twice and judge(answer).outcome.delivered:
            repeated = judge(await self._inner.post_report(round_id, body))
            self._again[str(repeated.outcome)] += 1
        return answer


class FleetTransport:
    """A `Transport` of one connection that is kept open, for one exchange at a time."""

    def __init__(self, endpoint: str, *, timeout_s: float = 30.0) -> None:
        parts = urlsplit(endpoint)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._authority = parts.netloc
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None

    async def get_rounds(self) -> Reply:
        head = f"GET /v1/rounds HTTP/1.1\r\nHost: {self._authority}\r\n\r\n"
        return await self._exchange(head.encode())

    async def post_report(self, round_id: bytes, body: bytes) -> Reply:
        head = (
            f"POST /v1/rounds/{round_id.hex()}/reports HTTP/1.1\r\nHost: {self._authority}\r\n"
            f"Content-Type: {MEDIA_REPORT}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return await self._exchange(head.encode() + body)

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _exchange(self, request: bytes) -> Reply:
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._connection is None or self._connection.is_closed:
                    self._connection = await self._connect()
                return await self._connection.exchange(request)
        except TimeoutError:
            self.close()
            raise TransportError("no answer in time") from None
        except OSError:
            self.close()
            raise TransportError("no connection") from None

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            _Connection, self._host, self._port, ssl=self._tls
        )
        return connection


class _Connection(asyncio.Protocol):
    """HTTP/1.1 answers with a Content-Length, one after the other; anything else ends it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answer: asyncio.Future[Reply] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the next exchange needs a new connection."""
        return self._transport is None or self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail("the connection was closed")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            parsed = _parse(self._buffer)
        except TransportError as error:
            self._fail(str(error))
            self.close()
            return
        if parsed is not None:
            answer, keep = parsed
            self._buffer = b""
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(answer)
            if not keep:
                self.close()

    async def exchange(self, request: bytes) -> Reply:
        """Sends a request and waits for its answer.

        Raises:
            TransportError: no usable answer.
        """
        if self._transport is None:
            raise TransportError("the connection was closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(TransportError(reason))


def _parse(data: bytes) -> tuple[Reply, bool] | None:
    """The answer and whether the connection stays open; None if more bytes must come first.

    Raises:
        TransportError: not an answer that this reader knows.
    """
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        if len(data) > HEADER_BYTES_MAX:
            raise TransportError("the answer is too large")
        return None
    start, *lines = head.decode("latin-1").split("\r\n")
    version, _, after = start.partition(" ")
    if version != "HTTP/1.1" or not after[:3].isdigit():
        raise TransportError("not HTTP/1.1")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.title()] = value.strip()
    length = headers.get("Content-Length", "")
    if not length.isdigit() or int(length) > LISTING_BYTES_MAX:
        raise TransportError("an answer without a usable length")
    if len(rest) < int(length):
        return None
    keep = headers.get("Connection", "").lower() != "close" and len(rest) == int(length)
    return reply(int(after[:3]), headers, rest[: int(length)]), keep


def _name(receipt: Receipt | None) -> str:
    if receipt is None:
        return "known"
    return f"{receipt.outcome}:{receipt.token}" if receipt.token else str(receipt.outcome)
