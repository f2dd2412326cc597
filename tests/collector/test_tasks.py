"""Ending what runs, although a cancellation can get lost on the way."""

import asyncio
from pathlib import Path

import pytest

from collector.committer import BatchLimits, LaneCommitter, Outcome
from collector.store import Code, CommitResult, Entry, Epoch, Lane, LaneStatus, MemoryStore
from collector.tasks import end
from tests.collector.builders import descriptor_for, entry_of, plain_report
from tests.collector.door import round_for
from tests.collector.rig import rig


class Deaf(MemoryStore):
    """While `deaf`, one call of each kind loses a cancellation, as the store's client can.

    Python 3.11's `wait_for`, through which that client sends, returns as if nothing had happened
    when it is cancelled just as what it waits for is done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deaf = False
        self.lost: set[str] = set()

    async def _listen(self, name: str) -> None:
        if self.deaf and name not in self.lost:
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                self.lost.add(name)

    async def version(self) -> int:
        await self._listen("version")
        return await super().version()

    async def status(self, lane: Lane) -> LaneStatus:
        await self._listen("status")
        return await super().status(lane)

    async def commit(
        self, lane: Lane, epoch: Epoch, seq: int, entries: object, total: bytes
    ) -> CommitResult:
        await self._listen("commit")
        if self.deaf:
            await asyncio.sleep(3_600)
        return CommitResult(Code.OK)


async def test_what_swallows_a_cancellation_is_cancelled_again() -> None:
    """One that loses the first cancellation ends all the same; so does one that has ended."""

    async def deaf() -> None:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            await asyncio.sleep(3_600)

    tasks = [asyncio.create_task(deaf()), asyncio.create_task(asyncio.sleep(0))]
    await asyncio.sleep(0.01)
    await end(*tasks, again_s=0.05)
    assert tasks[0].cancelled()
    assert not tasks[1].cancelled()


@pytest.mark.timeout(60)
async def test_a_process_ends_although_cancellations_get_lost(tmp_path: Path) -> None:
    """Told to stop just as the store answers, follower and driver of rounds end nevertheless."""
    store = Deaf()
    async with rig(tmp_path, store) as it:
        await it.open()
        store.deaf = True
        # Both are asking the store by now.
        await asyncio.sleep(1)
    assert store.lost == {"version", "status"}


@pytest.mark.timeout(60)
async def test_a_committer_ends_although_a_cancellation_gets_lost() -> None:
    """A drain that gives up does not wait for a commit that has not heard of it."""
    store, round_ = Deaf(), round_for(descriptor_for())
    [lane] = round_.layout.lanes
    report = plain_report(round_.descriptor, 1)
    await store.open_lane(round_.layout, lane)

    class Nobody:
        def committed(self, *_: object) -> None: ...
        def lost(self, *_: object) -> None: ...
        def result(self, _: str) -> None: ...

    committer = LaneCommitter(
        store,
        lane,
        who=bytes(16),
        zero=b"",
        fold=lambda total, _bodies: total,
        limits=BatchLimits(),
        observer=Nobody(),
    )
    entry: Entry = entry_of(report, round_.layout)
    store.deaf = True
    submitted = asyncio.create_task(committer.submit(entry, report.encode()))
    await asyncio.sleep(0.1)
    await committer.drain(0.1)
    assert await submitted is Outcome.UNAVAILABLE
    assert "commit" in store.lost
