"""The network of a simulation: byte streams in memory, with delay, loss and partitions.

A `Link` is what two hosts have between them, in both directions. A fault on it ends a connection
as a real one would: what was written is gone, and both sides hear of it at their own time. What is
lost before the server has read it is a dropped request; what the server wrote, a dropped reply.

Leaves out: bytes in the wrong order, TLS, and limits on what may be on its way.
"""

import asyncio
import errno
import random
import socket
from collections import Counter, deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Final

from tests.sim.loop import PROCESS, Process, SimLoop

Address = tuple[str, int]
_END: Final = b""


@dataclass
class Quality:
    """What may go wrong with a message. Times in seconds, the rest are probabilities."""

    delay_s: float = 0.0005
    slow: float = 0.0
    slow_s: float = 1.0
    drop_request: float = 0.0
    drop_reply: float = 0.0


@dataclass
class Link:
    """What two hosts have between them; nothing gets through before `cut_until`."""

    quality: Quality
    kinds: str
    cut_until: float = 0.0


class Network:
    """All connections and all links."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.seen: Counter[str] = Counter()
        # By the kinds of the two hosts, which their names begin with.
        self.qualities: dict[str, Quality] = {}
        # How much was written on links of a kind, and which of these is lost.
        self.writes: Counter[str] = Counter()
        self.lost_writes: dict[str, int] = {}
        self._links: dict[frozenset[str], Link] = {}
        self._listeners: dict[Address, list[Listener]] = {}
        self._ends: dict[str, list[End]] = {}
        self._hosts: dict[str, str] = {}
        loop.on_kill.append(self._gone)
        loop.network = self

    def link(self, one: str, other: str) -> Link:
        """The link between two hosts."""
        pair = frozenset((one, other))
        if pair not in self._links:
            kinds = "".join(sorted((one[0], other[0])))
            self._links[pair] = Link(self.qualities.setdefault(kinds, Quality()), kinds)
        return self._links[pair]

    def heal(self) -> None:
        """Ends all partitions."""
        for link in self._links.values():
            link.cut_until = 0.0

    def delay(self, link: Link) -> float:
        """How long one message takes on a link."""
        quality = link.quality
        seconds = quality.delay_s * (0.5 + self.rng.random())
        if quality.slow and self.rng.random() < quality.slow:
            self.seen["net_slow"] += 1
            seconds += quality.slow_s * self.rng.random()
        return seconds

    def listen(self, factory: Callable[[], Any], host: str, port: int) -> "Listener":
        """Takes connections at an address; several processes may share one."""
        listener = Listener(self, factory, (host, port))
        self._listeners.setdefault((host, port), []).append(listener)
        return listener

    async def connect(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Any, Any]:
        """A connection to one of those who listen at an address.

        Raises:
            ConnectionRefusedError: nobody does.
        """
        mine = PROCESS.get()
        # A kernel takes connections for a process that is stopped, not for one that is dead.
        there = [it for it in self._listeners.get((host, port), ()) if it.process.alive]
        if not there:
            await asyncio.sleep(0.001)
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        chosen = there[int(self.rng.random() * len(there))]
        link = self.link(mine.host, chosen.process.host)
        left = link.cut_until - self.loop.now
        await asyncio.sleep(max(0.0, left) + self.delay(link))
        if not chosen.process.alive:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        client = End(self, mine, copy_context(), link, serves=False)
        server = End(self, chosen.process, chosen.context, link, serves=True)
        client.peer, server.peer = server, client
        for end in (client, server):
            self._ends.setdefault(end.process.name, []).append(end)
        self.loop.call_soon(server.accepted, chosen.factory, context=chosen.context)
        client.protocol = factory()
        client.protocol.connection_made(client)
        return client, client.protocol

    def close(self, listener: "Listener") -> None:
        """Takes no more connections for a listener."""
        there = self._listeners.get(listener.address, [])
        if listener in there:
            there.remove(listener)

    def _gone(self, process: Process) -> None:
        """The kernel closes what a dead process held; its peers hear of it."""
        for listeners in self._listeners.values():
            listeners[:] = [it for it in listeners if it.process is not process]
        for end in self._ends.pop(process.name, []):
            if not end.closing:
                end.closing = True
                end.send(ConnectionResetError(errno.ECONNRESET, "reset"), self.rng.random() * 0.2)


class Listener(asyncio.AbstractServer):
    """An open port of a process."""

    def __init__(self, network: Network, factory: Callable[[], Any], address: Address) -> None:
        self._network = network
        self.factory = factory
        self.address = address
        self.process = PROCESS.get()
        self.context: Context = copy_context()
        self.sockets = [Socket(address)]

    def close(self) -> None:
        self._network.close(self)

    async def wait_closed(self) -> None:
        """Returns: what is accepted is not the listener's any more."""

    def is_serving(self) -> bool:
        return True

    def get_loop(self) -> SimLoop:
        return self._network.loop

    async def start_serving(self) -> None:
        """Does nothing: it serves from the start."""

    async def serve_forever(self) -> None:
        await asyncio.Event().wait()


class Socket:
    """As much of a socket as the product looks at."""

    family = socket.AF_INET

    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        """Host and port."""
        return self._address

    def close(self) -> None:
        """Does nothing."""


@dataclass(eq=False)
class _Wire:
    """What is on its way to one end, in order."""

    items: deque[tuple[float, bytes | Exception]] = field(default_factory=deque)
    last: float = 0.0
    late: int = 0  # arrived while the reader had paused


class End(asyncio.Transport):
    """One end of a connection, as its process sees it."""

    def __init__(
        self, network: Network, process: Process, context: Context, link: Link, *, serves: bool
    ) -> None:
        super().__init__()
        self._network = network
        self.process = process
        self._context = context
        self._link = link
        self._serves = serves
        self.peer: End
        self.protocol: Any = None
        self.closing = False
        self._lost = False
        # A server reads nothing before it has taken the connection.
        self._paused = serves
        self._wire = _Wire()

    def accepted(self, factory: Callable[[], Any]) -> None:
        """On the server's side: the connection is there."""
        self.protocol = factory()
        self.protocol.connection_made(self)
        self.resume_reading()

    # Writing

    def write(self, data: Any) -> None:
        if self.closing or not data:
            return
        network = self._network
        quality = self._link.quality
        share = quality.drop_reply if self._serves else quality.drop_request
        kinds = self._link.kinds
        network.writes[kinds] += 1
        lost = network.lost_writes.get(kinds) == network.writes[kinds]
        if lost or (share and network.rng.random() < share):
            network.seen["net_drop_reply" if self._serves else "net_drop_request"] += 1
            self.reset()
            return
        self.send(bytes(data))

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def send(self, item: bytes | Exception, extra: float = 0.0) -> None:
        """Puts something on its way to the other end."""
        wire, loop = self.peer._wire, self._network.loop
        at = max(loop.now + self._network.delay(self._link) + extra, wire.last)
        wire.last = at
        wire.items.append((at, item))
        loop.call_at(at, self.peer._arrive, context=self.peer._context)

    def reset(self) -> None:
        """The connection breaks: what is on its way either way is lost."""
        for end in (self, self.peer):
            end._wire.items.clear()
        for end in (self, self.peer):
            if not end.closing:
                end.peer.send(ConnectionResetError(errno.ECONNRESET, "reset"))

    def write_eof(self) -> None:
        self.send(_END)

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Never full."""

    # Reading

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        while self._wire.late:
            self._wire.late -= 1
            self._network.loop.call_soon(self._arrive, context=self._context)

    def is_reading(self) -> bool:
        return not self._paused

    def _arrive(self) -> None:
        wire, loop = self._wire, self._network.loop
        if not wire.items or self._lost:
            return
        if self._link.cut_until > loop.now:
            again = self._link.cut_until + self._network.delay(self._link)
            loop.call_at(again, self._arrive, context=self._context)
            return
        if self._paused:
            wire.late += 1
            return
        _, item = wire.items.popleft()
        if isinstance(item, Exception):
            self.closing = True
            self._end(item)
        elif self.closing:
            return
        elif item:
            self.protocol.data_received(item)
        elif not self.protocol.eof_received():
            self.close()

    # Ending

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.send(_END)
            self._network.loop.call_soon(self._end, None, context=self._context)

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            self.send(ConnectionResetError(errno.ECONNRESET, "reset"))
            self._network.loop.call_soon(self._end, None, context=self._context)

    def is_closing(self) -> bool:
        return self.closing

    def _end(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            ends = self._network._ends.get(self.process.name)
            if ends is not None and self in ends:
                ends.remove(self)
            if self.protocol is not None:
                self.protocol.connection_lost(error)

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": (self.peer.process.host, 1)}.get(name, default)
