"""Clients that take their time: thousands of connections that send nothing, or a byte now and then.

`silent` says nothing, `header` drips a head that never ends, `body` sends the head of a good report
and drips the body, `refused` drips the body of a report that was refused at once. Who is cut comes
again at once. One thread over `epoll`, so that what is measured keeps its cores. As a program it
runs until its standard input ends, then prints what happened as one JSON line.
"""

import argparse
import json
import resource
import select
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

KINDS = ("silent", "header", "body", "refused")
EVERY_S = 1.0  # a byte
TICK_S = 0.05
# So many addresses to come from: a closed port rests for a minute.
ADDRESSES = 64


@dataclass
class _Slow:
    kind: str
    socket: socket.socket
    begun: bool = False


class Crowd:
    """`count` slow connections of all kinds, for as long as `run` runs."""

    def __init__(self, port: int, count: int, head: bytes, wrong_head: bytes) -> None:
        """`head` is that of a good report, `wrong_head` that of one which is refused unread."""
        self._port = port
        self._starts = {"silent": b"", "header": b"POST /v1/", "body": head, "refused": wrong_head}
        self._kinds = [KINDS[number % len(KINDS)] for number in range(count)]
        self._poll = select.epoll()
        self._slow: dict[int, _Slow] = {}
        self._order: list[int] = []
        self._opened = 0
        self.counts: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> Counter[str]:
        """Holds the connections until told to stop; how many came, and what they met."""
        for kind in self._kinds:
            self._open(kind)
            self._answer(0)
        drip, due = 0, time.monotonic()
        while not stop.is_set():
            self._answer(TICK_S)
            now = time.monotonic()
            if now < due:
                continue
            due = now + TICK_S
            share = max(1, int(len(self._kinds) * TICK_S / EVERY_S))
            for _ in range(share):
                drip = (drip + 1) % len(self._order)
                self._drip(self._slow.get(self._order[drip]))
        self.counts["open at the end"] = len(self._slow)
        for slow in self._slow.values():
            slow.socket.close()
        self._poll.close()
        return self.counts

    def _open(self, kind: str) -> None:
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        client.bind((f"127.0.1.{1 + self._opened % ADDRESSES}", 0))
        with suppress(BlockingIOError):
            client.connect(("127.0.0.1", self._port))
        self._opened += 1
        self.counts["opened"] += 1
        self._slow[client.fileno()] = _Slow(kind, client)
        if client.fileno() >= len(self._order):
            self._order.extend(range(len(self._order), client.fileno() + 1))
        self._poll.register(client.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _answer(self, seconds: float) -> None:
        for fd, events in self._poll.poll(seconds):
            slow = self._slow[fd]
            if events & select.EPOLLOUT and not slow.begun:
                slow.begun = True
                self._poll.modify(fd, select.EPOLLIN)
                self._send(slow, self._starts[slow.kind])
            if events & ~select.EPOLLOUT:
                self._hear(slow)

    def _hear(self, slow: _Slow) -> None:
        try:
            heard = slow.socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if heard:
            self.counts[f"{slow.kind} heard {heard[9:12].decode()}"] += 1
            return
        self.counts[f"{slow.kind} cut"] += 1
        self._poll.unregister(slow.socket.fileno())
        del self._slow[slow.socket.fileno()]
        slow.socket.close()
        self._open(slow.kind)

    def _drip(self, slow: _Slow | None) -> None:
        if slow is not None and slow.begun and slow.kind != "silent":
            self._send(slow, b"x")

    def _send(self, slow: _Slow, data: bytes) -> None:
        with suppress(OSError):
            slow.socket.send(data)


def raise_file_limit() -> None:
    """Allows as many open files as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))


def main() -> None:
    """A crowd until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("heads", help="the two heads as JSON")
    options = parser.parse_args()
    raise_file_limit()
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    head, wrong_head = (it.encode() for it in json.loads(options.heads))
    print(json.dumps(Crowd(options.port, options.count, head, wrong_head).run(stop)))


if __name__ == "__main__":
    main()
