"""Failovers that forget a seal, or keys on the move: the set is right, or the round is damaged."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from redis.crc import key_slot

from collector.redis_store import RedisStore
from collector.scheme import scheme_of
from collector.sealing import Damaged, check_seals, seal_round
from collector.store import Code, Epoch, LanePhase, Layout, StoreLost, StoreUnavailable
from dandelion.schemes import oneshot
from tests.cluster.servers import ClusterServers, until
from tests.collector.builders import descriptor_for, entry_of, plain_report

D = descriptor_for(slots=64)
LAYOUT = Layout.of(D, 1, bytes(16))
LANE = LAYOUT.lanes[0]
KEY = b"{%s:0.0}" % D.round_id.hex().encode()


async def committed(store: RedisStore, epoch: Epoch, seq: int, clients: range) -> Code:
    """Commits everybody up to the last of `clients`; those in the range are new."""
    reports = [plain_report(D, client) for client in range(clients.stop)]
    total = oneshot.fold(D, oneshot.zero(D), [report.encode() for report in reports])
    entries = [entry_of(report, LAYOUT) for report in reports[clients.start :]]
    return (await store.commit(LANE, epoch, seq, entries, total)).code


async def begun(store: RedisStore) -> Epoch:
    """A lane with five reports, which a replica has."""
    await store.open_lane(LAYOUT, LANE)
    epoch = await store.new_epoch(LANE, b"w" * 16)
    assert epoch is not None
    assert await committed(store, epoch, 1, range(5)) is Code.OK
    return epoch


async def until_known(call: Callable[[], Awaitable[object]]) -> None:
    """Repeats until the store has answered."""
    async with asyncio.timeout(20):
        while True:
            try:
                await call()
            except StoreUnavailable:
                await asyncio.sleep(0.02)
            else:
                return


@pytest.mark.parametrize("late", [0, 3])
async def test_a_seal_that_is_forgotten_is_made_again(servers: ClusterServers, late: int) -> None:
    """Before a release: nothing came late and the lane is sealed anew, or the round is damaged."""
    epoch = await begun(servers.store(1))
    store = servers.store(0)
    master = servers.master_of(KEY)
    servers.replica_of(master).cut_off()
    seals = await seal_round(store, scheme_of(D), D, LAYOUT, ())
    await check_seals(store, LAYOUT, seals)
    await asyncio.to_thread(servers.replace, master)
    # A process that slept through all of it.
    await until_known(lambda: store.status(LANE))
    assert (await store.status(LANE)).phase is LanePhase.OPEN
    if late:
        assert await committed(store, epoch, 2, range(5, 5 + late)) is Code.OK
        with pytest.raises(Damaged, match="after the seal"):
            await check_seals(store, LAYOUT, seals)
    else:
        await check_seals(store, LAYOUT, seals)
        assert await committed(store, epoch, 2, range(5, 8)) is Code.SEALED


async def test_a_seal_that_is_forgotten_while_it_is_read_is_made_again(
    servers: ClusterServers,
) -> None:
    """A commit between the reads would be in the sum and not in the set: all is read again."""
    epoch = await begun(servers.store(1))
    store = Reading(servers.client(0), "test")
    master = servers.master_of(KEY)
    servers.replica_of(master).cut_off()

    async def meanwhile() -> None:
        await asyncio.to_thread(servers.replace, master)
        await until_known(lambda: committed(store, epoch, 2, range(5, 8)))

    store.after_keys = meanwhile
    with pytest.raises(StoreUnavailable, match="Unsealed"):
        await seal_round(store, scheme_of(D), D, LAYOUT, ())
    [seal] = await seal_round(store, scheme_of(D), D, LAYOUT, ())
    assert seal.n == 8


@pytest.mark.parametrize("lost", [b"", b":seen:", b":state"])
async def test_keys_that_a_move_has_lost_are_missed(servers: ClusterServers, lost: bytes) -> None:
    """No commit waits for a slot that moves: its new master may die before a replica has the keys.

    Those with `lost` in their names are gone then; the control is the same move without a loss.
    """
    store = servers.store(1)
    epoch = await begun(store)
    slot, source = key_slot(KEY), servers.master_of(KEY)
    target = next(it for it in servers.masters() if it is not source)
    replica = servers.replica_of(target)
    servers.begin_moving(slot, source, target)
    keys = source.call("CLUSTER", "GETKEYSINSLOT", slot, 100)
    late = [key for key in keys if lost and lost in key]
    assert bool(late) == bool(lost)
    servers.move(source, target, [key for key in keys if key not in late])
    until(lambda: replica.offset() == target.offset(), "the replica does not follow")
    replica.cut_off()
    servers.move(source, target, late)
    servers.end_moving(slot, source, target)
    await asyncio.to_thread(servers.replace, target)
    await asyncio.to_thread(target.start)
    if lost == b":state":
        with pytest.raises(StoreLost):
            await until_known(lambda: committed(store, epoch, 2, range(5, 8)))
    else:
        # Reports that are not there any more would be taken again, and be in the sum twice.
        await until_known(lambda: committed(store, epoch, 2, range(5, 8)))
    sealing = partial(seal_round, store, scheme_of(D), D, LAYOUT, ())
    if lost:
        with pytest.raises(Damaged):
            await until_known(sealing)
    else:
        await until_known(sealing)
        [seal] = await sealing()
        assert seal.n == 8


class Reading(RedisStore):
    """Does something once, when the keys of a lane have been read."""

    after_keys: Callable[[], Awaitable[None]] | None = None

    async def keys(self, layout: Layout, lane: object) -> list[bytes]:
        """The keys; then what is to happen happens."""
        found = await super().keys(layout, LANE)
        act, self.after_keys = self.after_keys, None
        if act is not None:
            await act()
        return found
