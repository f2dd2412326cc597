"""A simulated Redis, and the product's own `RedisStore` on it.

The simulation ends below `RedisStore`: key names, scripts, pipelines and the handling of errors
are those of production, so an operation of several commands is here as many trips over the network
as it is there. Only the server is a model: a keyspace, commands that run one after the other, the
subset of Lua of `lua`, and an append-only log of which a crash may cut off the end.

    always      a command is durable before its reply is sent
    everysec    up to `TAIL_MAX` of the newest transactions are not durable yet; a crash loses a
                seeded number of them, and `sync` is what the server's own thread does each second

tests/collector/test_store.py compares it with real servers, crashes included. Leaves out: memory
limits, replication, and `fsync` that returns before the disk has the bytes.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import ConnectionError, NoScriptError, ResponseError

from collector.redis_store import RedisStore, _Script
from collector.store import RoundStore
from tests.sim.lua import compiled

T = TypeVar("T")
Policy = Literal["always", "everysec"]
Command = tuple[bytes, ...]
Execute = Callable[..., Any]

TAIL_MAX: Final = 64

_WRITES: Final = frozenset({b"HSET", b"HDEL", b"HINCRBY", b"SET", b"INCR", b"UNLINK", b"EXPIREAT"})


class Channel(Protocol):
    """The network between a client and the server.

    It calls `call` once, when the request arrives, or never; returns what `call` returned, or
    raises `ConnectionError` or `TimeoutError` instead, whether or not it called.
    """

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]: ...


async def direct(call: Callable[[], T]) -> T:
    """A network without delay or loss, where others get their turn while a server is asked."""
    await asyncio.sleep(0)
    return call()


@dataclass
class _Keyspace:
    """Keys and values as commands see them."""

    values: dict[bytes, bytes | dict[bytes, bytes]] = field(default_factory=dict)
    ends: dict[bytes, int] = field(default_factory=dict)

    def copy(self) -> "_Keyspace":
        values = {
            key: dict(value) if isinstance(value, dict) else value
            for key, value in self.values.items()
        }
        return _Keyspace(values, dict(self.ends))

    def forget(self, now: float) -> None:
        """Drops what has expired."""
        for key in [key for key, end in self.ends.items() if end <= now]:
            self._drop(key)

    def execute(self, command: Command) -> Any:
        """One command. The reply is bytes, int, None or a list of these."""
        match command:
            case (b"HGET", key, name):
                return self._hash(key).get(name)
            case (b"HMGET", key, *names):
                found = self._hash(key)
                return [found.get(name) for name in names]
            case (b"HGETALL", key):
                return [part for pair in self._hash(key).items() for part in pair]
            case (b"HKEYS", key):
                return list(self._hash(key))
            case (b"HSET", key, *pairs):
                target = self._hash_to_write(key)
                before = len(target)
                target.update(zip(pairs[::2], pairs[1::2], strict=True))
                return len(target) - before
            case (b"HDEL", key, *names):
                target = self._hash_to_write(key)
                gone = [target.pop(name) for name in names if name in target]
                if not target:
                    self._drop(key)
                return len(gone)
            case (b"HINCRBY", key, name, by):
                target = self._hash_to_write(key)
                target[name] = b"%d" % (int(target.get(name, b"0")) + int(by))
                return int(target[name])
            case (b"GET", key):
                return self._string(key)
            case (b"SET", key, value):
                self._drop(key)
                self.values[key] = value
                return b"OK"
            case (b"INCR", key):
                self.values[key] = b"%d" % (int(self._string(key) or b"0") + 1)
                return int(cast(bytes, self.values[key]))
            case (b"EXISTS", key):
                return int(key in self.values)
            case (b"UNLINK", key):
                return int(self._drop(key))
            case (b"EXPIREAT", key, at):
                if key not in self.values:
                    return 0
                self.ends[key] = int(at)
                return 1
            case (b"PING",):
                return b"PONG"
        raise ResponseError(f"ERR unknown command {command[0]!r}")

    def _hash(self, key: bytes) -> dict[bytes, bytes]:
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise ResponseError("WRONGTYPE not a hash")
        return value

    def _hash_to_write(self, key: bytes) -> dict[bytes, bytes]:
        if key not in self.values:
            self.values[key] = {}
        return self._hash(key)

    def _string(self, key: bytes) -> bytes | None:
        value = self.values.get(key)
        if isinstance(value, dict):
            raise ResponseError("WRONGTYPE not a string")
        return value

    def _drop(self, key: bytes) -> bool:
        self.ends.pop(key, None)
        return self.values.pop(key, None) is not None


class SimServer:
    """One server and its disk. `clock` gives the Unix seconds by which keys expire."""

    def __init__(
        self, policy: Policy, rng: random.Random, clock: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._policy = policy
        self._rng = rng
        self._clock = clock
        self._live = _Keyspace()
        # What the durable prefix of the log adds up to, and the transactions after it.
        self._disk = _Keyspace()
        self._tail: list[list[Command]] = []
        self._scripts: set[str] = set()
        self.up = True
        self.disk_full = False
        # For the record of a simulation: commits of transactions, and those that crashes undid.
        self.transactions = 0
        self.forgotten = 0

    def client(self, channel: Channel = direct) -> RoundStore:
        """A store of production whose every trip to the server goes through `channel`."""
        return RedisStore(cast(Redis, _Connection(self, channel)), "sim")

    def crash(self) -> None:
        """Ends the server at once: memory is gone, and of the log what was not durable."""
        if not self.up:
            return
        self.up = False
        kept = self._rng.randint(0, len(self._tail))
        self.forgotten += len(self._tail) - kept
        del self._tail[kept:]
        self.sync()
        self._live = _Keyspace()

    def restart(self) -> None:
        """Starts the server over what its disk holds. Scripts are no longer known to it."""
        if self.up:
            return
        self._live = self._disk.copy()
        self._scripts.clear()
        self.up = True

    def sync(self) -> None:
        """Makes everything durable that has been written."""
        for transaction in self._tail:
            for command in transaction:
                self._disk.execute(command)
        self._tail.clear()

    def snapshot(self) -> object:
        """A copy of the server's files as they are now."""
        return (self._live if self.up else self._disk).copy()

    def restore(self, snapshot: object) -> None:
        """Puts an old copy in the place of the files of a server that is down."""
        if self.up:
            raise RuntimeError("files are replaced while the server is down")
        if not isinstance(snapshot, _Keyspace):
            raise TypeError("not a snapshot")
        self._disk = snapshot.copy()

    # What arrives from clients

    def run(self, work: Callable[[Execute], T]) -> T:
        """Runs a command, or several as one transaction: nothing comes in between.

        Raises:
            ConnectionError: the server is down, or went down over this.
            ResponseError: it refuses. What was written before the refusal stays written.
        """
        if not self.up:
            raise ConnectionError("down")
        self._live.forget(self._clock())
        written: list[Command] = []

        def execute(*command: bytes) -> Any:
            writes = command[0] in _WRITES
            if writes and self.disk_full and self._policy == "everysec":
                raise ResponseError("MISCONF the disk is full")
            reply = self._live.execute(command)
            if writes:
                written.append(command)
            return reply

        try:
            return work(execute)
        finally:
            if written:
                self._log(written)

    def script(self, text: str | None, sha: str, keys: list[bytes], args: list[bytes]) -> Any:
        """EVAL if there is a text, otherwise EVALSHA."""
        if not self.up:
            raise ConnectionError("down")
        if text is None:
            if sha not in self._scripts:
                raise NoScriptError("No matching script.")
            text = _TEXTS[sha]
        self._scripts.add(sha)
        _TEXTS[sha] = text
        script = compiled(text)
        return self.run(lambda execute: script.run(keys, args, execute))

    def _log(self, written: list[Command]) -> None:
        if self.disk_full and self._policy == "always":
            # What it cannot make durable it may not confirm, and it cannot take it back either.
            self.crash()
            raise ConnectionError("disk full")
        self.transactions += 1
        self._tail.append(written)
        if self._policy == "always":
            self.sync()
        elif len(self._tail) > TAIL_MAX:
            for command in self._tail.pop(0):
                self._disk.execute(command)


# Texts of scripts by their SHA-1, whichever server has been sent them.
_TEXTS: Final[dict[str, str]] = {}


class _Connection:
    """The methods of the client library that `RedisStore` uses, over a channel."""

    def __init__(self, server: SimServer, channel: Channel) -> None:
        self._server = server
        self._channel = channel

    async def evalsha(self, sha: str, numkeys: int, *args: bytes) -> Any:
        keys, rest = list(args[:numkeys]), list(args[numkeys:])
        return await self._channel(lambda: self._server.script(None, sha, keys, rest))

    async def eval(self, script: str, numkeys: int, *args: bytes) -> Any:
        keys, rest = list(args[:numkeys]), list(args[numkeys:])
        sha = _Script.of(script).sha
        return await self._channel(lambda: self._server.script(script, sha, keys, rest))

    async def hget(self, name: bytes, key: bytes) -> Any:
        return await self._one(b"HGET", name, key)

    async def hmget(self, name: bytes, keys: Sequence[bytes]) -> Any:
        return await self._one(b"HMGET", name, *keys)

    async def hgetall(self, name: bytes) -> dict[bytes, bytes]:
        reply = await self._one(b"HGETALL", name)
        return dict(zip(reply[::2], reply[1::2], strict=True))

    async def get(self, name: bytes) -> Any:
        return await self._one(b"GET", name)

    async def ping(self) -> bool:
        return bool(await self._one(b"PING") == b"PONG")

    async def bgrewriteaof(self) -> bool:
        # What it would shorten, the model does not keep.
        return await self.ping()

    async def aclose(self) -> None:
        """Returns: there is no socket."""

    def pipeline(self, transaction: bool = True) -> "_Pipeline":
        return _Pipeline(self._server, self._channel, transaction)

    async def _one(self, *command: bytes) -> Any:
        return await self._channel(
            lambda: self._server.run(lambda execute: execute(*command)),
        )


class _Pipeline:
    """Commands that travel together; with MULTI they are one transaction, else one each."""

    def __init__(self, server: SimServer, channel: Channel, transaction: bool) -> None:
        self._server = server
        self._channel = channel
        self._transaction = transaction
        self._commands: list[Command] = []

    def hmget(self, name: bytes, keys: Sequence[bytes]) -> None:
        self._commands.append((b"HMGET", name, *keys))

    def hkeys(self, name: bytes) -> None:
        self._commands.append((b"HKEYS", name))

    def hset(self, name: bytes, key: bytes, value: bytes) -> None:
        self._commands.append((b"HSET", name, key, value))

    def hdel(self, name: bytes, key: bytes) -> None:
        self._commands.append((b"HDEL", name, key))

    def incr(self, name: bytes) -> None:
        self._commands.append((b"INCR", name))

    def unlink(self, name: bytes) -> None:
        self._commands.append((b"UNLINK", name))

    def expireat(self, name: bytes, when: int) -> None:
        self._commands.append((b"EXPIREAT", name, b"%d" % when))

    async def execute(self) -> list[Any]:
        if not self._commands:
            return []
        return await self._channel(self._all)

    def _all(self) -> list[Any]:
        if self._transaction:
            return self._server.run(lambda execute: [execute(*one) for one in self._commands])
        return [
            self._server.run(lambda execute, one=one: execute(*one))  # type: ignore[misc]
            for one in self._commands
        ]
