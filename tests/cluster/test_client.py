"""How the store reaches a cluster: what is sent on, what is never repeated, what is waited for."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ClusterError

from collector import redis_cluster
from collector import redis_store as redis_store_module
from collector.redis_cluster import Cluster, ClusterAddress
from collector.redis_contract import LossyStore, RedisInspection, faults, gauges, require
from collector.redis_store import RedisStore, connect
from collector.store import (
    Code,
    CommitResult,
    Entry,
    Epoch,
    Lane,
    LanePhase,
    Layout,
    StoreUnavailable,
)
from tests.cluster.servers import ClusterServers, Server, until

LAYOUT = Layout(b"r" * 16, shards=1, partitions=1, capacity=20_000, secret=b"s" * 16)
LANE = LAYOUT.lanes[0]
STATE = b"{%s:0.0}:state" % LANE.round_id.hex().encode()


def random_entries(count: int) -> list[Entry]:
    """Reports with random keys."""
    keys = [os.urandom(32) for _ in range(count)]
    return [Entry(epk, os.urandom(4), LAYOUT.place(epk, 0)[1]) for epk in keys]


async def opened(store: RedisStore, lane: Lane = LANE) -> Epoch:
    """An open lane and the first epoch in it."""
    await store.open_lane(LAYOUT, lane)
    epoch = await store.new_epoch(lane, b"w" * 16)
    assert epoch is not None
    return epoch


async def stubborn(call: Callable[[], Awaitable[CommitResult]]) -> CommitResult:
    """Repeats until the outcome is known, as a committer does."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.02)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas that do not come are given up soon."""
    monkeypatch.setattr(redis_cluster, "WAIT_MS", 100)


async def test_the_client_library_repeats_nothing(
    store: RedisStore, servers: ClusterServers
) -> None:
    """Each server is reached by a client whose own retries are off."""
    cluster = servers.client(1)
    for node in await cluster.masters():
        connection: Any = cluster.client(node).connection_pool.make_connection()  # type: ignore[no-untyped-call]
        assert connection.retry.get_retries() == 0
        assert connection.retry_on_error == []


async def test_a_server_that_is_gone_is_asked_once(servers: ClusterServers) -> None:
    """A commit to a master that has died fails at once, with an unknown outcome."""
    store = servers.store(0)
    epoch = await opened(store)
    servers.master_of(STATE).kill()
    with pytest.raises(StoreUnavailable) as fault:
        await store.commit(LANE, epoch, 1, random_entries(1), b"sum")
    assert fault.value.kind == "ConnectionError"


async def test_no_server_at_all_is_a_typed_fault() -> None:
    """A cluster that nobody answers for is unavailable, not an error of the library."""
    cluster = Cluster(ClusterAddress.parse("redis+cluster://127.0.0.1:1"), connect, 1)
    store = RedisStore(cluster, "test")
    with pytest.raises(StoreUnavailable):
        await store.ping()
    with pytest.raises(TypeError):
        _ = store.redis


async def test_lanes_spread_over_masters(servers: ClusterServers, store: RedisStore) -> None:
    """The partitions of one round are served by all masters, and each lane by one of them."""
    layout = Layout(b"q" * 16, shards=1, partitions=8, capacity=1_000, secret=bytes(16))
    cluster = servers.client(1)
    holders = [
        await cluster.holder(b"{%s:%s}:state" % (layout.round_id.hex().encode(), it.name.encode()))
        for it in layout.lanes
    ]
    assert len(set(holders)) == 3


# Slots that move


async def test_a_slot_that_moves_loses_nothing(
    any_servers: ClusterServers, store: RedisStore
) -> None:
    """Commits go on, or wait, while a slot moves; afterwards everything is there once."""
    epoch = await opened(store)
    slot, source = key_slot(STATE), any_servers.master_of(STATE)
    target = next(it for it in any_servers.masters() if it is not source)
    batches = [random_entries(20) for _ in range(3)]
    assert (await store.commit(LANE, epoch, 1, batches[0], b"1")).code is Code.OK
    # Before the first key goes, in the middle, and after the last: the old master, both, the new.
    any_servers.begin_moving(slot, source, target)
    second = asyncio.create_task(stubborn(lambda: store.commit(LANE, epoch, 2, batches[1], b"2")))
    await asyncio.sleep(0.05)
    assert any_servers.move_keys(slot, source, target, 5) == 5
    # What is read by one key is found on either side meanwhile.
    assert (await store.status(LANE)).phase is LanePhase.OPEN
    assert set(await store.keys(LAYOUT, LANE)) >= {entry.epk for entry in batches[0]}
    await asyncio.to_thread(any_servers.end_moving, slot, source, target)
    assert (await second).code in (Code.OK, Code.ALREADY)
    assert (await store.commit(LANE, epoch, 3, batches[2], b"3")).code is Code.OK
    assert sorted(await store.keys(LAYOUT, LANE)) == sorted(
        entry.epk for batch in batches for entry in batch
    )
    assert await store.sums(LANE) == [b"3"]
    assert any_servers.master_of(STATE) is target
    # Back, for the tests that follow.
    any_servers.begin_moving(slot, target, source)
    any_servers.end_moving(slot, target, source)


async def test_a_single_key_is_asked_for_where_it_goes(servers: ClusterServers) -> None:
    """ASK: a key that is not at the old master any more is used at the new one, at once."""
    store = servers.store(1)
    slot, source = key_slot(STATE), servers.master_of(STATE)
    target = next(it for it in servers.masters() if it is not source)
    servers.begin_moving(slot, source, target)
    # Several connections, as under load.
    await asyncio.gather(*(store.status(LANE) for _ in range(8)))
    await store.open_lane(LAYOUT, LANE)
    assert target.call("CLUSTER", "COUNTKEYSINSLOT", slot) == 1
    found = await asyncio.gather(*(store.status(LANE) for _ in range(8)))
    assert {status.phase for status in found} == {LanePhase.OPEN}
    servers.end_moving(slot, source, target)
    servers.begin_moving(slot, target, source)
    servers.end_moving(slot, target, source)


async def test_control_the_library_s_cluster_client_asks_in_vain(servers: ClusterServers) -> None:
    """It sends ASKING and the command over different connections: no such key is ever reached."""
    slot, source = key_slot(STATE), servers.master_of(STATE)
    target = next(it for it in servers.masters() if it is not source)
    nodes = [ClusterNode(it.node.host, it.node.port) for it in servers.masters()]
    async with RedisCluster(
        startup_nodes=nodes, retry=Retry(NoBackoff(), 0), reinitialize_steps=0, protocol=2
    ) as client:
        # Two idle connections to the target are enough.
        await asyncio.gather(*(client.ping(target_nodes=client.get_primaries()) for _ in range(2)))
        servers.begin_moving(slot, source, target)
        with pytest.raises(ClusterError, match="TTL"):
            await client.hset(STATE, "phase", "open")
    servers.end_moving(slot, source, target)
    servers.begin_moving(slot, target, source)
    servers.end_moving(slot, target, source)


# Replicas


async def test_a_commit_counts_when_a_replica_has_it(
    store: RedisStore, any_servers: ClusterServers, impatient: None
) -> None:
    """Until then its outcome is unknown, also when it is repeated; then it has happened once."""
    epoch = await opened(store)
    entries = random_entries(3)
    replica = any_servers.replica_of(any_servers.master_of(STATE))
    replica.cut_off()
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as fault:
            await store.commit(LANE, epoch, 1, entries, b"sum")
        assert fault.value.kind == "Unreplicated"
    replica.client.config_set("masterauth", "")
    assert (await stubborn(lambda: store.commit(LANE, epoch, 1, entries, b"sum"))).code is (
        Code.ALREADY
    )
    assert (await store.status(LANE)).count == 3


async def test_whoever_confirms_another_s_commit_waits_too(
    store: RedisStore, any_servers: ClusterServers, impatient: None
) -> None:
    """A duplicate is an acknowledgement: a process that has written nothing waits as well."""
    epoch = await opened(store)
    other = await store.new_epoch(LANE, b"o" * 16)
    assert other is not None
    entries = random_entries(1)
    # Linked, and silent: WAIT counts it as far as it has once come.
    any_servers.replica_of(any_servers.master_of(STATE)).pause()
    with pytest.raises(StoreUnavailable):
        await store.commit(LANE, epoch, 1, entries, b"sum")
    # Each time over a connection that has written nothing before.
    confirmations: list[Callable[[RedisStore], Awaitable[object]]] = [
        lambda bystander: bystander.commit(LANE, epoch, 1, entries, b"sum"),
        lambda bystander: bystander.commit(LANE, other, 1, entries, b"sum"),
        lambda bystander: bystander.lookup(LANE, entries[0].bucket, entries[0].epk),
    ]
    for confirm in confirmations:
        with pytest.raises(StoreUnavailable) as fault:
            await confirm(any_servers.store(1))
        assert fault.value.kind == "Unreplicated"


async def test_control_without_a_write_of_its_own_nobody_is_waited_for(
    servers: ClusterServers, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    """WAIT knows the writes of its own connection only: a bare ALREADY confirms too much."""
    text = redis_store_module._COMMIT.text
    bare = text.replace("ARGV[7] == '1'", "false")
    assert bare != text
    monkeypatch.setattr(redis_store_module, "_COMMIT", redis_store_module._Script.of(bare))
    store = servers.store(1)
    epoch = await opened(store)
    entries = random_entries(1)
    servers.replica_of(servers.master_of(STATE)).pause()
    with pytest.raises(StoreUnavailable):
        await store.commit(LANE, epoch, 1, entries, b"sum")
    again = servers.store(1)
    result = await again.commit(LANE, epoch, 1, entries, b"sum")
    assert result.code is Code.ALREADY


async def test_every_step_of_a_round_waits(servers: ClusterServers, impatient: None) -> None:
    """Lanes, epochs, phases, the list, the end of a round: nothing counts on one server alone."""
    await opened(servers.store(1))
    masters = [servers.master_of(key) for key in (STATE, b"{test}:rounds")]
    for replica in [servers.replica_of(master) for master in masters]:
        replica.pause()
    # Each over a connection that has written nothing before. What is done again is not done twice,
    # and waits all the same.
    steps: list[Callable[[RedisStore], Awaitable[object]]] = [
        lambda store: store.open_lane(LAYOUT, LANE),
        lambda store: store.new_epoch(LANE, b"v" * 16),
        lambda store: store.step(LANE, LanePhase.SEALED),
        lambda store: store.step(LANE, LanePhase.SEALED),
        lambda store: store.expire_at(LAYOUT, 4_000_000_000),
        lambda store: store.purge(LAYOUT),
        lambda store: store.purge(LAYOUT),
        lambda store: store.expire_at(LAYOUT, 4_000_000_000),
        lambda store: store.publish(b"r" * 16, b"record"),
    ]
    for step in steps:
        with pytest.raises(StoreUnavailable) as fault:
            await step(servers.store(1))
        assert fault.value.kind == "Unreplicated"


@pytest.mark.parametrize("state_is_lost", [False, True])
async def test_a_purge_leaves_no_key(servers: ClusterServers, state_is_lost: bool) -> None:
    """Done twice, as after an unknown outcome; nothing stays on any server, whatever was lost."""
    store = servers.store(1)
    epoch = await opened(store)
    await store.commit(LANE, epoch, 1, random_entries(300), b"sum")
    if state_is_lost:
        # It says how many epochs have sums.
        servers.master_of(STATE).call("UNLINK", STATE)
    for _ in range(2):
        await store.purge(LAYOUT)
    assert [server.call("DBSIZE") for server in servers.servers] == [0] * 6


async def test_a_list_that_went_back_is_read_again(servers: ClusterServers) -> None:
    """The list's version never comes back to a number that a reader has seen."""
    hasty = servers.store(0)
    await hasty.publish(b"1" * 16, b"before")
    master = servers.master_of(b"{test}:rounds")
    servers.replica_of(master).cut_off()
    await hasty.publish(b"2" * 16, b"lost")
    seen = await hasty.version()
    await asyncio.to_thread(servers.replace, master)
    await stubborn_list(hasty)
    assert await hasty.version() != seen
    assert await hasty.published() == {b"1" * 16: b"before", b"3" * 16: b"after"}


async def stubborn_list(store: RedisStore) -> None:
    """Publishes until that has worked."""
    async with asyncio.timeout(20):
        while True:
            try:
                await store.publish(b"3" * 16, b"after")
            except StoreUnavailable:
                await asyncio.sleep(0.02)
            else:
                return


# The contract


async def test_a_keeping_cluster_is_trusted(any_servers: ClusterServers) -> None:
    """The settings of deploy/redis-cluster.conf pass, on both kinds of server."""
    cluster = any_servers.client(1)
    await require(cluster)
    inspection = RedisInspection(cluster)
    assert await inspection.faults() == []
    assert abs(await inspection.clock() - time.time()) < 2
    assert (await gauges(cluster))["memory_bytes"] > 0


@pytest.mark.parametrize("replica", [False, True])
@pytest.mark.parametrize(
    "setting, value",
    [("appendfsync", "everysec"), ("cluster-allow-reads-when-down", "yes")],
)
async def test_one_forgetful_server_is_enough(
    servers: ClusterServers, setting: str, value: str, replica: bool
) -> None:
    """Any master or replica with looser settings is named: a replica may be a master soon."""
    cluster = servers.client(1)
    server = servers.masters()[-1]
    if replica:
        server = servers.replica_of(server)
    [before] = server.client.config_get(setting).values()
    server.client.config_set(setting, value)
    try:
        with pytest.raises(LossyStore, match=f"{server.node}: set `{setting} "):
            await require(cluster)
    finally:
        server.client.config_set(setting, before)


async def test_a_master_without_its_replica_is_named_at_the_start(servers: ClusterServers) -> None:
    """Nothing would ever be confirmed there; who asks for no replica starts."""
    master = servers.masters()[0]
    servers.replica_of(master).cut_off()
    until(lambda: master.info()["connected_slaves"] == 0, "still linked")
    cluster = servers.client(1)
    with pytest.raises(LossyStore, match=f"replicas_acknowledge = 1.*{master.node}"):
        await require(cluster)
    assert await faults(cluster) == []
    hasty = servers.client(0)
    await require(hasty)


async def test_every_file_is_rewritten(any_servers: ClusterServers, store: RedisStore) -> None:
    """Overwritten sums are in the files of master and replica until both are rewritten."""
    epoch = await opened(store)
    first, second = os.urandom(32), os.urandom(32)
    await store.commit(LANE, epoch, 1, random_entries(1), first)
    await store.commit(LANE, epoch, 2, random_entries(1), second)
    master = any_servers.master_of(STATE)
    holders = [master, any_servers.replica_of(master)]
    assert all(first in on_disk(server) for server in holders)
    # Twice: one that is under way is waited for, not taken for this one.
    await asyncio.gather(store.compact(), store.compact())
    for server in holders:
        await asyncio.to_thread(until, partial(only, server, second, first), "still there")


def only(server: Server, wanted: bytes, unwanted: bytes) -> bool:
    """Whether one value is on its disk and the other is not."""
    found = on_disk(server)
    return wanted in found and unwanted not in found


def on_disk(server: Server) -> bytes:
    """Everything a server has written."""
    found = b""
    for path in server.folder.joinpath("appendonlydir").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += path.read_bytes()
    return found
