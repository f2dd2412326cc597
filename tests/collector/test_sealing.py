"""The seal and what follows it, when store, disk or helper fail for a while or for good."""

import sqlite3
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import registry
from collector.anchors import Anchor
from collector.redis_store import RedisStore
from collector.scheme import scheme_of
from collector.sealing import Damaged, ascending, seal_round
from collector.store import (
    Epoch,
    EpochMeta,
    Lane,
    LanePhase,
    LaneStatus,
    Layout,
    MemoryStore,
    StoreUnavailable,
)
from dandelion.schemes import oneshot
from tests.collector.builders import descriptor_for, entry_of, plain_report
from tests.collector.rig import parties, rig
from tests.collector.test_rounds import assert_published
from tests.services import StoreServer

D = descriptor_for(slots=64, cohort_min=3)
LAYOUT = Layout.of(D, 1, bytes(16))
LANE = LAYOUT.lanes[0]
WHO = b"w" * 16


async def filled(count: int, total: bytes | None = None) -> MemoryStore:
    """A store with `count` reports, whose sum may be given."""
    store = MemoryStore()
    await store.open_lane(LAYOUT, LANE)
    epoch = await store.new_epoch(LANE, WHO)
    assert epoch is not None
    reports = [plain_report(D, client) for client in range(count)]
    honest = oneshot.fold(D, oneshot.zero(D), [report.encode() for report in reports])
    entries = [entry_of(report, LAYOUT) for report in reports]
    await store.commit(LANE, epoch, 1, entries, honest if total is None else total)
    return store


async def seal(store: MemoryStore, anchors: tuple[Anchor, ...] = ()) -> list[registry.Seal]:
    """Seals the round."""
    return await seal_round(store, scheme_of(D), D, LAYOUT, anchors)


async def test_a_seal_fixes_set_and_sum() -> None:
    """Keys ascend, n is their number, and sealing again gives the same."""
    store = await filled(5)
    [first] = await seal(store)
    assert first.n == 5
    keys = [first.keys[at : at + 32] for at in range(0, len(first.keys), 32)]
    assert keys == sorted(plain_report(D, client).epk for client in range(5))
    assert await seal(store) == [first]


async def test_a_shard_below_the_minimum_is_left_out() -> None:
    """One report too few: sealed, and not among what may be asked for."""
    store = await filled(2)
    assert await seal(store) == []
    assert (await store.status(LANE)).phase is LanePhase.SEALED


async def test_counts_that_disagree_are_damage() -> None:
    """Keys, counters of the epochs and the lane's own count say how many reports there are."""
    store = await filled(5)
    store._lanes[LANE].epochs[1].n = 6
    with pytest.raises(Damaged, match="keys and sums of lane"):
        await seal(store)


async def test_a_sum_of_another_length_is_damage() -> None:
    """What cannot be a sum of these reports is not asked for."""
    with pytest.raises(Damaged, match="wrong length"):
        await seal(await filled(5, total=b"short"))


async def test_keys_that_a_helper_would_refuse_are_damage() -> None:
    """An ask that must fail would waste the one ask a shard has."""
    store = await filled(5)
    state = store._lanes[LANE]
    state.seen[bytes(32)] = state.seen.pop(next(iter(state.seen)))
    with pytest.raises(Damaged, match="bad_key"):
        await seal(store)


class Twice(MemoryStore):
    """Holds one key in two buckets, where another key should be."""

    async def keys(self, layout: Layout, lane: Lane) -> list[bytes]:
        found = await super().keys(layout, lane)
        return [*found[:-1], found[0]]


async def test_a_key_that_is_there_twice_is_damage() -> None:
    """Its vector is in the sum once or twice, nobody knows: the number of keys alone is right."""
    store = await filled(5)
    twice = Twice()
    twice._lanes = store._lanes
    with pytest.raises(Damaged, match="bad_set"):
        await seal(twice)
    assert len(await seal(store)) == 1


async def test_a_key_that_is_no_key_is_damage() -> None:
    """A key of another length would shift all that follow it."""
    store = await filled(5)
    state = store._lanes[LANE]
    state.seen[bytes(31)] = state.seen.pop(next(iter(state.seen)))
    with pytest.raises(Damaged, match="truncated"):
        await seal(store)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40), st.randoms())
def test_keys_ascend_byte_by_byte(keys: list[bytes], random: Random) -> None:
    """Also where they end in zeros or share all bytes but the last."""
    more = [key[:31] + bytes([last]) for key in keys for last in (0, 1, 255)]
    mixed = [*keys, *more, bytes(32), b"\xff" * 32]
    random.shuffle(mixed)
    assert ascending(b"".join(mixed)) == b"".join(sorted(mixed))


async def test_an_anchor_of_another_lane_does_not_matter() -> None:
    """Only anchors of this round's lanes are held against it."""
    other = Anchor(Lane(D.round_id, 0, 7), EpochMeta(Epoch(1, WHO), 9, 9))
    assert len(await seal(await filled(5), (other,))) == 1
    mine = Anchor(LANE, EpochMeta(Epoch(1, WHO), 2, 9))
    with pytest.raises(Damaged, match="behind"):
        await seal(await filled(5), (mine,))


class Moody(MemoryStore):
    """Does not answer the next `bad` questions about phases."""

    def __init__(self) -> None:
        super().__init__()
        self.bad = 0

    async def step(self, lane: Lane, to: LanePhase) -> LaneStatus:
        if self.bad:
            self.bad -= 1
            raise StoreUnavailable("moody")
        return await super().step(lane, to)


async def test_a_store_that_is_away_delays_the_seal(tmp_path: Path) -> None:
    """The driver tries again until the store answers; nothing is lost."""
    store = Moody()
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        await it.send(d, range(4))
        store.bad = 2
        it.clock.reach(d.closes)
        await assert_published(it, round_id, range(4))
        assert store.bad == 0


@pytest.mark.parametrize("name", ["add_seals", "add_release"])
async def test_a_disk_that_fails_delays_the_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A write that fails changes nothing, and is tried again."""
    real = getattr(registry, name)
    failures: list[str] = []

    def failing(*args: Any, **named: Any) -> Any:
        if not failures:
            failures.append(name)
            raise sqlite3.OperationalError("disk I/O error")
        return real(*args, **named)

    monkeypatch.setattr(registry, name, failing)
    async with rig(tmp_path, MemoryStore()) as it:
        round_id, d = await it.open()
        await it.send(d, range(4))
        it.clock.reach(d.closes)
        await assert_published(it, round_id, range(4))
    assert failures == [name]


async def test_keys_of_a_sealed_round_expire(tmp_path: Path, valkey: StoreServer) -> None:
    """From the seal on every key of the round leaves the store by itself at `expires`."""
    async with rig(tmp_path, redis_url=valkey.url) as it:
        store = it.node.store
        assert isinstance(store, RedisStore)
        await store.redis.flushall()
        round_id, d = await it.open()
        await it.send(d, range(4))
        pattern = f"*{round_id}*"
        names: list[bytes] = await store.redis.keys(pattern)  # type: ignore[assignment]
        assert {await store.redis.ttl(name) for name in names} == {-1}
        it.clock.reach(d.closes)
        await assert_published(it, round_id, range(4))
        times = {await store.redis.expiretime(name.decode()) for name in names}
        assert times == {d.expires}


@pytest.mark.parametrize("lost", ["everything", "the epochs"])
async def test_what_the_store_lost_while_nobody_was_here(tmp_path: Path, lost: str) -> None:
    """A lane that was made once is not made again: its absence is a loss, also after a restart."""
    store = MemoryStore()
    async with parties(tmp_path) as them:
        async with them.rig(store) as it:
            round_id, d = await it.open()
            await it.send(d, range(4))
        if lost == "everything":
            store = MemoryStore()
        else:
            store._lanes[Layout.of(d, 1, b"").lanes[0]].epochs.clear()
        async with them.rig(store) as it:
            if lost == "the epochs":
                it.clock.reach(d.closes)
            shown = await it.until(round_id, "damaged", "released", "abandoned")
            assert shown["phase"] == "damaged", shown


async def test_one_process_that_meets_a_gap_tells_all(tmp_path: Path) -> None:
    """A store that forgot one step: the round is damaged at once, not only at the seal."""
    store = MemoryStore()
    async with rig(tmp_path, store) as it:
        round_id, d = await it.open()
        assert await it.send(d, range(4)) == [201] * 4
        [lane] = store._lanes.values()
        lane.epochs[1].seq -= 1
        assert await it.send(d, [5]) == [409]
        shown = await it.until(round_id, "damaged", seconds=5)
        assert shown["reason"] == "lane 0.0 is damaged"


async def test_a_helper_that_left_the_configuration(tmp_path: Path) -> None:
    """It cannot be asked any more; the round says so and waits for it until `expires`."""
    async with rig(tmp_path, MemoryStore()) as it:
        round_id, d = await it.open()
        await it.send(d, range(4))
        driver = it.node.driver
        assert driver is not None
        gone = driver._services.helpers[0].identity
        object.__setattr__(driver._services, "helpers", driver._services.helpers[1:])
        it.clock.reach(d.closes)
        await it.until(round_id, "sealed")
        for _ in range(100):
            shown = await it.until(round_id, "sealed")
            if shown["reason"]:
                break
        assert shown["reason"] == f"helper {gone.hex()[:8]}: not configured"
        it.clock.reach(d.expires)
        assert (await it.until(round_id, "abandoned"))["phase"] == "abandoned"
