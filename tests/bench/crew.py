"""The load generator's processes: what `load` does, on several cores, away from who measures.

Each member makes reports, keeps them, and sends them when told to. Its own core time is part of
every answer, since it shares the machine with what is measured.
"""

import hashlib
import itertools
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self
from urllib.parse import urlsplit

from dandelion.descriptor import Descriptor
from dandelion.params import KEY_BYTES
from tests.bench.load import Outcomes, Sender, at_once, make, request_head


@dataclass(frozen=True)
class Make:
    """Make the reports of clients first .. first + count - 1 and keep them."""

    descriptor: bytes
    first: int
    count: int
    seed: int


@dataclass(frozen=True)
class Send:
    """Send what was made to `endpoint`, over so many connections, and drop it."""

    endpoint: str
    connections: int


class Crew:
    """So many processes. Use as a context; they end with it."""

    def __init__(self, size: int) -> None:
        # Not forked: a copy of this process would hold its sockets and locks.
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_member, args=(there,), name=f"generator-{number + 1}")
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {process.name: process.pid or 0 for process in self._processes}

    def make(self, d: Descriptor, clients: int, seed: int, *, first: int = 0) -> None:
        """Every member makes its share of the clients' reports."""
        shares = _shares(first, clients, len(self._pipes))
        self._all([Make(d.encode(), start, count, seed) for start, count in shares])

    def send(self, endpoint: str, connections: int) -> Outcomes:
        """Everything that was made is sent, as fast as it is taken."""
        each = max(1, connections // len(self._pipes))
        outcomes = Outcomes()
        for part in self._all([Send(endpoint, each)] * len(self._pipes)):
            outcomes.add(part)
        return outcomes

    def _all(self, orders: Sequence[object]) -> list[Any]:
        for pipe, order in zip(self._pipes, orders, strict=True):
            pipe.send(order)
        return [pipe.recv() for pipe in self._pipes]


def secrets_of(seed: int, first: int, count: int) -> bytes:
    """Ephemeral secrets that a seed repeats; 32 bytes for each client."""
    return hashlib.shake_256(b"%d reports from %d" % (seed, first)).digest(count * KEY_BYTES)


def _shares(first: int, count: int, among: int) -> list[tuple[int, int]]:
    ends = [first + count * number // among for number in range(among + 1)]
    return [(start, end - start) for start, end in itertools.pairwise(ends)]


@dataclass
class _Kept:
    """The reports of one order."""

    descriptor: Descriptor
    first: int
    reports: bytearray = field(default_factory=bytearray)


def _member(pipe: Connection) -> None:
    """A member of the crew: does as it is told until nobody is there to tell it."""
    kept: list[_Kept] = []
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        match order:
            case Make():
                kept.append(_made(order))
                pipe.send(None)
            case Send():
                outcomes = _sent(kept, order)
                kept.clear()
                pipe.send(outcomes)


def _made(order: Make) -> _Kept:
    kept = _Kept(Descriptor.decode(order.descriptor), order.first)
    secrets = secrets_of(order.seed, order.first, order.count)
    for part in make(kept.descriptor, order.first, order.count, secrets):
        kept.reports += part
    return kept


def _sent(kept: Sequence[_Kept], order: Send) -> Outcomes:
    outcomes = Outcomes(began=time.monotonic())
    parts = urlsplit(order.endpoint)
    sender = Sender(parts.hostname or "", parts.port or 80, order.connections)
    try:
        for each in kept:
            head = request_head(each.descriptor, parts.netloc)
            size = each.descriptor.report_bytes
            outcomes.add(sender.run(at_once(head, each.reports, size, each.first)))
    finally:
        sender.close()
    return outcomes
