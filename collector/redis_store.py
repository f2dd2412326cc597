"""The `RoundStore` on Redis or Valkey (docs/protocol.md section 10.4).

Keys of a round share a hash tag per lane, so a lane lives in one slot:

    {<round>:<lane>}:state           hash: phase, count, capacity, epochs
    {<round>:<lane>}:meta:<epoch>    hash: who (incarnation), seq, n
    {<round>:<lane>}:sum:<epoch>     the epoch's running sum, packed
    {<round>:<lane>}:seen:<bucket>   hash: report key -> check of its payload
    {<namespace>}:rounds, :version   the list that ingest processes follow

Every atomic step is a script of `scripts/`. The client library repeats commands on its own; that
is switched off here, because only the caller knows which bytes may be sent again.

On a cluster (`redis_cluster`) a write counts once replicas have it. What is confirmed for the
second time (ALREADY, DUP, a key that is looked up) rests on a write of somebody else's connection,
for which `WAIT` does not wait; so these write something again that changes nothing.

Leaves out: whether the server is configured to keep what it confirms (`redis_contract`).
"""

import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Protocol, Self, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from collector.redis_cluster import Cluster, ClusterAddress
from collector.store import (
    LANE_STEPS,
    Code,
    CommitResult,
    Entry,
    Epoch,
    EpochMeta,
    Lane,
    LanePhase,
    LaneStatus,
    Layout,
    StoreLost,
    StoreUnavailable,
)
from dandelion.params import COMMIT_REPORTS_MAX

CONNECT_TIMEOUT_S: Final = 2.0
REPLY_TIMEOUT_S: Final = 5.0
# Commands sent in one go when a whole lane is read or deleted.
PIPELINE: Final = 500
# Epochs that a lane without its state is taken to have had: what is left of them goes all the same.
LOST_EPOCHS: Final = 100


class _Client(Protocol):
    """The commands used here, typed for replies that stay bytes."""

    def evalsha(self, sha: str, numkeys: int, *args: bytes) -> Awaitable[Any]: ...
    def eval(self, script: str, numkeys: int, *args: bytes) -> Awaitable[Any]: ...
    def hget(self, name: bytes, key: bytes) -> Awaitable[bytes | None]: ...
    def hmget(self, name: bytes, keys: Sequence[bytes]) -> Awaitable[list[bytes | None]]: ...
    def hgetall(self, name: bytes) -> Awaitable[dict[bytes, bytes]]: ...
    def get(self, name: bytes) -> Awaitable[bytes | None]: ...
    def ping(self) -> Awaitable[bool]: ...
    def bgrewriteaof(self) -> Awaitable[object]: ...
    def pipeline(self, transaction: bool = ...) -> Any: ...


@dataclass(frozen=True)
class _Script:
    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Self:
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    @classmethod
    def load(cls, name: str) -> Self:
        return cls.of(files("collector").joinpath("scripts", f"{name}.lua").read_text())


_OPEN: Final = _Script.load("open")
_STEP: Final = _Script.load("step")
_EPOCH: Final = _Script.load("epoch")
_COMMIT: Final = _Script.load("commit")
_HELD: Final = _Script.load("held")
_LIST: Final = _Script.load("list")


def connect(url: str) -> Redis:
    """A client that repeats nothing by itself. `url` may be redis://, rediss:// or unix://."""
    return Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        decode_responses=False,
        protocol=2,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=REPLY_TIMEOUT_S,
    )


def connect_any(url: str, replicas: int = 0) -> Redis | Cluster:
    """A client of one server, or of a cluster if `url` is redis+cluster:// or rediss+cluster://.

    On a cluster `replicas` of them must have a write before it counts.
    """
    if "+cluster://" in url:
        return Cluster(ClusterAddress.parse(url), connect, replicas)
    return connect(url)


@asynccontextmanager
async def answering() -> AsyncIterator[None]:
    """Turns whatever the client library raises into `StoreUnavailable`."""
    try:
        yield
    except ResponseError as error:
        # The first word is an error code such as MISCONF; what follows may quote an argument. Where
        # the library has a class for a code it takes the code away.
        code = str(error).split(" ", 1)[0][:20]
        kind = code if type(error) is ResponseError else type(error).__name__
        raise StoreUnavailable(kind) from None
    except (RedisError, OSError) as error:
        raise StoreUnavailable(type(error).__name__) from None


class RedisStore:
    """A `RoundStore`; `namespace` keeps the lists of two collectors on one server apart."""

    def __init__(self, client: Redis | Cluster, namespace: str) -> None:
        self._opened = client
        self._client = cast(_Client, client)
        self._waits = isinstance(client, Cluster) and client.replicas > 0
        self._rounds = f"{{{namespace}}}:rounds".encode()
        self._version = f"{{{namespace}}}:version".encode()

    @property
    def redis(self) -> Redis:
        """The client of the one server; a `TypeError` on a cluster."""
        if isinstance(self._opened, Cluster):
            raise TypeError("a cluster has many servers")
        return self._opened

    async def open_lane(self, layout: Layout, lane: Lane) -> None:
        await self._run(_OPEN, [_state(lane)], str(layout.capacity).encode())

    async def status(self, lane: Lane) -> LaneStatus:
        async with answering():
            reply = await self._client.hmget(_state(lane), [b"phase", b"count", b"epochs"])
        return _status(reply)

    async def step(self, lane: Lane, to: LanePhase) -> LaneStatus:
        sources = (phase.encode() for phase in sorted(LANE_STEPS[to]))
        return _status(await self._run(_STEP, [_state(lane)], to.encode(), *sources))

    async def new_epoch(self, lane: Lane, who: bytes) -> Epoch | None:
        number = (await self.status(lane)).epochs + 1
        while True:
            keys = [_state(lane), _meta(lane, number)]
            reply = await self._run(_EPOCH, keys, str(number).encode(), who)
            match reply[0]:
                case b"OK":
                    return Epoch(number, who)
                case b"SEALED":
                    return None
                case b"RACE":
                    number = int(reply[1]) + 1
                case _:
                    raise StoreLost("lane")

    async def commit(
        self, lane: Lane, epoch: Epoch, seq: int, entries: Sequence[Entry], total: bytes
    ) -> CommitResult:
        if not 1 <= len(entries) <= COMMIT_REPORTS_MAX:
            raise ValueError("a commit holds 1 to COMMIT_REPORTS_MAX reports")
        used = {entry.bucket: 0 for entry in entries}
        for index, bucket in enumerate(used):
            used[bucket] = index
        reply = await self._run(
            _COMMIT,
            [
                _state(lane),
                _meta(lane, epoch.number),
                _sum(lane, epoch.number),
                *(_seen(lane, bucket) for bucket in used),
            ],
            epoch.who,
            str(seq).encode(),
            total,
            b"".join(entry.epk for entry in entries),
            b"".join(entry.check for entry in entries),
            b"".join(used[entry.bucket].to_bytes(2, "big") for entry in entries),
            b"1" if self._waits else b"0",
        )
        match reply[0]:
            case b"LOST":
                raise StoreLost("commit")
            case b"DUP":
                pairs = zip(reply[1::2], reply[2::2], strict=True)
                return CommitResult(Code.DUP, tuple((int(at), same == 1) for at, same in pairs))
            case b"FULL":
                return CommitResult(Code.FULL, room=int(reply[1]))
            case code:
                return CommitResult(Code(code.decode()))

    async def lookup(self, lane: Lane, bucket: int, epk: bytes) -> bytes | None:
        if self._waits:
            found: bytes | None = await self._run(_HELD, [_state(lane), _seen(lane, bucket)], epk)
            return found
        async with answering():
            return await self._client.hget(_seen(lane, bucket), epk)

    async def metas(self, lane: Lane) -> tuple[EpochMeta, ...]:
        epochs = range(1, (await self._held(lane)).epochs + 1)
        async with answering():
            pipeline = self._client.pipeline(transaction=False)
            for number in epochs:
                pipeline.hmget(_meta(lane, number), [b"who", b"seq", b"n"])
            rows = await pipeline.execute()
        if any(None in row for row in rows):
            raise StoreLost("meta")
        return tuple(
            EpochMeta(Epoch(number, who), int(seq), int(n))
            for number, (who, seq, n) in zip(epochs, rows, strict=True)
        )

    async def keys(self, layout: Layout, lane: Lane) -> list[bytes]:
        await self._held(lane)
        found: list[bytes] = []
        for start in range(0, layout.buckets, PIPELINE):
            async with answering():
                pipeline = self._client.pipeline(transaction=False)
                for bucket in range(start, min(start + PIPELINE, layout.buckets)):
                    pipeline.hkeys(_seen(lane, bucket))
                for part in await pipeline.execute():
                    found += part
        return found

    async def sums(self, lane: Lane) -> list[bytes]:
        found = []
        for meta in await self.metas(lane):
            if meta.seq == 0:
                continue
            async with answering():
                total = await self._client.get(_sum(lane, meta.epoch.number))
            if total is None:
                raise StoreLost("sum")
            found.append(total)
        return found

    async def expire_at(self, layout: Layout, at: int) -> None:
        await self._on_all_keys(layout, lambda pipeline, key: pipeline.expireat(key, at))

    async def purge(self, layout: Layout) -> None:
        await self._on_all_keys(layout, lambda pipeline, key: pipeline.unlink(key))

    async def compact(self) -> None:
        # Refused while a rewrite is under way: that one may have begun before the last deletion.
        async with answering():
            await self._client.bgrewriteaof()

    async def publish(self, round_id: bytes, record: bytes) -> None:
        await self._list(round_id, record)

    async def withdraw(self, round_id: bytes) -> None:
        await self._list(round_id, b"")

    async def version(self) -> int:
        async with answering():
            return int(await self._client.get(self._version) or 0)

    async def published(self) -> dict[bytes, bytes]:
        async with answering():
            return await self._client.hgetall(self._rounds)

    async def ping(self) -> None:
        async with answering():
            await self._client.ping()

    async def close(self) -> None:
        await self._opened.aclose()

    async def _list(self, round_id: bytes, record: bytes) -> None:
        # Drawn, not counted: a list that went back in time must not reach a number again that its
        # readers have seen.
        version = b"%d" % secrets.randbits(53)
        await self._run(_LIST, [self._rounds, self._version], version, round_id, record)

    async def _held(self, lane: Lane) -> LaneStatus:
        status = await self.status(lane)
        if status.phase in (LanePhase.GONE, LanePhase.DAMAGED):
            raise StoreLost("lane")
        return status

    async def _on_all_keys(self, layout: Layout, act: Callable[[Any, bytes], None]) -> None:
        """Has `act` give every key of a round to a pipeline."""
        for lane in layout.lanes:
            status = await self.status(lane)
            newest = LOST_EPOCHS if status.phase is LanePhase.GONE else status.epochs
            keys = [_seen(lane, bucket) for bucket in range(layout.buckets)]
            keys += [key(lane, 1 + epoch) for epoch in range(newest) for key in (_sum, _meta)]
            # The state goes last: it says how many epochs there are.
            keys.append(_state(lane))
            for start in range(0, len(keys), PIPELINE):
                async with answering():
                    pipeline = self._client.pipeline(transaction=False)
                    for key in keys[start : start + PIPELINE]:
                        act(pipeline, key)
                    if self._waits:
                        # What an earlier attempt has deleted is not written again, so `WAIT` alone
                        # would not see to it that replicas have deleted it.
                        pipeline.touch(_prefix(lane))
                    await pipeline.execute()

    async def _run(self, script: _Script, keys: list[bytes], *args: bytes) -> Any:
        async with answering():
            try:
                return await self._client.evalsha(script.sha, len(keys), *keys, *args)
            except NoScriptError:
                # A server that restarted has no scripts; nothing was run, so running it now is
                # safe.
                return await self._client.eval(script.text, len(keys), *keys, *args)


def _prefix(lane: Lane) -> bytes:
    return f"{{{lane.round_id.hex()}:{lane.name}}}".encode()


def _state(lane: Lane) -> bytes:
    return _prefix(lane) + b":state"


def _meta(lane: Lane, epoch: int) -> bytes:
    return _prefix(lane) + b":meta:%d" % epoch


def _sum(lane: Lane, epoch: int) -> bytes:
    return _prefix(lane) + b":sum:%d" % epoch


def _seen(lane: Lane, bucket: int) -> bytes:
    return _prefix(lane) + b":seen:%d" % bucket


def _status(reply: Sequence[bytes | None]) -> LaneStatus:
    phase, *numbers = reply
    if phase is None or phase == b"gone":
        return LaneStatus(LanePhase.GONE)
    count, epochs = (int(number or 0) for number in numbers)
    return LaneStatus(LanePhase(phase.decode()), count, epochs)
