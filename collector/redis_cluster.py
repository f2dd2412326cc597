"""A Redis Cluster: which server holds a key, and whether a replica has what was written there.

docs/protocol.md section 10.4 and docs/decisions. All keys of a lane are in one slot, so an atomic
step is one script on one master, as it is on a single server. A failover forgets what no replica
had; so a write is confirmed only after `replicas` of them have acknowledged it (`WAIT`, on the very
connection that wrote), and a failover to one of these loses nothing.

The client library's own cluster client is not used. It repeats, sleeps and closes connections under
other commands by itself; it sends ASKING and the command it is for over two connections; and a
`WAIT` would travel over a third. Here nothing is repeated but what a server has refused to run
(MOVED, ASK); everything else is the caller's to repeat, who knows which bytes may be sent again.

Leaves out: what is stored (`redis_store`), and whether servers keep it (`redis_contract`).
"""

import asyncio
import random
import re
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    ResponseError,
    TimeoutError,
)

from collector.store import StoreUnavailable

PORT: Final = 6379
# Less than the client waits for a reply: a replica that lags is an answer, not a lost connection.
WAIT_MS: Final = 1_000
# A slot that moves sends a command on once or twice; servers that disagree do so for ever.
HOPS_MAX: Final = 5
REWRITE_PAUSE_S: Final = 0.2
REWRITE_MAX_S: Final = 30.0

_RANDOM: Final = random.SystemRandom()
_ADDRESS: Final = re.compile(
    r"(?P<scheme>rediss?)\+cluster://(?P<login>[^@/?]*@)?(?P<seeds>[^@/?]+)/?(?P<options>\?.*)?"
)
_SEED: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.\-]+)(?::([0-9]{1,5}))?")

Command = tuple[str | bytes | int, ...]


@dataclass(frozen=True)
class Node:
    """Address of one server of the cluster."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class ClusterAddress:
    """Some servers of a cluster, which name the others, and how all of them are reached."""

    seeds: tuple[Node, ...]
    scheme: str = "redis"
    login: str = field(default="", repr=False)
    options: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `redis+cluster://[user:password@]host:port,host:port[?options]`, or `rediss+...`.

        Raises:
            ValueError: it is something else.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise ValueError("not redis+cluster://HOST:PORT,HOST:PORT")
        seeds = []
        for part in match["seeds"].split(","):
            seed = _SEED.fullmatch(part)
            if seed is None or not 0 < int(seed[2] or PORT) < 65_536:
                raise ValueError("not redis+cluster://HOST:PORT,HOST:PORT")
            seeds.append(Node(seed[1].strip("[]"), int(seed[2] or PORT)))
        return cls(tuple(seeds), match["scheme"], match["login"] or "", match["options"] or "")

    def url(self, node: Node) -> str:
        """How a client names one server."""
        return f"{self.scheme}://{self.login}{node}{self.options}"


@dataclass(frozen=True)
class _Map:
    """First slots of ranges; for each range its last slot, its master and the replicas."""

    firsts: tuple[int, ...] = ()
    ranges: tuple[tuple[int, Node, tuple[Node, ...]], ...] = ()

    def holder(self, slot: int) -> Node | None:
        at = bisect_right(self.firsts, slot) - 1
        return self.ranges[at][1] if at >= 0 and slot <= self.ranges[at][0] else None


class Cluster:
    """The commands that `RedisStore` uses, sent to the master that holds their key.

    Every method raises `StoreUnavailable` or an error of the client library.
    """

    def __init__(
        self, address: ClusterAddress, connect: Callable[[str], Redis], replicas: int
    ) -> None:
        """`replicas`: how many of them must have a write before it counts; 0 asks none."""
        self.replicas = replicas
        self._address = address
        self._connect = connect
        self._clients: dict[Node, Redis] = {}
        self._map: _Map | None = None
        self._refreshing = asyncio.Lock()

    def client(self, node: Node) -> Redis:
        """The client of one server."""
        if node not in self._clients:
            self._clients[node] = self._connect(self._address.url(node))
        return self._clients[node]

    async def masters(self) -> list[Node]:
        """Masters that hold slots."""
        return list(dict.fromkeys(master for _, master, _ in (await self._known()).ranges))

    async def replicas_known(self) -> list[Node]:
        """Replicas that the cluster believes to be there."""
        found = (replica for _, _, nodes in (await self._known()).ranges for replica in nodes)
        return list(dict.fromkeys(found))

    async def holder(self, key: bytes) -> Node:
        """The master that holds a key, as far as is known here."""
        found = (await self._known()).holder(key_slot(key))
        if found is None:
            self.forget()
            raise StoreUnavailable("SlotNotCovered")
        return found

    def forget(self) -> None:
        """Asks the cluster for its layout before the next command."""
        self._map = None

    async def evalsha(self, sha: str, numkeys: int, *args: bytes) -> Any:
        """Runs a script on the master of its first key. It writes, or stands for a write."""
        [reply] = await self.send(args[0], [("EVALSHA", sha, numkeys, *args)], writes=True)
        return reply

    async def eval(self, script: str, numkeys: int, *args: bytes) -> Any:
        """As `evalsha`, with the text."""
        [reply] = await self.send(args[0], [("EVAL", script, numkeys, *args)], writes=True)
        return reply

    async def hget(self, name: bytes, key: bytes) -> Any:
        """One field."""
        [reply] = await self.send(name, [("HGET", name, key)])
        return reply

    async def hmget(self, name: bytes, keys: Sequence[bytes]) -> Any:
        """Several fields."""
        [reply] = await self.send(name, [("HMGET", name, *keys)])
        return reply

    async def hgetall(self, name: bytes) -> Any:
        """All fields, as a dictionary."""
        [reply] = await self.send(name, [("HGETALL", name)])
        return reply

    async def get(self, name: bytes) -> Any:
        """A string."""
        [reply] = await self.send(name, [("GET", name)])
        return reply

    def pipeline(self, transaction: bool = False) -> "Pipeline":
        """Commands for keys of one slot, sent together."""
        if transaction:
            raise ValueError("atomic steps are scripts")
        return Pipeline(self)

    async def ping(self) -> bool:
        """Whether every master answers."""
        await self._everywhere(await self.masters(), lambda client: client.ping())
        return True

    async def bgrewriteaof(self) -> None:
        """Has every server rewrite its file from now on, replicas too: theirs hold the same.

        A replica that is away is left out.
        """
        masters = await self.masters()
        await self._everywhere(masters, _rewrite)
        replicas = await self.replicas_known()
        attempts = (_rewrite(self.client(node)) for node in replicas)
        for error in await asyncio.gather(*attempts, return_exceptions=True):
            if error is not None and not isinstance(error, ConnectionError | TimeoutError):
                raise error

    async def send(
        self, key: bytes, commands: Sequence[Command], *, writes: bool = False
    ) -> list[Any]:
        """Replies to commands for keys in the slot of `key`, sent together over one connection.

        A server that answers MOVED or ASK has run nothing of that command, so sending it on cannot
        run it twice. Any other fault leaves the outcome unknown.

        Raises:
            ResponseError: what a server refused.
            StoreUnavailable: fewer than `replicas` replicas have acknowledged, or no end to MOVED.
        """
        node, asking = await self.holder(key), False
        replies: list[Any] = [None] * len(commands)
        todo = list(range(len(commands)))
        for _ in range(HOPS_MAX):
            found = await self._at(node, [commands[at] for at in todo], asking, writes)
            for at, reply in zip(todo, found, strict=True):
                replies[at] = reply
            todo = [at for at in todo if isinstance(replies[at], AskError)]
            if not todo:
                for reply in replies:
                    if isinstance(reply, Exception):
                        raise reply
                return replies
            redirect = replies[todo[0]]
            # Without a host it means the one that was asked.
            node = Node(redirect.host or node.host, redirect.port)
            asking = not isinstance(redirect, MovedError)
            if not asking:
                self.forget()
        raise StoreUnavailable("Redirected")

    async def aclose(self) -> None:
        """Closes all connections."""
        for client in self._clients.values():
            await client.aclose()

    async def _at(
        self, node: Node, commands: Sequence[Command], asking: bool, writes: bool
    ) -> list[Any]:
        """Replies of one server; refusals are among them."""
        pipeline = self.client(node).pipeline(transaction=False)
        for command in commands:
            if asking:
                # It holds for the next command of its connection alone.
                pipeline.execute_command("ASKING")
            pipeline.execute_command(*command)
        waits = writes and self.replicas > 0
        if waits:
            pipeline.execute_command("WAIT", self.replicas, WAIT_MS)
        try:
            found = await pipeline.execute(raise_on_error=False)
        except (ConnectionError, TimeoutError):
            self.forget()
            raise
        have = found.pop() if waits else 0
        if asking:
            found = found[1::2]
        if any(isinstance(reply, ClusterDownError) for reply in found):
            self.forget()
        if waits and not all(isinstance(reply, ResponseError) for reply in found):
            if isinstance(have, ResponseError):
                raise have
            if have < self.replicas:
                # It has happened here and may be forgotten: whoever asked asks again.
                raise StoreUnavailable("Unreplicated")
        return found

    async def _known(self) -> _Map:
        if (known := self._map) is not None:
            return known
        async with self._refreshing:
            # Whoever waited for another's answer takes it.
            if self._map is None:
                self._map = await self._ask()
            return self._map

    async def _ask(self) -> _Map:
        """The layout, from any server that answers. In turn: one that is cut off may be wrong."""
        nodes = list(dict.fromkeys([*self._clients, *self._address.seeds]))
        _RANDOM.shuffle(nodes)
        fault: Exception = ConnectionError("no server")
        for node in nodes:
            try:
                reply = await _layout(self.client(node))
            except (ConnectionError, TimeoutError, ResponseError) as error:
                fault = error
                continue
            if reply:
                return _map(reply, node)
            # It was reset, or belongs to no cluster yet. No masters would be no faults found.
            fault = StoreUnavailable("SlotNotCovered")
        raise fault

    async def _everywhere(
        self, nodes: Sequence[Node], act: Callable[[Redis], Awaitable[object]]
    ) -> None:
        try:
            await asyncio.gather(*(act(self.client(node)) for node in nodes))
        except (ConnectionError, TimeoutError):
            self.forget()
            raise


class Pipeline:
    """The commands of a `Cluster.pipeline`; the first key says where they go."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._key: bytes | None = None
        self._commands: list[Command] = []
        self._writes = False

    def hmget(self, name: bytes, keys: Sequence[bytes]) -> None:
        """Several fields."""
        self._add(name, ("HMGET", name, *keys))

    def hkeys(self, name: bytes) -> None:
        """Names of all fields."""
        self._add(name, ("HKEYS", name))

    def unlink(self, name: bytes) -> None:
        """Deletes."""
        self._add(name, ("UNLINK", name), writes=True)

    def expireat(self, name: bytes, when: int) -> None:
        """Deletes at `when`, Unix seconds."""
        self._add(name, ("EXPIREAT", name, when), writes=True)

    def touch(self, name: bytes) -> None:
        """Sets a key that nobody uses and deletes it: a write that changes nothing."""
        self._add(name, ("SET", name, b""), writes=True)
        self._add(name, ("UNLINK", name), writes=True)

    async def execute(self) -> list[Any]:
        """Sends them; the replies."""
        if self._key is None:
            return []
        return await self._cluster.send(self._key, self._commands, writes=self._writes)

    def _add(self, name: bytes, command: Command, *, writes: bool = False) -> None:
        if self._key is None:
            self._key = name
        self._commands.append(command)
        self._writes = self._writes or writes


async def _layout(client: Redis) -> list[Any]:
    # In one word, the client library would interpret the reply.
    found: list[Any] = await client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
    return found


async def _rewrite(client: Redis) -> None:
    """Begins a rewrite; one that is under way may have begun too early, and is waited for."""
    async with asyncio.timeout(REWRITE_MAX_S):
        while True:
            try:
                await client.bgrewriteaof()
            except ResponseError:
                await asyncio.sleep(REWRITE_PAUSE_S)
            else:
                return


def _map(reply: Sequence[Any], asked: Node) -> _Map:
    rows = []
    for first, last, *servers in sorted(reply, key=lambda row: int(row[0])):
        nodes = [Node((row[0] or b"").decode() or asked.host, int(row[1])) for row in servers]
        rows.append((int(first), int(last), nodes[0], tuple(nodes[1:])))
    return _Map(
        tuple(first for first, _, _, _ in rows),
        tuple((last, master, replicas) for _, last, master, replicas in rows),
    )
