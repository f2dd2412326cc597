"""The simulated server against real ones: the same operations, kills and cut files, and the same
answers and remains. What simulations show about faults is worth as much as this comparison.

Operations come from a seed, which a failure names; `compare` on that seed replays it.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from collector.redis_store import RedisStore, connect
from collector.store import (
    Code,
    CommitResult,
    Entry,
    Epoch,
    Lane,
    LanePhase,
    Layout,
    MemoryStore,
    RoundStore,
    StoreLost,
    StoreUnavailable,
)
from dandelion.cli.embedded_store import valkey_binary
from tests.services import StoreServer, redis_binary
from tests.sim.store import TAIL_MAX, SimServer

T = TypeVar("T")
Operation = Callable[[RoundStore], Awaitable[object]]

SMALL = Layout(b"a" * 16, shards=1, partitions=2, capacity=7, secret=bytes(16))
LARGE = Layout(b"b" * 16, shards=2, partitions=1, capacity=150, secret=bytes(16))
LAYOUTS = (SMALL, LARGE)
KEYS = [bytes([number]) * 32 for number in range(24)]
LATER = 4_000_000_000


class Play:
    """Random operations. They follow from the seed and from the results that were told."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._epochs: list[tuple[Lane, Epoch]] = []
        self._seqs: dict[Epoch, int] = {}

    def operation(self) -> tuple[str, Operation]:
        """The next operation and its name."""
        rng = self.random
        layout = rng.choice(LAYOUTS)
        lane = rng.choice(layout.lanes)
        key = rng.choice(KEYS)
        if rng.random() < 0.5 and self._epochs:
            return self._commit(*rng.choice(self._epochs[-8:]))
        record, who = rng.randbytes(9), rng.randbytes(16)
        to = rng.choice([LanePhase.CLOSING, LanePhase.SEALED, LanePhase.DAMAGED])
        kinds: list[tuple[float, str, Operation]] = [
            (5, "open", lambda store: store.open_lane(layout, lane)),
            (5, "epoch", lambda store: self._new_epoch(store, lane, who)),
            (1, f"step to {to}", lambda store: store.step(lane, to)),
            (1, "status", lambda store: store.status(lane)),
            (1, "lookup", lambda store: store.lookup(lane, layout.place(key, 0)[1], key)),
            (1, "metas", lambda store: store.metas(lane)),
            (1, "keys", lambda store: _sorted_keys(store, layout, lane)),
            (1, "sums", lambda store: store.sums(lane)),
            (0.5, "purge", lambda store: store.purge(layout)),
            (0.5, "expire later", lambda store: store.expire_at(layout, LATER)),
            (1, "publish", lambda store: store.publish(layout.round_id, record)),
            (1, "withdraw", lambda store: store.withdraw(layout.round_id)),
            (0.5, "published", lambda store: store.published()),
            (0.5, "ping", lambda store: store.ping()),
        ]
        weights = [weight for weight, _, _ in kinds]
        [(_, name, operation)] = rng.choices(kinds, weights)
        return f"{name} {lane.name}", operation

    def told(self, result: object) -> None:
        """Takes note of an epoch."""
        match result:
            case (Lane() as lane, Epoch() as epoch):
                self._epochs.append((lane, epoch))

    async def _new_epoch(self, store: RoundStore, lane: Lane, who: bytes) -> object:
        epoch = await store.new_epoch(lane, who)
        return None if epoch is None else (lane, epoch)

    def _commit(self, lane: Lane, epoch: Epoch) -> tuple[str, Operation]:
        rng = self.random
        [layout] = [layout for layout in LAYOUTS if layout.round_id == lane.round_id]
        known = self._seqs.get(epoch, 0)
        [seq] = rng.choices([known + 1, max(known, 1), known + 2], [8, 2, 0.3])
        picked = rng.choices(KEYS, k=rng.choice([1, 1, 2, 3]))
        entries = [
            Entry(epk, rng.choice([b"same", b"else"]), layout.place(epk, 0)[1]) for epk in picked
        ]
        total = rng.randbytes(8)

        async def run(store: RoundStore) -> CommitResult:
            result = await store.commit(lane, epoch, seq, entries, total)
            if result.code is Code.OK:
                self._seqs[epoch] = seq
            return result

        return f"commit {seq} of {len(entries)} as {epoch.number} in {lane.name}", run


async def _sorted_keys(store: RoundStore, layout: Layout, lane: Lane) -> list[bytes]:
    return sorted(await store.keys(layout, lane))


async def outcome(call: Awaitable[T]) -> T | str:
    """What an operation gave, or which of the two errors it raised."""
    try:
        return await call
    except StoreLost:
        return "lost"
    except StoreUnavailable:
        return "unavailable"


async def observed(store: RoundStore) -> list[object]:
    """Everything that can be read from a store, but the version: it means only that it changes."""
    found: list[object] = [await store.published()]
    for layout in LAYOUTS:
        for lane in layout.lanes:
            found += [
                await store.status(lane),
                await outcome(store.metas(lane)),
                await outcome(_sorted_keys(store, layout, lane)),
                await outcome(store.sums(lane)),
                [await store.lookup(lane, layout.place(key, 0)[1], key) for key in KEYS],
            ]
    return found


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[StoreServer]:
    """A server of these tests' own, because they kill it."""
    found = StoreServer(valkey_binary() if request.param == "valkey" else redis_binary())
    found.start()
    yield found
    found.discard()


@pytest.fixture
async def real(server: StoreServer) -> AsyncIterator[RedisStore]:
    """The store of production on that server, empty."""
    async with connected(server) as store:
        await store.redis.flushall()
        yield store


@asynccontextmanager
async def connected(server: StoreServer) -> AsyncIterator[RedisStore]:
    """A store under the name that simulated ones have."""
    store = RedisStore(connect(server.url), "sim")
    yield store
    await store.close()


async def restart(server: StoreServer, store: RedisStore) -> None:
    """Starts a killed server and has the client notice."""
    server.start()
    for _ in range(100):
        if await outcome(store.ping()) != "unavailable":
            return
    raise AssertionError("the server does not answer")


async def compare(seed: int, server: StoreServer, real: RedisStore) -> None:
    """80 operations and three crashes on the model, the simulation and the real server."""
    play = Play(seed)
    simulated = SimServer("always", random.Random(seed))
    model, sim = MemoryStore(), simulated.client()
    crashes = set(play.random.sample(range(80), 3))
    done: list[str] = []

    async def versions() -> list[int]:
        return [await store.version() for store in (model, sim, real)]

    async def same(what: str, call: Operation, stores: list[RoundStore]) -> object:
        done.append(what)
        results = [await outcome(call(store)) for store in stores]
        assert all(result == results[0] for result in results), (seed, done[-20:], results)
        return results[0]

    for number in range(80):
        name, operation = play.operation()
        before = await versions()
        play.told(await same(name, operation, [model, sim, real]))
        changed = {now != then for now, then in zip(await versions(), before, strict=True)}
        assert len(changed) == 1, (seed, name)
        if number in crashes:
            before = await versions()
            server.kill()
            simulated.crash()
            name, operation = play.operation()
            down = await same(f"{name} while down", operation, [sim, real])
            assert down == "unavailable", (seed, name)
            simulated.restart()
            await restart(server, real)
            await same("look after a crash", observed, [model, sim, real])
            assert await versions() == before, seed
    await same("look", observed, [model, sim, real])


@pytest.mark.parametrize("seed", range(8))
async def test_a_crash_takes_nothing_that_was_confirmed(
    server: StoreServer, real: RedisStore, seed: int
) -> None:
    """Under `always` a killed server comes back with what a store that never fell would hold."""
    await compare(seed, server, real)


async def test_control_a_forgetful_server_is_told_apart() -> None:
    """Under `everysec` the same look at the simulated server shows the loss."""
    simulated = SimServer("everysec", random.Random(1))
    store = simulated.client()
    epoch = await opened(store)
    for seq in range(1, 20):
        await store.commit(LANE, epoch, seq, [entry(seq)], b"sum")
    before = await observed(store)
    simulated.crash()
    simulated.restart()
    assert simulated.forgotten > 0
    assert await observed(store) != before
    assert await outcome(store.commit(LANE, epoch, 20, [entry(20)], b"sum")) == "lost"


async def test_a_synced_tail_is_kept() -> None:
    """What the server's thread has made durable survives under `everysec` too."""
    simulated = SimServer("everysec", random.Random(1))
    store = simulated.client()
    epoch = await opened(store)
    await store.commit(LANE, epoch, 1, [entry(1)], b"sum")
    simulated.sync()
    before = await observed(store)
    simulated.crash()
    simulated.restart()
    assert simulated.forgotten == 0
    assert await observed(store) == before


async def test_a_lossy_crash_leaves_a_state_that_has_been() -> None:
    """What is lost is a tail of whole transactions, of a length that the seed decides."""

    async def look(store: RoundStore) -> object:
        return await store.status(LANE), await outcome(_sorted_keys(store, LARGE, LANE))

    lost = set()
    for seed in range(30):
        simulated = SimServer("everysec", random.Random(seed))
        store = simulated.client()
        states = [await look(store)]
        epoch = await opened(store)
        for seq in range(1, 1 + TAIL_MAX + 20):
            states.append(await look(store))
            await store.commit(LANE, epoch, seq, [Entry(os.urandom(32), b"same", 0)], b"%d" % seq)
        simulated.crash()
        simulated.restart()
        assert await look(store) in states[-TAIL_MAX:] or not simulated.forgotten
        lost.add(simulated.forgotten)
    assert len(lost) > 10
    assert max(lost) <= TAIL_MAX


async def test_every_trip_is_a_call_of_its_own() -> None:
    """An operation of several commands gives others their turn in between, as on a network."""
    trips = 0

    async def counting(call: Callable[[], T]) -> T:
        nonlocal trips
        trips += 1
        return call()

    simulated = SimServer("always", random.Random(0))
    store = simulated.client(counting)

    async def taken(call: Awaitable[object]) -> int:
        before = trips
        await call
        return trips - before

    # A script is sent by its name, then as a text to a server that does not know it.
    assert await taken(store.open_lane(LARGE, LANE)) == 2
    assert await taken(store.open_lane(LARGE, LANE)) == 1
    assert await taken(store.new_epoch(LANE, b"w" * 16)) == 3
    assert await taken(store.new_epoch(LANE, b"v" * 16)) == 2
    assert await taken(store.commit(LANE, Epoch(1, b"w" * 16), 1, [entry(1)], b"sum")) == 2
    assert await taken(store.metas(LANE)) == 2
    assert await taken(store.keys(LARGE, LANE)) == 2
    assert await taken(store.sums(LANE)) == 3
    assert await taken(store.purge(LARGE)) == 4
    simulated.crash()
    simulated.restart()
    assert await taken(store.open_lane(LARGE, LANE)) == 2


LANE = LARGE.lanes[0]


def entry(number: int) -> Entry:
    """The report of client `number`."""
    return Entry(KEYS[number], b"same", LARGE.place(KEYS[number], 0)[1])


async def opened(store: RoundStore) -> Epoch:
    """An open lane and the first epoch in it."""
    await store.open_lane(LARGE, LANE)
    epoch = await store.new_epoch(LANE, b"w" * 16)
    assert epoch is not None
    return epoch


async def test_a_commit_under_way_is_all_or_nothing(server: StoreServer, real: RedisStore) -> None:
    """Killed at any moment, a server has the commit or does not; repeating it settles which."""
    model = MemoryStore()
    for store in (model, real):
        epoch = await opened(store)
    rng = random.Random(0)
    for seq in range(1, 13):
        commit = (LANE, epoch, seq, [entry(seq)], b"sum %d" % seq)
        under_way = asyncio.create_task(real.commit(*commit))
        await asyncio.sleep(rng.uniform(0, 0.0015))
        server.kill()
        first = await outcome(under_way)
        await restart(server, real)
        again = (await real.commit(*commit)).code
        if first != "unavailable":
            assert (first, again) == (CommitResult(Code.OK), Code.ALREADY)
        assert again in (Code.OK, Code.ALREADY)
        await model.commit(*commit)
    assert await observed(real) == await observed(model)


async def test_a_cut_file_loses_whole_transactions(server: StoreServer, real: RedisStore) -> None:
    """Wherever an append-only file ends, the server holds a state the simulated one has been in.

    This is what a crash under `everysec` does, and why the simulation may cut between
    transactions only.
    """
    beginning = newest_log(server).stat().st_size
    simulated = SimServer("always", random.Random(0))
    sim = simulated.client()
    states: list[list[object]] = [await observed(sim)]
    play = Play(7)
    while simulated.transactions < 60:
        before = simulated.transactions
        name, operation = play.operation()
        # These are several transactions, and the server may end between any two.
        if name.startswith(("purge", "expire")):
            continue
        result = await outcome(operation(sim))
        assert await outcome(operation(real)) == result
        play.told(result)
        if simulated.transactions != before:
            states.append(await observed(sim))
    server.kill()
    file = newest_log(server)
    whole = file.read_bytes()
    reached = [0]
    rng = random.Random(0)
    try:
        for size in sorted([len(whole), *rng.sample(range(beginning, len(whole)), 10)]):
            file.write_bytes(whole[:size])
            await restart(server, real)
            now = await observed(real)
            # A longer file holds no earlier state.
            assert now in states[reached[-1] :], size
            reached.append(states.index(now, reached[-1]))
            server.kill()
    finally:
        server.kill()
        file.write_bytes(whole)
        await restart(server, real)
    assert len(set(reached)) > 5
    assert states[reached[-1]] == states[-1]


def newest_log(server: StoreServer) -> Path:
    """The part of the append-only file that grows."""
    return max((server.folder / "appendonlydir").glob("*.incr.aof"))


async def test_a_past_end_forgets_the_round(real: RedisStore) -> None:
    """Keys that expire are gone, in the simulation by the time of its world."""
    now = [100.0]
    sim = SimServer("always", random.Random(0), clock=lambda: now[0]).client()
    for store in (sim, real):
        await store.commit(LANE, await opened(store), 1, [entry(1)], b"sum")
        await store.expire_at(LARGE, 101)
    assert (await sim.status(LANE)).count == 1
    now[0] = 101.0
    assert await observed(sim) == await observed(real)
    assert (await sim.status(LANE)).phase is LanePhase.GONE


async def test_a_full_disk_ends_a_server_that_keeps_its_word() -> None:
    """Under `always` the write is neither confirmed nor kept; under `everysec` it is refused."""
    for policy, still_up in (("always", False), ("everysec", True)):
        simulated = SimServer(policy, random.Random(0))  # type: ignore[arg-type]
        store = simulated.client()
        epoch = await opened(store)
        simulated.disk_full = True
        commit = (LANE, epoch, 1, [entry(1)], b"sum")
        assert await outcome(store.commit(*commit)) == "unavailable"
        assert simulated.up is still_up
        simulated.disk_full = False
        simulated.restart()
        assert (await store.status(LANE)).count == 0
        assert (await store.commit(*commit)).code is Code.OK


async def test_an_old_copy_is_noticed() -> None:
    """A server restored from a copy has forgotten commits, and the next one says so."""
    simulated = SimServer("always", random.Random(0))
    store = simulated.client()
    epoch = await opened(store)
    await store.commit(LANE, epoch, 1, [entry(1)], b"sum")
    copy = simulated.snapshot()
    await store.commit(LANE, epoch, 2, [entry(2)], b"sum")
    with pytest.raises(RuntimeError):
        simulated.restore(copy)
    simulated.crash()
    simulated.restore(copy)
    simulated.restart()
    assert (await store.status(LANE)).count == 1
    assert await outcome(store.commit(LANE, epoch, 3, [entry(3)], b"sum")) == "lost"
