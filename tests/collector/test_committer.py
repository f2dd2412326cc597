"""Group commit: acknowledged and summed are the same set, each exactly once, whatever gets lost."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import numpy as np
import pytest

from collector import redis_store as redis_store_module
from collector.committer import BatchLimits, LaneCommitter, Outcome, _Item
from collector.redis_store import RedisStore, connect
from collector.store import (
    Code,
    CommitResult,
    Entry,
    Epoch,
    EpochMeta,
    Lane,
    LanePhase,
    Layout,
    RoundStore,
    StoreUnavailable,
)
from dandelion import kernel
from dandelion.descriptor import Descriptor
from dandelion.schemes import oneshot
from tests.collector.builders import FaultyStore, descriptor_for, entry_of, plain_report
from tests.collector.proxy import DROP_REPLY, DROP_REQUEST, FaultyProxy
from tests.oracle_membership import Vector, assert_exactly_once, counted
from tests.services import StoreServer

DESCRIPTOR = descriptor_for(slots=512)
LAYOUT = Layout.of(DESCRIPTOR, 1, bytes(16))
LANE = LAYOUT.lanes[0]
QUICK = BatchLimits(delay_s=0.001, retry_min_s=0.001, retry_max_s=0.01)


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.metas: list[EpochMeta] = []
        self.losses = 0
        self.results: list[str] = []
        self.forty = asyncio.Event()

    def committed(self, lane: Lane, meta: EpochMeta, reports: int, seconds: float) -> None:
        self.metas.append(meta)
        if meta.n >= 40:
            self.forty.set()

    def lost(self, lane: Lane, epoch: Epoch | None) -> None:
        self.losses += 1

    def result(self, word: str) -> None:
        self.results.append(word)


class Rig:
    """A lane with a committer, and clients that set their own coordinate."""

    def __init__(
        self,
        store: RoundStore,
        limits: BatchLimits = QUICK,
        layout: Layout = LAYOUT,
        kind: type[LaneCommitter] = LaneCommitter,
        who: bytes = b"w" * 16,
    ) -> None:
        self.store, self.layout, self.notes = store, layout, Notes()
        self.committer = kind(
            store,
            layout.lanes[0],
            who=who,
            zero=oneshot.zero(DESCRIPTOR),
            fold=partial(oneshot.fold, DESCRIPTOR),
            limits=limits,
            observer=self.notes,
        )

    async def send(self, client: int, *, alter: bool = False) -> Outcome:
        """Client number `client` sends its report, or another one under the same key."""
        report = plain_report(DESCRIPTOR, client)
        if alter:
            other = plain_report(DESCRIPTOR, client + 1).payload
            report = type(report)(report.round_id, report.epk, other)
        return await self.committer.submit(entry_of(report, self.layout), report.encode())

    async def send_all(self, clients: Sequence[int]) -> list[Outcome]:
        """All of them at once."""
        return list(await asyncio.gather(*(self.send(client) for client in clients)))


async def sealed_sum(store: RoundStore, descriptor: Descriptor = DESCRIPTOR) -> Vector:
    """Seals the lane and reads its sum, after checking that keys and counters agree."""
    await store.step(LANE, LanePhase.SEALED)
    total = oneshot.add_sums(descriptor, await store.sums(LANE))
    metas = await store.metas(LANE)
    keys = await store.keys(LAYOUT, LANE)
    assert len(keys) == len(set(keys)) == sum(meta.n for meta in metas)
    return np.frombuffer(kernel.unpack(total, descriptor.width), dtype="<i8")


async def test_reports_are_acknowledged_together(store: RoundStore) -> None:
    """A hundred reports that come at once are in the sum, each once, after few commits."""
    await store.open_lane(LAYOUT, LANE)
    rig = Rig(store)
    assert await rig.send_all(range(100)) == [Outcome.ACCEPTED] * 100
    await rig.committer.drain(5)
    assert len(rig.notes.metas) < 10
    assert rig.notes.metas[-1].n == 100
    assert_exactly_once(await sealed_sum(store), range(100))


async def test_nothing_is_acknowledged_before_its_commit() -> None:
    """While the store does not answer nobody gets an answer; when it returns everybody does."""
    store = FaultyStore()
    await store.open_lane(LAYOUT, LANE)
    store.blocked = True
    rig = Rig(store)
    waiting = [asyncio.create_task(rig.send(client)) for client in range(5)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    assert rig.committer.stuck_for() > 0
    assert (await store.status(LANE)).count == 0
    store.blocked = False
    assert await asyncio.gather(*waiting) == [Outcome.ACCEPTED] * 5
    assert rig.committer.stuck_for() == 0
    await rig.committer.drain(5)


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_an_unknown_outcome_is_repeated_byte_by_byte(fault: str) -> None:
    """Same number, same keys, same sum, until it is known; then the next number."""
    store = FaultyStore([fault, fault])
    await store.open_lane(LAYOUT, LANE)
    rig = Rig(store)
    assert await rig.send(1) is Outcome.ACCEPTED
    assert await rig.send(2) is Outcome.ACCEPTED
    await rig.committer.drain(5)
    assert store.commits[0] == store.commits[1] == store.commits[2]
    assert [seq for seq, _, _ in store.commits] == [1, 1, 1, 2]
    assert_exactly_once(await sealed_sum(store), [1, 2])


async def test_copies_inside_a_process_share_one_commit(store: RoundStore) -> None:
    """A thousand copies at once are counted once; one is the first, all others the same again."""
    await store.open_lane(LAYOUT, LANE)
    rig = Rig(store)
    outcomes = await rig.send_all([7] * 1_000)
    assert outcomes.count(Outcome.ACCEPTED) == 1
    assert outcomes.count(Outcome.DUPLICATE) == 999
    await rig.committer.drain(5)
    assert_exactly_once(await sealed_sum(store), [7])


async def test_another_payload_under_the_same_key_is_a_conflict(store: RoundStore) -> None:
    """Later or at the same time: the first stays, the other is refused."""
    await store.open_lane(LAYOUT, LANE)
    rig = Rig(store)
    together = await asyncio.gather(rig.send(3), rig.send(3, alter=True), rig.send(3))
    assert list(together) == [Outcome.ACCEPTED, Outcome.CONFLICT, Outcome.DUPLICATE]
    assert await rig.send(3, alter=True) is Outcome.CONFLICT
    assert await rig.send(3) is Outcome.DUPLICATE
    await rig.committer.drain(5)
    assert_exactly_once(await sealed_sum(store), [3])


async def test_two_processes_count_a_report_once(store: RoundStore) -> None:
    """The same clients at two processes at once: each is in the sum once, and both say yes."""
    await store.open_lane(LAYOUT, LANE)
    rigs = [Rig(store, who=bytes([number]) * 16) for number in (1, 2)]
    clients = list(range(200))
    both = await asyncio.gather(*(rig.send_all(clients) for rig in rigs))
    for first, second in zip(*both, strict=True):
        assert {first, second} == {Outcome.ACCEPTED, Outcome.DUPLICATE}
    for rig in rigs:
        await rig.committer.drain(5)
    assert_exactly_once(await sealed_sum(store), clients)


async def test_a_client_that_leaves_does_not_cancel_its_report(store: RoundStore) -> None:
    """Whoever disconnects while the commit is under way is counted, and a copy still waits."""
    await store.open_lane(LAYOUT, LANE)
    rig = Rig(store)
    leaving = asyncio.create_task(rig.send(1))
    staying = asyncio.create_task(rig.send(1))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying is Outcome.DUPLICATE
    await rig.committer.drain(5)
    assert_exactly_once(await sealed_sum(store), [1])


async def test_a_forgotten_commit_ends_the_lane() -> None:
    """A gap in the sequence is told to everybody who waits, and nothing is accepted any more."""
    store = FaultyStore()
    await store.open_lane(LAYOUT, LANE)
    rig = Rig(store)
    assert await rig.send(1) is Outcome.ACCEPTED
    store._lanes[LANE].epochs[1].seq = 0  # the store went back in time
    store._lanes[LANE].seen.clear()
    assert await rig.send(2) is Outcome.DAMAGED
    assert await rig.send(3) is Outcome.DAMAGED
    assert rig.notes.losses == 1
    assert (await store.status(LANE)).count == 0
    await rig.committer.drain(5)


async def test_reports_after_the_seal_are_refused_unless_they_are_in(store: RoundStore) -> None:
    """Whoever is in the sealed set is told so; the others are refused and nothing changes."""
    await store.open_lane(LAYOUT, LANE)
    early, late = Rig(store, who=b"a" * 16), Rig(store, who=b"b" * 16)
    assert await late.send(9) is Outcome.ACCEPTED
    assert await early.send(1) is Outcome.ACCEPTED
    sums = await sealed_sum(store)
    outcomes = [await late.send(1), await late.send(1, alter=True), await late.send(2)]
    assert outcomes == [Outcome.DUPLICATE, Outcome.CONFLICT, Outcome.CLOSED]
    assert np.array_equal(sums, await sealed_sum(store))
    for rig in (early, late):
        await rig.committer.drain(5)


async def test_a_seal_in_the_middle_of_a_storm(store: RoundStore) -> None:
    """Seal at any moment: acknowledged is exactly what is in the sealed sum."""
    await store.open_lane(LAYOUT, LANE)
    rig = Rig(store, BatchLimits(reports=8, delay_s=0, retry_min_s=0.001))
    sending = asyncio.create_task(rig.send_all(range(400)))
    await rig.notes.forty.wait()
    sums = await sealed_sum(store)
    outcomes = await sending
    accepted = [client for client, it in enumerate(outcomes) if it is Outcome.ACCEPTED]
    assert set(outcomes) == {Outcome.ACCEPTED, Outcome.CLOSED}
    assert_exactly_once(sums, accepted)
    await rig.committer.drain(5)


async def test_the_last_place_goes_to_a_report_that_another_process_refused() -> None:
    """Two processes hold one report and one place is left: nobody is told "closed" who then is in.

    Here two reports meet the last place. While the first one's commit is under way the other
    process commits the second, and the first one finds the lane full.
    """
    layout = Layout(LAYOUT.round_id, 1, 1, capacity=1, secret=bytes(16))
    meanwhile: list[Callable[[], Awaitable[Outcome]]] = []

    class Racing(FaultyStore):
        async def commit(
            self, lane: Lane, epoch: Epoch, seq: int, entries: Sequence[Entry], total: bytes
        ) -> CommitResult:
            result = await super().commit(lane, epoch, seq, entries, total)
            if result.code is Code.FULL and meanwhile:
                assert await meanwhile.pop()() is Outcome.ACCEPTED
            return result

    store = Racing()
    await store.open_lane(layout, layout.lanes[0])
    one, two = (Rig(store, layout=layout, who=bytes([number]) * 16) for number in (1, 2))
    meanwhile.append(partial(two.send, 2))
    assert await one.send_all([1, 2]) == [Outcome.CLOSED, Outcome.DUPLICATE]
    await one.committer.drain(5)
    await two.committer.drain(5)


async def test_a_full_lane_takes_what_fits(store: RoundStore) -> None:
    """cohort_max reports are accepted, the others refused, copies of the accepted still known."""
    layout = Layout(LAYOUT.round_id, 1, 1, capacity=10, secret=bytes(16))
    await store.open_lane(layout, LANE)
    rig = Rig(store, layout=layout)
    outcomes = await rig.send_all(range(25))
    assert outcomes == [Outcome.ACCEPTED] * 10 + [Outcome.CLOSED] * 15
    assert await rig.send(0) is Outcome.DUPLICATE
    assert await rig.send(24) is Outcome.CLOSED
    await rig.committer.drain(5)


async def test_a_batch_is_bounded() -> None:
    """No commit holds more reports or bytes than the limits say."""
    store = FaultyStore()
    await store.open_lane(LAYOUT, LANE)
    rig = Rig(store, BatchLimits(reports=7, bytes=5 * DESCRIPTOR.report_bytes, delay_s=0.01))
    assert await rig.send_all(range(30)) == [Outcome.ACCEPTED] * 30
    await rig.committer.drain(5)
    assert max(len(keys) for _, keys, _ in store.commits) == 5


async def test_draining_commits_what_is_queued(store: RoundStore) -> None:
    """A process that stops commits what it has taken, and takes no more."""
    await store.open_lane(LAYOUT, LANE)
    rig = Rig(store, BatchLimits(delay_s=30))
    waiting = asyncio.create_task(rig.send_all(range(20)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await rig.committer.drain(5)
    assert await waiting == [Outcome.ACCEPTED] * 20
    assert await rig.send(21) is Outcome.UNAVAILABLE
    assert_exactly_once(await sealed_sum(store), range(20))


async def test_draining_gives_up_on_a_store_that_is_gone() -> None:
    """If the store stays away, the reports are answered as unknown, never as accepted."""
    store = FaultyStore()
    await store.open_lane(LAYOUT, LANE)
    store.blocked = True
    rig = Rig(store)
    waiting = asyncio.create_task(rig.send(1))
    await asyncio.sleep(0.01)
    await rig.committer.drain(0.05)
    assert await waiting is Outcome.UNAVAILABLE


def lossy_plan(seed: int, share: float) -> Callable[[], str | None]:
    """Drops a share of requests and of replies, the same ones for the same seed."""
    source = random.Random(seed)

    def plan() -> str | None:
        draw = source.random()
        return DROP_REPLY if draw < share else DROP_REQUEST if draw < 2 * share else None

    return plan


async def run_lossy(server: StoreServer, seed: int, kind: type[LaneCommitter]) -> None:
    """Two processes, a lossy network to the store, clients that repeat themselves: the oracle."""
    store = RedisStore(connect(server.url), "test")
    await store.redis.flushall()
    await store.open_lane(LAYOUT, LANE)
    limits = BatchLimits(reports=16, delay_s=0.001, retry_min_s=0.001, retry_max_s=0.01)
    clients = range(300)
    outcomes: list[list[Outcome]] = []
    async with FaultyProxy(server.socket, lossy_plan(seed, 0.15)) as proxy:
        faulty = [RedisStore(connect(proxy.url), "test") for _ in range(2)]
        rigs = [Rig(it, limits, kind=kind, who=bytes([at]) * 16) for at, it in enumerate(faulty)]
        try:
            outcomes += await asyncio.gather(*(rig.send_all(clients) for rig in rigs))
        finally:
            for rig in rigs:
                await rig.committer.drain(5)
            for it in faulty:
                await it.close()
        assert proxy.dropped > 5
    try:
        for first, second in zip(*outcomes, strict=True):
            assert {first, second} == {Outcome.ACCEPTED, Outcome.DUPLICATE}
        assert_exactly_once(await sealed_sum(store), clients)
    finally:
        await store.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_exactly_once_while_replies_get_lost(valkey: StoreServer, seed: int) -> None:
    """15 % of requests and 15 % of replies get lost; every client is counted exactly once."""
    await run_lossy(valkey, seed, LaneCommitter)


class FreshNumber(LaneCommitter):
    """The mistake: after an unknown outcome the commit is sent under a new number."""

    async def _known(self, epoch: Epoch, items: list[_Item], total: bytes) -> CommitResult:
        entries = [item.entry for item in items]
        while True:
            try:
                return await self._store.commit(self._lane, epoch, self._seq + 1, entries, total)
            except StoreUnavailable:
                self._seq += 1


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_control_fresh_numbers_lose_reports(valkey: StoreServer, seed: int) -> None:
    """The same run with fresh numbers fails: the test above can see this mistake."""
    with pytest.raises(AssertionError):
        await run_lossy(valkey, seed, FreshNumber)


class AnswerFirst(LaneCommitter):
    """The mistake: clients are answered before the commit."""

    async def _commit(self, items: list[_Item]) -> None:
        for item in items:
            self._settle(item, Outcome.ACCEPTED)
        await super()._commit(items)


async def test_control_answering_first_acknowledges_what_is_not_stored() -> None:
    """With the answer before the commit a report is acknowledged that the store has not got."""
    store = FaultyStore()
    await store.open_lane(LAYOUT, LANE)
    store.blocked = True
    rig = Rig(store, kind=AnswerFirst)
    assert await rig.send(1) is Outcome.ACCEPTED
    assert (await store.status(LANE)).count == 0
    await rig.committer.drain(0.01)


async def test_control_without_the_duplicate_check_reports_count_twice(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit script that does not look at its keys adds a client of two processes twice."""
    text = redis_store_module._COMMIT.text
    blind = text.replace("fresh[id] or redis.call('HGET', bucket, id)", "false")
    assert blind != text
    monkeypatch.setattr(redis_store_module, "_COMMIT", redis_store_module._Script.of(blind))
    await redis_store.open_lane(LAYOUT, LANE)
    rigs = [Rig(redis_store, who=bytes([number]) * 16) for number in (1, 2)]
    for rig in rigs:
        assert await rig.send(5) is Outcome.ACCEPTED
        await rig.committer.drain(5)
    await redis_store.step(LANE, LanePhase.SEALED)
    total = oneshot.add_sums(DESCRIPTOR, await redis_store.sums(LANE))
    sums = np.frombuffer(kernel.unpack(total, DESCRIPTOR.width), dtype="<i8")
    assert counted(sums) == {5: 2}
    assert len(await redis_store.keys(LAYOUT, LANE)) == 1
