"""Many clients' reports, made in bulk and sent over connections that are kept open.

What it makes are real masked reports: a fresh key pair for each, one mask per helper. Client number
k sets one slot, `k mod slots`, to a weight of its own, so that the exact sum over any set of
clients is known (`truth`), and a report that is lost, doubled or taken for another shows.

What it sends goes out through a loop over `epoll` without an event loop's machinery, because the
generator shares the cores with what it measures: about 20 microseconds of core time for a report.
A report that is turned away for now, or whose connection breaks, is sent again with the same bytes.

Leaves out: what a client decides (`client_py`), and pace steering: this is load, not a population.
"""

import json
import select
import socket
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count as counter
from typing import Final

import numpy as np
import numpy.typing as npt

from dandelion import kernel
from dandelion.descriptor import Descriptor
from dandelion.params import KEY_BYTES, MEDIA_REPORT, MESSAGE_VERSION

Vector = npt.NDArray[np.int64]

_CHUNK: Final = 1_024
_CHUNK_WORDS: Final = 1 << 21
_RETRY_MAX_S: Final = 2.0
_RECONNECT_S: Final = 0.05
_SCAN_S: Final = 1.0
_READ: Final = 65_536


def slots_of(d: Descriptor, clients: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The slot that each client sets."""
    return clients % d.slots


def weights_of(d: Descriptor, clients: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The value that each client puts there, from 1 to linf."""
    mixed: npt.NDArray[np.uint64] = clients.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(32)) % np.uint64(d.linf)).astype(np.int64) + 1


def truth(d: Descriptor, clients: npt.NDArray[np.int64]) -> Vector:
    """The sum of these clients' vectors, shape (slots,)."""
    total = np.zeros(d.slots, dtype=np.int64)
    np.add.at(total, slots_of(d, clients), weights_of(d, clients))
    return total


def make(d: Descriptor, first: int, count: int, secrets: bytes) -> Iterator[bytes]:
    """The encoded reports of clients first .. first + count - 1, in parts of a thousand or less.

    `secrets` holds one ephemeral secret of 32 bytes for each.
    """
    if len(secrets) != count * KEY_BYTES:
        raise ValueError("one secret of 32 bytes for each client")
    mask_keys = b"".join(helper.mask_key for helper in d.helpers)
    head = bytes([MESSAGE_VERSION]) + d.round_id
    chunk = max(1, min(_CHUNK, _CHUNK_WORDS // d.slots))
    for start in range(0, count, chunk):
        end = min(start + chunk, count)
        clients = np.arange(first + start, first + end)
        values = np.zeros((end - start, d.slots), dtype=np.int64)
        values[np.arange(end - start), slots_of(d, clients)] = weights_of(d, clients)
        each = secrets[start * KEY_BYTES : end * KEY_BYTES]
        # One thread: the generator takes as many cores as it has processes.
        made = kernel.mask_many(d.suite, d.width, d.ctx, each, mask_keys, values, head, 1)
        yield b"".join(made)


def request_head(d: Descriptor, authority: str) -> bytes:
    """What stands before a report's bytes on the wire; the same for all reports of a round."""
    return (
        f"POST /v1/rounds/{d.round_id.hex()}/reports HTTP/1.1\r\nHost: {authority}\r\n"
        f"Content-Type: {MEDIA_REPORT}\r\nContent-Length: {d.report_bytes}\r\n\r\n"
    ).encode()


@dataclass(frozen=True)
class Job:
    """One report to send: what goes before it, its bytes, its client, and when it was due."""

    head: bytes
    body: bytes | memoryview
    client: int
    due: float


Source = Callable[[float], "Job | float | None"]
"""Gives the next report, or the moment when there will be one, or None when there are no more."""


def at_once(head: bytes, reports: bytes | bytearray, size: int, first: int) -> Source:
    """All of these reports, as fast as they can be taken: a closed loop.

    `reports` are those of clients `first`, `first` + 1, ..., of `size` bytes each.
    """
    view, numbers = memoryview(reports), iter(range(len(reports) // size))

    def source(now: float) -> Job | float | None:
        for index in numbers:
            return Job(head, view[index * size : (index + 1) * size], first + index, now)
        return None

    return source


@dataclass
class Outcomes:
    """What became of the reports.

    Attributes:
        counts: by outcome: `accepted`, `duplicate`, or the token of a refusal.
        again: how often a report had to be sent again, by reason.
        refused: clients that were refused for good.
        latencies: seconds from `due` to the answer, of those that were taken.
        began, ended: the first thing sent and the last answer, by the steady clock.
    """

    counts: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    refused: list[int] = field(default_factory=list)
    latencies: "array[float]" = field(default_factory=lambda: array("f"))
    began: float = 0.0
    ended: float = 0.0

    @property
    def taken(self) -> int:
        """Acknowledged reports."""
        return self.counts["accepted"] + self.counts["duplicate"]

    def add(self, other: "Outcomes") -> None:
        """Takes another sender's outcomes in."""
        self.counts.update(other.counts)
        self.again.update(other.again)
        self.refused += other.refused
        self.latencies.extend(other.latencies)
        self.began = min(self.began or other.began, other.began)
        self.ended = max(self.ended, other.ended)

    def percentiles(self, *of: float) -> list[float]:
        """Latencies in seconds; NaN if nothing was taken."""
        if not self.latencies:
            return [float("nan")] * len(of)
        return [float(it) for it in np.percentile(np.frombuffer(self.latencies, "f"), of)]


@dataclass
class _Connection:
    socket: socket.socket
    job: Job | None = None
    sent: float = 0.0
    buffer: bytes = b""
    rest: bytes = b""


class Sender:
    """A number of connections to one collector, each with one report under way at a time."""

    def __init__(
        self, host: str, port: int, connections: int, *, answer_timeout_s: float = 30.0
    ) -> None:
        self._address = (host, port)
        self._wanted = connections
        self._answer_timeout_s = answer_timeout_s
        self._poll = select.epoll()
        self._by_fd: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._later: list[tuple[float, int, Job]] = []
        self._order = counter()
        self._busy = 0
        self._connect_at = 0.0
        self.outcomes = Outcomes()

    def run(self, source: Source) -> Outcomes:
        """Sends what the source gives until there is no more and all is answered."""
        self.outcomes = Outcomes(began=time.monotonic())
        scanned = time.monotonic()
        while True:
            now = time.monotonic()
            self._connect(now)
            until, more = self._hand_out(source, now)
            if not (more or self._busy or self._later):
                break
            if now - scanned > _SCAN_S:
                scanned = now
                self._scan(now)
            for fd, events in self._poll.poll(max(0.0, min(until - now, _SCAN_S))):
                self._ready(self._by_fd[fd], events)
        self.outcomes.ended = time.monotonic()
        return self.outcomes

    def close(self) -> None:
        """Closes every connection."""
        for connection in list(self._by_fd.values()):
            self._drop(connection)
        self._poll.close()

    def _connect(self, now: float) -> None:
        while len(self._by_fd) < self._wanted and now >= self._connect_at:
            try:
                opened = socket.create_connection(self._address, timeout=5)
            except OSError:
                # Whoever is away comes back; a loop that tries all the time only takes its core.
                self.outcomes.again["no connection"] += 1
                self._connect_at = now + _RECONNECT_S
                return
            opened.setblocking(False)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(opened)
            self._by_fd[opened.fileno()] = connection
            self._poll.register(opened.fileno(), select.EPOLLIN)
            self._idle.append(connection)

    def _hand_out(self, source: Source, now: float) -> tuple[float, bool]:
        """Starts what is due. Returns until when there is nothing to start, and whether the source
        has more.
        """
        while self._idle and self._later and self._later[0][0] <= now:
            self._start(self._idle.popleft(), heappop(self._later)[2], now)
        until = self._later[0][0] if self._later and self._idle else now + _SCAN_S
        if len(self._by_fd) < self._wanted:
            until = min(until, max(now, self._connect_at))
        while self._idle:
            job = source(now)
            if job is None:
                return until, False
            if not isinstance(job, Job):
                return min(until, job), True
            self._start(self._idle.popleft(), job, now)
        return until, True

    def _start(self, connection: _Connection, job: Job, now: float) -> None:
        connection.job, connection.sent, connection.buffer = job, now, b""
        self._busy += 1
        try:
            done = connection.socket.sendmsg([job.head, job.body])
        except BlockingIOError:
            done = 0
        except OSError:
            self._broken(connection, "broken connection")
            return
        if done < len(job.head) + len(job.body):
            connection.rest = (job.head + bytes(job.body))[done:]
            self._poll.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _ready(self, connection: _Connection, events: int) -> None:
        try:
            if events & select.EPOLLOUT and connection.rest:
                done = connection.socket.send(connection.rest)
                connection.rest = connection.rest[done:]
                if not connection.rest:
                    self._poll.modify(connection.socket.fileno(), select.EPOLLIN)
            if not events & ~select.EPOLLOUT:
                return
            data = connection.socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._broken(connection, "broken connection")
            return
        connection.buffer += data
        head, found, body = connection.buffer.partition(b"\r\n\r\n")
        if not found or connection.job is None:
            return
        length = _header(head, b"Content-Length")
        if len(body) < int(length or 0):
            return
        self._answered(connection, int(head[9:12]), head, body)

    def _answered(self, connection: _Connection, status: int, head: bytes, body: bytes) -> None:
        job, connection.job, now = connection.job, None, time.monotonic()
        self._busy -= 1
        if _header(head, b"Connection").lower() == b"close":
            self._drop(connection)
        else:
            self._idle.append(connection)
        if job is None:
            return
        if status in (200, 201):
            self.outcomes.counts["accepted" if status == 201 else "duplicate"] += 1
            self.outcomes.latencies.append(now - job.due)
        elif status in (429, 503):
            self.outcomes.again[_token(body) or str(status)] += 1
            wait = float(_header(head, b"Retry-After") or 1)
            heappush(self._later, (now + min(wait, _RETRY_MAX_S), next(self._order), job))
        else:
            self.outcomes.counts[_token(body) or str(status)] += 1
            self.outcomes.refused.append(job.client)

    def _scan(self, now: float) -> None:
        for connection in list(self._by_fd.values()):
            if connection.job is not None and now - connection.sent > self._answer_timeout_s:
                self._broken(connection, "no answer in time")

    def _broken(self, connection: _Connection, reason: str) -> None:
        """The fate of the report under way, if any, is unknown: the same bytes go out again."""
        job, connection.job = connection.job, None
        if job is None:
            self._idle.remove(connection)
        else:
            self._busy -= 1
            self.outcomes.again[reason] += 1
            heappush(self._later, (time.monotonic() + _RECONNECT_S, next(self._order), job))
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        self._poll.unregister(connection.socket.fileno())
        del self._by_fd[connection.socket.fileno()]
        connection.socket.close()


def _header(head: bytes, name: bytes) -> bytes:
    """The value of a header, empty if it is not there; the name as this server writes it."""
    start = head.find(b"\r\n" + name + b": ")
    if start < 0:
        return b""
    start += len(name) + 4
    end = head.find(b"\r\n", start)
    return head[start:] if end < 0 else head[start:end]


def _token(body: bytes) -> str:
    try:
        return str(json.loads(body)["type"]).rpartition(":")[2]
    except (ValueError, KeyError, TypeError):
        return ""
