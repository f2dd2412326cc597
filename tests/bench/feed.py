"""Reports at a steady rate, for many rounds at once: a maker and a sender, a process each.

The maker takes orders, so many reports of a round, and hands parts of them to the sender in turns,
so that the reports of overlapping rounds are mixed. The sender keeps a stock of parts and sends by
the clock: report number k is due at `begin + k / rate`, and its latency counts from then, whether
or not a connection was free. A server that stands still for a second therefore shows in every
report that was due in that second. If the maker is behind, nothing is due meanwhile: that is the
generator's fault and is counted as such (`starved_s`).
"""

import multiprocessing
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final, Self
from urllib.parse import urlsplit

from dandelion.descriptor import Descriptor
from tests.bench.crew import secrets_of
from tests.bench.load import Job, Outcomes, Sender, make, request_head

# Reports in a part, and how many parts of a round are made before it is another's turn.
PART: Final = 256
_STOCK_S: Final = 3.0


@dataclass(frozen=True)
class Order:
    """Reports of clients first .. first + count - 1 for one round."""

    descriptor: bytes
    first: int
    count: int


@dataclass(frozen=True)
class Part:
    """Some made reports, all of one round; an empty one is the last."""

    head: bytes
    size: int
    first: int
    reports: bytes


@dataclass(frozen=True)
class Fed:
    """What the sender did. `starved_s` is for how long it had nothing to send."""

    outcomes: Outcomes
    starved_s: float


class Feed:
    """The two processes. Use as a context; give orders, then `finish`."""

    def __init__(self, endpoint: str, rate: float, connections: int, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._orders, orders = context.Pipe()
        made, parts = context.Pipe()
        self._result, result = context.Pipe()
        # Only the two ends that talk stay open: an end that is closed is how each hears of the
        # other's.
        self._processes = [
            context.Process(
                target=_maker, args=(orders, made, endpoint, seed), name="generator-maker"
            ),
            context.Process(
                target=_sender,
                args=(parts, result, endpoint, rate, connections),
                name="generator-sender",
            ),
        ]
        for process in self._processes:
            process.start()
        for pipe in (orders, made, parts, result):
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.close()
        for process in self._processes:
            process.join(timeout=5)
            process.kill()
            process.join()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {process.name: process.pid or 0 for process in self._processes}

    def order(self, descriptor: Descriptor, first: int, count: int) -> None:
        """Adds reports of one round to what is made."""
        self._orders.send(Order(descriptor.encode(), first, count))

    def finish(self, timeout_s: float) -> Fed:
        """No more orders: what is ordered is made and sent, then this returns.

        Raises:
            TimeoutError: it takes longer than that.
        """
        self._orders.send(None)
        if not self._result.poll(timeout_s):
            raise TimeoutError("the sender has not ended")
        fed: Fed = self._result.recv()
        return fed


def _maker(orders: Connection, parts: Connection, endpoint: str, seed: int) -> None:
    authority = urlsplit(endpoint).netloc
    queue: deque[tuple[Descriptor, int, int]] = deque()
    more = True
    while more or queue:
        # Waits for an order only if there is nothing else to do.
        while more and (not queue or orders.poll()):
            try:
                order = orders.recv()
            except EOFError:
                return  # whoever gave orders has given up
            if order is None:
                more = False
            else:
                queue.append((Descriptor.decode(order.descriptor), order.first, order.count))
        if not queue:
            continue
        d, first, left = queue.popleft()
        count = min(PART, left)
        secrets = secrets_of(seed, first, count)
        reports = b"".join(make(d, first, count, secrets))
        try:
            parts.send(Part(request_head(d, authority), d.report_bytes, first, reports))
        except BrokenPipeError:
            return
        if left > count:
            queue.append((d, first + count, left - count))
    parts.send(Part(b"", 1, 0, b""))


class _Steady:
    """A source that gives reports by the clock."""

    def __init__(self, parts: Connection, rate: float) -> None:
        self._parts = parts
        self._rate = rate
        self._stock: deque[Part] = deque()
        self._at = 0
        self._due = 0.0
        self._hungry_since = 0.0
        self._ended = False
        self.starved_s = 0.0

    def __call__(self, now: float) -> Job | float | None:
        if now < self._due:
            return self._due
        if not self._stock or len(self._stock) * PART < _STOCK_S * self._rate:
            self._fill()
        if not self._stock:
            if self._ended:
                return None
            self._hungry_since = self._hungry_since or now
            return now + 0.005
        if self._hungry_since:
            self.starved_s += now - self._hungry_since if self._due else 0.0
            self._hungry_since, self._due = 0.0, now
        part = self._stock[0]
        start = self._at * part.size
        # Without `or now` the first report would be due at the beginning of time.
        job = Job(
            part.head,
            memoryview(part.reports)[start : start + part.size],
            part.first + self._at,
            self._due or now,
        )
        self._due = job.due + 1 / self._rate
        self._at += 1
        if self._at * part.size >= len(part.reports):
            self._stock.popleft()
            self._at = 0
        return job

    def _fill(self) -> None:
        while not self._ended and self._parts.poll():
            try:
                part: Part = self._parts.recv()
            except EOFError:
                self._ended = True
                return
            if not part.reports:
                self._ended = True
            else:
                self._stock.append(part)
            if len(self._stock) * PART >= _STOCK_S * self._rate:
                return


def _sender(
    parts: Connection, result: Connection, endpoint: str, rate: float, connections: int
) -> None:
    where = urlsplit(endpoint)
    sender = Sender(where.hostname or "", where.port or 80, connections)
    source = _Steady(parts, rate)
    try:
        outcomes = sender.run(source)
    finally:
        sender.close()
    with suppress(BrokenPipeError):
        result.send(Fed(outcomes, source.starved_s))
