"""What is asked of Redis before it is trusted, and what the store does on it."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError

from collector import redis_contract
from collector.redis_contract import LossyStore, faults, require
from collector.redis_store import RedisStore, connect
from collector.store import (
    BUCKET_REPORTS_MAX,
    Code,
    Entry,
    LanePhase,
    Layout,
    StoreLost,
    StoreUnavailable,
)
from dandelion.cli.embedded_store import valkey_binary
from tests.collector.proxy import DROP_REPLY, FaultyProxy
from tests.services import StoreServer, redis_binary

LAYOUT = Layout(b"r" * 16, shards=1, partitions=1, capacity=20_000, secret=b"s" * 16)
LANE = LAYOUT.lanes[0]


def random_entries(count: int) -> list[Entry]:
    """Reports with random keys."""
    keys = [os.urandom(32) for _ in range(count)]
    return [Entry(epk, os.urandom(4), LAYOUT.place(epk, 0)[1]) for epk in keys]


async def filled(store: RedisStore, count: int) -> None:
    """An open lane with `count` reports."""
    await store.open_lane(LAYOUT, LANE)
    epoch = await store.new_epoch(LANE, b"w" * 16)
    assert epoch is not None
    for seq, start in enumerate(range(0, count, 500), start=1):
        entries = random_entries(min(500, count - start))
        assert (await store.commit(LANE, epoch, seq, entries, b"sum")).code is Code.OK


@pytest.fixture(params=["valkey", "redis"])
def any_server(request: pytest.FixtureRequest) -> Iterator[StoreServer]:
    """Each kind of server, started for this test alone."""
    server = StoreServer(valkey_binary() if request.param == "valkey" else redis_binary())
    server.start()
    yield server
    server.discard()


@pytest.fixture
async def store(any_server: StoreServer) -> AsyncIterator[RedisStore]:
    """A store on a server of this test's own."""
    found = RedisStore(connect(any_server.url), "test")
    yield found
    await found.close()


async def test_the_client_library_repeats_nothing(redis_store: RedisStore) -> None:
    """The library's own retries would send a commit again under nobody's control: it has none."""
    connection: Any = redis_store.redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    assert connection.retry.get_retries() == 0
    assert connection.retry_on_error == []


@pytest.mark.parametrize("retries", [None, 3])
async def test_a_lost_reply_is_not_asked_for_again(
    redis_store: RedisStore, valkey: StoreServer, retries: int | None
) -> None:
    """A counter whose reply is lost counts once; with the library's retries it would count more."""
    drops: list[str] = []
    async with FaultyProxy(valkey.socket, lambda: drops.pop() if drops else None) as proxy:
        client = connect(proxy.url)
        if retries is not None:
            client = Redis.from_url(proxy.url, retry=Retry(NoBackoff(), retries), protocol=2)
        await client.ping()
        drops.append(DROP_REPLY)
        if retries is None:
            with pytest.raises(ConnectionError):
                await client.incr("counter")
        else:
            await client.incr("counter")
        await client.aclose()
    counted = int(await redis_store.redis.get("counter") or 0)
    assert counted == (1 if retries is None else 2)


async def test_a_keeping_server_is_trusted(any_server: StoreServer, store: RedisStore) -> None:
    """The settings of the demonstration pass, on both kinds of server."""
    assert await faults(store.redis) == []
    await require(store.redis)


@pytest.mark.parametrize(
    "setting, value",
    [
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("maxmemory-policy", "allkeys-lru"),
        ("hash-max-listpack-entries", str(BUCKET_REPORTS_MAX - 1)),
        ("hash-max-listpack-value", "16"),
    ],
)
async def test_a_forgetful_server_is_refused(
    redis_store: RedisStore, setting: str, value: str
) -> None:
    """The message names the setting and what to change it to."""
    [before] = (await redis_store.redis.config_get(setting)).values()
    assert before is not None
    await redis_store.redis.config_set(setting, value)
    try:
        with pytest.raises(LossyStore, match=f"set `{setting} ") as refusal:
            await require(redis_store.redis)
    finally:
        await redis_store.redis.config_set(setting, before)
    assert "allow_lossy" in str(refusal.value)


async def test_a_replica_is_refused(redis_store: RedisStore) -> None:
    """A replica confirms what its primary may never have heard of."""
    await redis_store.redis.replicaof("127.0.0.1", "1")
    try:
        assert any("replica" in text for text in await faults(redis_store.redis))
    finally:
        await redis_store.redis.replicaof("NO", "ONE")


async def test_an_old_server_is_refused(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts of older servers were replicated word by word, not by effect."""
    monkeypatch.setattr(redis_contract, "VERSION_MIN", (99, 0))
    assert "the server must be version" in (await faults(redis_store.redis))[0]


async def test_an_epoch_that_was_never_handed_out_is_a_loss(redis_store: RedisStore) -> None:
    """A lane that went back in time meets the traces of an epoch it does not remember."""
    await redis_store.open_lane(LAYOUT, LANE)
    meta = b"{%s:0.0}:meta:1" % LANE.round_id.hex().encode()
    await redis_store.redis.hset(meta, mapping={"who": b"x" * 16, "seq": 5, "n": 9})
    with pytest.raises(StoreLost):
        await redis_store.new_epoch(LANE, b"w" * 16)
    await redis_store.redis.delete(meta)
    assert await redis_store.new_epoch(LANE, b"w" * 16) is not None


async def test_reports_cost_little_memory(any_server: StoreServer, store: RedisStore) -> None:
    """At most 20 bytes beyond the 32 of its key, for each report of a full round."""
    count = LAYOUT.capacity
    await filled(store, count)
    total = 0
    for bucket in range(LAYOUT.buckets):
        name = b"{%s:0.0}:seen:%d" % (LANE.round_id.hex().encode(), bucket)
        assert await store.redis.object("ENCODING", name) == b"listpack"
        total += await store.redis.memory_usage(name, samples=0) or 0
    beyond_key = total / count - 32
    print(f"{any_server.folder}: {beyond_key:.1f} bytes per report beyond the key")
    assert beyond_key <= 20


async def test_committed_reports_survive_a_crash(
    any_server: StoreServer, store: RedisStore
) -> None:
    """kill -9 after a commit was confirmed: after the restart it is there, and known as done."""
    await store.open_lane(LAYOUT, LANE)
    epoch = await store.new_epoch(LANE, b"w" * 16)
    assert epoch is not None
    entries = random_entries(100)
    assert (await store.commit(LANE, epoch, 1, entries, b"sum")).code is Code.OK
    any_server.kill()
    with pytest.raises(StoreUnavailable):
        await store.commit(LANE, epoch, 1, entries, b"sum")
    any_server.start()
    # The scripts have to be sent again as well: the server has none after a start.
    assert (await store.commit(LANE, epoch, 1, entries, b"sum")).code is Code.ALREADY
    assert (await store.status(LANE)).count == 100


async def test_a_server_without_memory_writes_nothing(redis_store: RedisStore) -> None:
    """At its limit the server refuses before the first write: nothing is half committed."""
    await redis_store.open_lane(LAYOUT, LANE)
    epoch = await redis_store.new_epoch(LANE, b"w" * 16)
    assert epoch is not None
    await redis_store.redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable) as refusal:
            await redis_store.commit(LANE, epoch, 1, random_entries(10), b"sum")
    finally:
        await redis_store.redis.config_set("maxmemory", "0")
    assert refusal.value.kind == "OutOfMemoryError"
    assert (await redis_store.status(LANE)).count == 0
    assert await redis_store.keys(LAYOUT, LANE) == []


async def test_an_expiring_round_leaves_by_itself(redis_store: RedisStore) -> None:
    """Every key of a round gets the time; no key of an open round has one."""
    await filled(redis_store, 1_000)
    names: list[bytes] = await redis_store.redis.keys("*")  # type: ignore[assignment]
    assert {await redis_store.redis.ttl(name) for name in names} == {-1}
    await redis_store.expire_at(LAYOUT, 4_000_000_000)
    assert {await redis_store.redis.expiretime(str(name, "ascii")) for name in names} == {
        4_000_000_000
    }
    await redis_store.expire_at(LAYOUT, 1)
    assert await redis_store.redis.dbsize() == 0


async def test_a_purge_leaves_no_key(redis_store: RedisStore) -> None:
    """Sums, metas, buckets and the lane itself are gone."""
    await filled(redis_store, 1_000)
    await redis_store.step(LANE, LanePhase.SEALED)
    await redis_store.purge(LAYOUT)
    assert await redis_store.redis.dbsize() == 0


async def test_compaction_removes_overwritten_sums(
    any_server: StoreServer, store: RedisStore
) -> None:
    """Consecutive sums differ by one batch; after a rewrite the old ones are not in the files."""
    await store.open_lane(LAYOUT, LANE)
    epoch = await store.new_epoch(LANE, b"w" * 16)
    assert epoch is not None
    first, second = (uuid.uuid4().bytes for _ in range(2))
    await store.commit(LANE, epoch, 1, random_entries(1), first)
    await store.commit(LANE, epoch, 2, random_entries(1), second)
    assert first in files(any_server)
    await store.compact()
    for _ in range(200):
        await asyncio.sleep(0.02)
        if not (await store.redis.info("persistence"))["aof_rewrite_in_progress"]:
            break
    assert first not in files(any_server)
    assert second in files(any_server)


def files(server: StoreServer) -> bytes:
    """Everything the server has on disk."""
    return b"".join(path.read_bytes() for path in server.folder.rglob("*") if path.is_file())
