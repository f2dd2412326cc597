"""What every store promises: the same sentences, run on the model, on Valkey and on Redis."""

import os

import pytest

from collector.store import (
    Code,
    CommitResult,
    Entry,
    Epoch,
    Lane,
    LanePhase,
    LaneStatus,
    Layout,
    RoundStore,
    StoreLost,
)
from dandelion.params import COMMIT_REPORTS_MAX

LAYOUT = Layout(round_id=bytes(16), shards=1, partitions=1, capacity=5_000, secret=bytes(16))
LANE = LAYOUT.lanes[0]
WHO = b"w" * 16


def entry(number: int, check: bytes = b"same", layout: Layout = LAYOUT) -> Entry:
    """The report of client `number`."""
    epk = number.to_bytes(32, "big")
    return Entry(epk, check, layout.place(epk, 0)[1])


def entries(*numbers: int) -> list[Entry]:
    """Reports of several clients."""
    return [entry(number) for number in numbers]


async def opened(store: RoundStore, layout: Layout = LAYOUT) -> Epoch:
    """An open lane and the first epoch in it."""
    await store.open_lane(layout, layout.lanes[0])
    epoch = await store.new_epoch(layout.lanes[0], WHO)
    assert epoch is not None
    return epoch


async def test_a_commit_stores_keys_sum_and_number(store: RoundStore) -> None:
    """After OK the keys, the running sum and the sequence number can be read back."""
    epoch = await opened(store)
    assert await store.commit(LANE, epoch, 1, entries(1, 2), b"sum 1") == CommitResult(Code.OK)
    assert await store.commit(LANE, epoch, 2, entries(3), b"sum 2") == CommitResult(Code.OK)
    assert sorted(await store.keys(LAYOUT, LANE)) == [entry(n).epk for n in (1, 2, 3)]
    assert await store.sums(LANE) == [b"sum 2"]
    [meta] = await store.metas(LANE)
    assert (meta.epoch, meta.seq, meta.n) == (epoch, 2, 3)
    assert await store.status(LANE) == LaneStatus(LanePhase.OPEN, count=3, epochs=1)


async def test_a_repeated_commit_changes_nothing(store: RoundStore) -> None:
    """A commit whose reply was lost may be sent again and again."""
    epoch = await opened(store)
    for _ in range(3):
        result = await store.commit(LANE, epoch, 1, entries(1), b"sum 1")
    assert result.code is Code.ALREADY
    assert (await store.status(LANE)).count == 1


async def test_a_repeated_commit_is_known_after_the_seal(store: RoundStore) -> None:
    """Sealing between a commit and its repetition does not turn the answer into a refusal."""
    epoch = await opened(store)
    await store.commit(LANE, epoch, 1, entries(1), b"sum 1")
    await store.step(LANE, LanePhase.SEALED)
    result = await store.commit(LANE, epoch, 1, entries(1), b"sum 1")
    assert result.code is Code.ALREADY


async def test_a_skipped_number_is_a_loss(store: RoundStore) -> None:
    """A store that does not know the number before this one has forgotten it."""
    epoch = await opened(store)
    with pytest.raises(StoreLost):
        await store.commit(LANE, epoch, 2, entries(1), b"sum")
    assert (await store.status(LANE)).count == 0


async def test_an_epoch_of_another_incarnation_is_a_loss(store: RoundStore) -> None:
    """A restored store may hand out an epoch's number twice; the second owner is noticed."""
    epoch = await opened(store)
    with pytest.raises(StoreLost):
        await store.commit(LANE, Epoch(epoch.number, b"x" * 16), 1, entries(1), b"sum")
    with pytest.raises(StoreLost):
        await store.commit(LANE, Epoch(epoch.number + 1, WHO), 1, entries(1), b"sum")


async def test_a_lane_that_is_gone_is_a_loss(store: RoundStore) -> None:
    """A store that lost a whole lane does not quietly start a new one."""
    assert (await store.status(LANE)).phase is LanePhase.GONE
    with pytest.raises(StoreLost):
        await store.new_epoch(LANE, WHO)
    with pytest.raises(StoreLost):
        await store.commit(LANE, Epoch(1, WHO), 1, entries(1), b"sum")
    with pytest.raises(StoreLost):
        await store.keys(LAYOUT, LANE)


async def test_taken_keys_refuse_the_whole_commit(store: RoundStore) -> None:
    """DUP names the positions and whether the payload was the same; nothing is written."""
    epoch = await opened(store)
    await store.commit(LANE, epoch, 1, entries(1, 2), b"sum 1")
    mixed = [entry(7), entry(1), entry(2, b"else"), entry(8)]
    result = await store.commit(LANE, epoch, 2, mixed, b"sum 2")
    assert result == CommitResult(Code.DUP, ((1, True), (2, False)))
    assert (await store.status(LANE)).count == 2
    assert await store.sums(LANE) == [b"sum 1"]


async def test_a_key_twice_in_one_commit_is_taken(store: RoundStore) -> None:
    """Otherwise its vector would be added twice and its name once: the round would be noise."""
    epoch = await opened(store)
    result = await store.commit(LANE, epoch, 1, [entry(1), entry(2), entry(1, b"else")], b"sum")
    assert result == CommitResult(Code.DUP, ((2, False),))
    assert (await store.status(LANE)).count == 0


async def test_two_epochs_add_up(store: RoundStore) -> None:
    """Two processes keep sums of their own, and meet in the set of keys."""
    first = await opened(store)
    second = await store.new_epoch(LANE, b"v" * 16)
    assert second is not None
    await store.commit(LANE, first, 1, entries(1, 2), b"sum a")
    result = await store.commit(LANE, second, 1, entries(2, 3), b"sum b")
    assert result == CommitResult(Code.DUP, ((0, True),))
    await store.commit(LANE, second, 1, entries(3), b"sum b")
    assert await store.sums(LANE) == [b"sum a", b"sum b"]
    assert [meta.n for meta in await store.metas(LANE)] == [2, 1]
    assert (await store.status(LANE)).count == 3


async def test_an_epoch_without_a_commit_adds_nothing(store: RoundStore) -> None:
    """A process that started and committed nothing leaves no sum."""
    await opened(store)
    assert await store.sums(LANE) == []
    assert [meta.seq for meta in await store.metas(LANE)] == [0]


async def test_a_closing_lane_still_takes_commits(store: RoundStore) -> None:
    """Commits that were on their way when the round closed still count."""
    epoch = await opened(store)
    await store.step(LANE, LanePhase.CLOSING)
    assert (await store.commit(LANE, epoch, 1, entries(1), b"sum")).code is Code.OK


async def test_a_sealed_lane_takes_nothing(store: RoundStore) -> None:
    """After the seal neither commits nor epochs are given, and what was there can be read."""
    epoch = await opened(store)
    await store.commit(LANE, epoch, 1, entries(1), b"sum 1")
    status = await store.step(LANE, LanePhase.SEALED)
    assert status == LaneStatus(LanePhase.SEALED, count=1, epochs=1)
    assert (await store.commit(LANE, epoch, 2, entries(2), b"sum 2")).code is Code.SEALED
    assert await store.new_epoch(LANE, WHO) is None
    assert await store.sums(LANE) == [b"sum 1"]
    assert await store.lookup(LANE, entry(1).bucket, entry(1).epk) == b"same"
    assert await store.lookup(LANE, entry(2).bucket, entry(2).epk) is None


async def test_phases_only_go_forward(store: RoundStore) -> None:
    """A sealed lane cannot be closed again, and nothing comes back from damage."""
    await opened(store)
    await store.step(LANE, LanePhase.SEALED)
    assert (await store.step(LANE, LanePhase.CLOSING)).phase is LanePhase.SEALED
    assert (await store.step(LANE, LanePhase.DAMAGED)).phase is LanePhase.DAMAGED
    assert (await store.step(LANE, LanePhase.SEALED)).phase is LanePhase.DAMAGED
    with pytest.raises(StoreLost):
        await store.sums(LANE)


async def test_opening_twice_keeps_what_is_there(store: RoundStore) -> None:
    """A driver that restarts opens its lanes again, and loses nothing by it."""
    epoch = await opened(store)
    await store.commit(LANE, epoch, 1, entries(1), b"sum")
    await store.open_lane(LAYOUT, LANE)
    assert (await store.status(LANE)).count == 1


async def test_a_full_lane_says_how_many_still_fit(store: RoundStore) -> None:
    """More than cohort_max reports would make the helpers refuse the whole shard."""
    layout = Layout(round_id=b"f" * 16, shards=1, partitions=1, capacity=3, secret=bytes(16))
    lane = layout.lanes[0]
    epoch = await opened(store, layout)
    await store.commit(lane, epoch, 1, [entry(1, layout=layout), entry(2, layout=layout)], b"2")
    more = [entry(3, layout=layout), entry(4, layout=layout)]
    assert await store.commit(lane, epoch, 2, more, b"4") == CommitResult(Code.FULL, room=1)
    assert (await store.commit(lane, epoch, 2, more[:1], b"3")).code is Code.OK
    assert await store.commit(lane, epoch, 3, more[1:], b"4") == CommitResult(Code.FULL, room=0)


async def test_the_largest_commit_fits(store: RoundStore) -> None:
    """A commit of COMMIT_REPORTS_MAX reports is taken; one more is a programming error."""
    epoch = await opened(store)
    many = entries(*range(1, COMMIT_REPORTS_MAX + 1))
    assert (await store.commit(LANE, epoch, 1, many, b"sum")).code is Code.OK
    assert (await store.status(LANE)).count == COMMIT_REPORTS_MAX
    for wrong in ([], [*many, entry(0)]):
        with pytest.raises(ValueError, match="COMMIT_REPORTS_MAX"):
            await store.commit(LANE, epoch, 2, wrong, b"sum")


async def test_lanes_do_not_meet(store: RoundStore) -> None:
    """The same key in another round, shard or partition is another report."""
    layouts = [
        Layout(bytes([number]) * 16, shards=2, partitions=2, capacity=1_000, secret=bytes(16))
        for number in (1, 2)
    ]
    for layout in layouts:
        for lane in layout.lanes:
            await store.open_lane(layout, lane)
            epoch = await store.new_epoch(lane, WHO)
            assert epoch is not None
            assert (await store.commit(lane, epoch, 1, entries(1), b"sum")).code is Code.OK


async def test_a_purge_leaves_nothing(store: RoundStore) -> None:
    """After the purge the store does not know the round."""
    epoch = await opened(store)
    await store.commit(LANE, epoch, 1, entries(1, 2), b"sum")
    await store.expire_at(LAYOUT, 4_000_000_000)
    await store.purge(LAYOUT)
    await store.purge(LAYOUT)
    assert (await store.status(LANE)).phase is LanePhase.GONE
    assert await store.lookup(LANE, entry(1).bucket, entry(1).epk) is None


async def test_the_list_of_rounds_is_followed(store: RoundStore) -> None:
    """Ingest processes see what is published and withdrawn, and that something changed."""
    before = await store.version()
    await store.publish(b"r" * 16, b"record")
    published = await store.version()
    assert await store.published() == {b"r" * 16: b"record"}
    await store.withdraw(b"r" * 16)
    assert await store.published() == {}
    assert len({before, published, await store.version()}) == 3


async def test_binary_keys_survive(store: RoundStore) -> None:
    """Keys and checks are bytes: zeros, line ends and digits come back as they went in."""
    epoch = await opened(store)
    odd = [bytes(32), b"\r\n" * 16, b"0" * 32, b"\xff" * 32, os.urandom(32)]
    sent = [Entry(epk, b"1234", LAYOUT.place(epk, 0)[1]) for epk in odd]
    await store.commit(LANE, epoch, 1, sent, b"\x00\xff\r\n")
    assert sorted(await store.keys(LAYOUT, LANE)) == sorted(odd)
    assert await store.lookup(LANE, sent[0].bucket, bytes(32)) == b"1234"
    assert await store.sums(LANE) == [b"\x00\xff\r\n"]


def test_small_rounds_use_few_partitions() -> None:
    """Reports are spread over the partitions asked for only where each gets a thousand."""
    layout = Layout(bytes(16), shards=2, partitions=3, capacity=50, secret=bytes(16))
    assert [lane.name for lane in layout.lanes] == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    assert layout.lanes[0] == Lane(bytes(16), 0, 0)


def test_places_depend_on_the_secret() -> None:
    """Who does not know the secret cannot aim at a bucket."""
    capacity = 1_000_000
    one = Layout(bytes(16), 1, 1, capacity, secret=bytes(16))
    other = Layout(bytes(16), 1, 1, capacity, secret=b"x" * 16)
    keys = [number.to_bytes(32, "big") for number in range(1_000)]
    same = sum(one.place(epk, 0) == other.place(epk, 0) for epk in keys)
    assert same < 10
