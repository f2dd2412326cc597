"""Deferred-acknowledgement group commit: many reports, one atomic step, then all the answers.

docs/protocol.md section 10.4. One committer per lane and process gathers reports, adds them to the
running sum of its epoch and commits keys, sum and sequence number. What it relies on:

- a report is acknowledged only after a commit that contains it is known to have happened;
- a commit whose outcome is unknown is repeated, same number and same bytes, until it is known;
- while a commit is under way the next batch gathers by itself; only an idle lane waits for company;
- copies of one report that meet inside this process share one fate, so a batch holds a key once.

Leaves out: judging requests (`handlers`), and which lane a report belongs to (`ingest`).
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final, Protocol, TypeVar

from collector.store import (
    Code,
    CommitResult,
    Entry,
    Epoch,
    EpochMeta,
    Lane,
    RoundStore,
    StoreLost,
    StoreUnavailable,
)
from collector.tasks import end
from dandelion.params import COMMIT_REPORTS_MAX

_RANDOM: Final = random.SystemRandom()
_T = TypeVar("_T")


class Outcome(StrEnum):
    """What became of a report."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    CLOSED = "closed"
    DAMAGED = "damaged"
    UNAVAILABLE = "unavailable"  # not known, and nobody will find out in time


Hold = Callable[[asyncio.Future[Outcome]], None]
# Hears the fate of a report, once, on the event loop; it must neither wait nor raise.
Tell = Callable[[Outcome], None]


@dataclass(frozen=True)
class BatchLimits:
    """When a batch is full, how long an idle lane waits, and how retries are spaced; seconds."""

    reports: int = 256
    bytes: int = 1 << 20
    delay_s: float = 0.005
    retry_min_s: float = 0.02
    retry_max_s: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.reports <= COMMIT_REPORTS_MAX:
            raise ValueError("a batch holds 1 to COMMIT_REPORTS_MAX reports")


class Observer(Protocol):
    """Who is told what a committer does: anchors and metrics."""

    def committed(self, lane: Lane, meta: EpochMeta, reports: int, seconds: float) -> None:
        """A commit is known to have happened."""

    def lost(self, lane: Lane, epoch: Epoch | None) -> None:
        """The store has forgotten something it had confirmed."""

    def result(self, word: str) -> None:
        """One answer of the store, as a word of a closed list."""


class _Item:
    """A report on its way into the store, with the encoded body that will be added."""

    __slots__ = ("_futures", "body", "entry", "tell")

    def __init__(self, entry: Entry, body: bytes, tell: Tell) -> None:
        self.entry = entry
        self.body = body
        self.tell = tell
        self._futures: list[asyncio.Future[Outcome]] = []

    def future(self) -> asyncio.Future[Outcome]:
        """One more who waits for the fate of this report."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        return future

    def settle(self, outcome: Outcome) -> None:
        """Tells everybody who waits."""
        self.tell(outcome)
        for future in self._futures:
            if not future.done():
                future.set_result(outcome)


def _nobody(_: Outcome) -> None:
    """Told of a report whose sender waits for a future."""


class LaneCommitter:
    """Commits the reports of one lane for this process, as one epoch."""

    def __init__(
        self,
        store: RoundStore,
        lane: Lane,
        *,
        who: bytes,
        zero: bytes,
        fold: Callable[[bytes, Sequence[bytes]], bytes],
        limits: BatchLimits,
        observer: Observer,
    ) -> None:
        """`who` is 16 random bytes of this incarnation; `fold` adds encoded reports to a sum."""
        self._store = store
        self._lane = lane
        self._who = who
        self._sum = zero
        self._fold = fold
        self._limits = limits
        self._observer = observer
        self._epoch: Epoch | None = None
        self._seq = 0
        self._n = 0
        self._queue: deque[_Item] = deque()
        self._queued_bytes = 0
        self._pending: dict[bytes, _Item] = {}
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._closing = False
        self._final: Outcome | None = None
        self._stuck_since: float | None = None
        self.task = asyncio.create_task(self._run())

    async def submit(self, entry: Entry, body: bytes, hold: Hold = lambda _: None) -> Outcome:
        """Waits until the report's fate is known. Cancelling the caller does not cancel the report.

        `body` is the encoded report; it is added up as it is. `hold` is told of the future until
        whose end the body is kept here, whether or not anybody still waits for it.
        """
        while (earlier := self._pending.get(entry.epk)) is not None:
            outcome = await earlier.future()
            same = earlier.body == body
            if outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE):
                return Outcome.DUPLICATE if same else Outcome.CONFLICT
            if same or outcome is not Outcome.CONFLICT:
                return outcome
        if self._final is not None:
            return self._final
        if not self.offer(entry, body, _nobody):
            return Outcome.UNAVAILABLE
        future = self._pending[entry.epk].future()
        hold(future)
        return await asyncio.shield(future)

    def offer(self, entry: Entry, body: bytes, tell: Tell) -> bool:
        """Takes a report without waiting; `tell` hears its fate, and until then `body` is kept.

        False if it is not simply one more report: a copy of it is under way, or the committer takes
        no more. `submit` knows what to say then.
        """
        if self._closing or self._final is not None or entry.epk in self._pending:
            return False
        item = _Item(entry, body, tell)
        self._pending[entry.epk] = item
        self._queue.append(item)
        self._queued_bytes += len(body)
        if not self._busy:
            self._gather()
        return True

    def holds(self, epk: bytes) -> bool:
        """Whether a report with this key is under way."""
        return epk in self._pending

    def failed(self) -> bool:
        """Whether a fault of ours has ended it. Another one may take its place, as a new epoch."""
        return self.task.done() and not self.task.cancelled() and self.task.exception() is not None

    def stuck_for(self) -> float:
        """Seconds since the store stopped answering; 0 while it answers."""
        if self._stuck_since is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._stuck_since

    async def drain(self, seconds: float) -> None:
        """Commits what has been submitted, takes no more, and ends; gives up after `seconds`."""
        self._closing = True
        self._ready.set()
        await asyncio.wait({self.task}, timeout=seconds)
        await end(self.task)
        for item in list(self._pending.values()):
            self._settle(item, Outcome.UNAVAILABLE)

    def _settle(self, item: _Item, outcome: Outcome) -> None:
        """Answers everybody who waits for this report."""
        if self._pending.pop(item.entry.epk, None) is item:
            item.settle(outcome)

    def _gather(self) -> None:
        """Decides when an idle lane commits. A busy one looks at the queue when it is done."""
        full = len(self._queue) >= self._limits.reports or self._queued_bytes >= self._limits.bytes
        if full:
            self._ready.set()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._limits.delay_s, self._ready.set)

    async def _run(self) -> None:
        try:
            while True:
                if not self._queue:
                    if self._closing:
                        return
                    self._busy = False
                    self._ready.clear()
                    await self._ready.wait()
                    continue
                self._busy = True
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                await self._commit(self._take())
        except StoreLost:
            self._observer.lost(self._lane, self._epoch)
            self._end(Outcome.DAMAGED)
        finally:
            # Whatever ended the loop, nobody may wait for it for ever.
            self._end(self._final or Outcome.UNAVAILABLE)

    def _end(self, outcome: Outcome) -> None:
        self._final = outcome
        for item in list(self._pending.values()):
            self._settle(item, outcome)
        self._queue.clear()

    def _take(self) -> list[_Item]:
        batch = [self._queue.popleft()]
        size = len(batch[0].body)
        while (
            self._queue
            and len(batch) < self._limits.reports
            and size + len(self._queue[0].body) <= self._limits.bytes
        ):
            item = self._queue.popleft()
            size += len(item.body)
            batch.append(item)
        self._queued_bytes -= size
        return batch

    def _put_back(self, items: list[_Item]) -> None:
        self._queue.extendleft(reversed(items))
        self._queued_bytes += sum(len(item.body) for item in items)

    async def _commit(self, items: list[_Item]) -> None:
        if self._epoch is None:
            self._epoch = await self._begin()
            if self._epoch is None:
                await self._refuse(items)
                return
        started = asyncio.get_running_loop().time()
        while items:
            total = self._fold(self._sum, [item.body for item in items])
            result = await self._known(self._epoch, items, total)
            self._observer.result(result.code.lower())
            match result.code:
                case Code.OK | Code.ALREADY:
                    self._seq += 1
                    self._sum = total
                    self._n += len(items)
                    meta = EpochMeta(self._epoch, self._seq, self._n)
                    seconds = asyncio.get_running_loop().time() - started
                    self._observer.committed(self._lane, meta, len(items), seconds)
                    for item in items:
                        self._settle(item, Outcome.ACCEPTED)
                    return
                case Code.DUP:
                    # Nothing was written, and a key that is taken stays taken: the copy of this
                    # commit that may still be on its way cannot succeed any more.
                    taken = dict(result.positions)
                    for position, same in taken.items():
                        outcome = Outcome.DUPLICATE if same else Outcome.CONFLICT
                        self._settle(items[position], outcome)
                    items = [item for at, item in enumerate(items) if at not in taken]
                case Code.FULL if result.room:
                    # Not closed yet: another process may be about to commit the same report.
                    self._put_back(items[result.room :])
                    items = items[: result.room]
                case Code.FULL:
                    # No key of these is in, and no commit can add one any more.
                    for item in items:
                        self._settle(item, Outcome.CLOSED)
                    return
                case Code.SEALED:
                    await self._refuse(items)
                    return

    async def _begin(self) -> Epoch | None:
        # An answer that gets lost leaves an epoch without commits, which adds nothing.
        return await self._until_known(partial(self._store.new_epoch, self._lane, self._who))

    async def _known(self, epoch: Epoch, items: list[_Item], total: bytes) -> CommitResult:
        """Repeats one commit, same number and same bytes, until its outcome is known."""
        seq, entries = self._seq + 1, [item.entry for item in items]
        commit = partial(self._store.commit, self._lane, epoch, seq, entries, total)
        return await self._until_known(commit)

    async def _refuse(self, items: list[_Item]) -> None:
        """Answers reports that came after the seal; those that another process committed stay."""
        for item in items:
            entry = item.entry
            look = partial(self._store.lookup, self._lane, entry.bucket, entry.epk)
            stored = await self._until_known(look)
            self._settle(item, standing(stored, entry.check))

    async def _until_known(self, call: Callable[[], Awaitable[_T]]) -> _T:
        pause = self._limits.retry_min_s
        while True:
            try:
                result = await call()
            except StoreUnavailable:
                self._observer.result("unavailable")
                if self._stuck_since is None:
                    self._stuck_since = asyncio.get_running_loop().time()
                await asyncio.sleep(pause * _RANDOM.uniform(0.5, 1.5))
                pause = min(2 * pause, self._limits.retry_max_s)
            else:
                self._stuck_since = None
                return result


def standing(stored: bytes | None, check: bytes) -> Outcome:
    """What a report is worth in a round that takes no more: `stored` is what the store holds."""
    if stored is None:
        return Outcome.CLOSED
    return Outcome.DUPLICATE if stored == check else Outcome.CONFLICT
