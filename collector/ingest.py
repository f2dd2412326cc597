"""From a report's bytes to its fate: which lane it belongs to, and what that lane says.

docs/protocol.md sections 5, 9 and 10. Also bounds what one process holds: reports and bytes from
the headers of a request until it is answered and the committer has let go of the body.

Leaves out: HTTP (`handlers`), batching (`committer`).
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from collector import logs
from collector.anchors import AnchorFile
from collector.book import Round
from collector.committer import BatchLimits, LaneCommitter, Outcome, Tell, standing
from collector.config import Limits
from collector.metrics import Metrics
from collector.scheme import scheme_of
from collector.store import (
    Entry,
    Epoch,
    EpochMeta,
    Lane,
    LanePhase,
    RoundStore,
    StoreUnavailable,
    check_of,
)
from dandelion.errors import RuleError
from dandelion.messages import Report
from dandelion.params import REPORT_HEADER_BYTES
from dandelion.round import Phase

# A lane that has been stuck for so long refuses newcomers at once instead of making them wait.
STUCK_S = 1.0
LOOKUPS_MAX = 64


# Whether a report key is in the fixed set of its shard, by round id and shard; None if no set of
# that shard is fixed.
Sealed = Callable[[bytes, int, bytes], Awaitable[bool | None]]


async def _nothing_sealed(_round_id: bytes, _shard: int, _epk: bytes) -> None:
    return None


class Seat:
    """Room for one report. It is free again when nobody holds it any more."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._holders = 1

    def hold(self, future: asyncio.Future[Outcome]) -> None:
        """Keeps the seat until the future is done."""
        self._holders += 1
        future.add_done_callback(self.release)

    def release(self, _: object = None) -> None:
        """One holder lets go."""
        self._holders -= 1
        if self._holders == 0:
            self._leave()


class Ingest:
    """The reports of one process. `clock` gives Unix seconds, `sealed` reads the database."""

    def __init__(
        self,
        store: RoundStore,
        limits: Limits,
        anchors: AnchorFile,
        metrics: Metrics,
        clock: Callable[[], float],
        sealed: Sealed = _nothing_sealed,
    ) -> None:
        self._store = store
        self._sealed = sealed
        self._limits = limits
        self._anchors = anchors
        self._metrics = metrics
        self._clock = clock
        self._who = os.urandom(16)
        self._batch = BatchLimits(
            limits.batch_reports, limits.batch_bytes, delay_s=limits.batch_delay_s
        )
        self._committers: dict[Lane, LaneCommitter] = {}
        self._lookups = asyncio.Semaphore(LOOKUPS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.waiting_reports = 0
        self.waiting_bytes = 0
        self.draining = False

    @contextmanager
    def admitted(self, size: int) -> Iterator[Seat]:
        """Holds room for one report of `size` bytes; nothing has been read of it yet.

        A report that a committer has taken keeps its room until the committer has let go of it,
        although its client was told to come again: a slow store must not fill the memory.

        Raises:
            RuleError: `draining`, `overloaded`.
        """
        if self.draining:
            raise RuleError("draining")
        if not self.enter(size):
            raise RuleError("overloaded")
        seat = Seat(partial(self.leave, size))
        try:
            yield seat
        finally:
            seat.release()

    def enter(self, size: int) -> bool:
        """Takes room for one report of `size` bytes, if there is any, until `leave`."""
        if (
            self.waiting_reports >= self._limits.waiting_reports_max
            or self.waiting_bytes + size > self._limits.waiting_bytes_max
        ):
            return False
        if self.waiting_reports == 0:
            self._idle.clear()
        self.waiting_reports += 1
        self.waiting_bytes += size
        return True

    def room(self) -> int:
        """About how many reports more there is room for, if they are like those that are here."""
        room = self._limits.waiting_reports_max - self.waiting_reports
        if self.waiting_bytes == 0:
            return room
        left = self._limits.waiting_bytes_max - self.waiting_bytes
        return min(room, left * self.waiting_reports // self.waiting_bytes)

    def leave(self, size: int) -> None:
        """Gives the room of one report back."""
        self.waiting_reports -= 1
        self.waiting_bytes -= size
        if self.waiting_reports == 0:
            self._idle.set()

    def offer(self, round_: Round, body: bytes, tell: Tell) -> bool:
        """Hands a report of a round that takes reports to its committer, without waiting.

        `tell` hears its fate. False if there is more to it than that; `accept` knows what.

        Raises:
            WireError: with a token of section 5.
        """
        lane, entry = _read(round_, body)
        committer = self._committers.get(lane)
        if committer is None or committer.failed() or committer.stuck_for() > STUCK_S:
            return False
        return committer.offer(entry, body, tell)

    async def accept(self, round_: Round, body: bytes, seat: Seat | None = None) -> Outcome:
        """The fate of a report, which has taken a seat if there are bounds.

        Raises:
            WireError: with a token of section 5.
            RuleError: `not_open`, `store_unavailable`.
        """
        lane, entry = _read(round_, body)
        now = self._clock()
        if round_.phase is Phase.DAMAGED:
            return Outcome.DAMAGED
        if now < round_.descriptor.opens:
            raise RuleError("not_open")
        try:
            async with asyncio.timeout(self._limits.answer_s):
                committer = self._committers.get(lane)
                if not round_.taking(now) and not (committer and committer.holds(entry.epk)):
                    return await self._look(round_, lane, entry)
                if committer is None or committer.failed():
                    committer = self._begin(round_, lane)
                if committer.stuck_for() > STUCK_S:
                    raise RuleError("store_unavailable")
                if seat is None:
                    return await committer.submit(entry, body)
                return await committer.submit(entry, body, seat.hold)
        except TimeoutError:
            raise RuleError("store_unavailable") from None

    def retire(self, live: Collection[bytes]) -> None:
        """Ends the committers of rounds that are not in `live`; what is under way is finished."""
        for lane, committer in list(self._committers.items()):
            if lane.round_id not in live:
                self._spawn(self._end(lane, committer))
        self._anchors.forget(live)

    async def drain(self, seconds: float) -> None:
        """Takes no new reports, answers those that are here, and ends; for `seconds` at most."""
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        for lane, committer in list(self._committers.items()):
            self._spawn(self._end(lane, committer))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._limits.answer_s)
        await self._anchors.flush()

    def committed(self, lane: Lane, meta: EpochMeta, reports: int, seconds: float) -> None:
        """Told by a committer: a commit has happened."""
        self._anchors.note(lane, meta)
        self._metrics.observe("commit_seconds", seconds)
        self._metrics.observe("commit_reports", reports)

    def lost(self, lane: Lane, epoch: Epoch | None) -> None:
        """Told by a committer: the store has forgotten what it had confirmed."""
        logs.event("store_lost", round_id=lane.round_id, shard=lane.shard)
        self._metrics.count("commits_total", "lost")
        self._anchors.note_loss(lane, epoch or Epoch(0, self._who))
        self._spawn(self._mark_damaged(lane))

    def result(self, word: str) -> None:
        """Told by a committer: an answer of the store."""
        self._metrics.count("commits_total", word)

    def _begin(self, round_: Round, lane: Lane) -> LaneCommitter:
        d = round_.descriptor
        scheme = scheme_of(d)
        committer = self._committers[lane] = LaneCommitter(
            self._store,
            lane,
            who=self._who,
            zero=scheme.zero(d),
            fold=partial(scheme.fold, d),
            limits=self._batch,
            observer=self,
        )
        committer.task.add_done_callback(self._ended)
        return committer

    async def _look(self, round_: Round, lane: Lane, entry: Entry) -> Outcome:
        """What a report is worth that comes too late: those that are in are told so.

        That one is not in is final only when none can get in any more. Until the seal another
        process may have it under way; and a store that has lost the lane knows nothing.
        """
        if round_.purged:
            return Outcome.CLOSED
        async with self._lookups:
            try:
                # First the phase: what a sealed lane does not hold afterwards it never will.
                phase = (await self._store.status(lane)).phase
                stored = await self._store.lookup(lane, entry.bucket, entry.epk)
            except StoreUnavailable:
                raise RuleError("store_unavailable") from None
            if stored is not None or phase is LanePhase.SEALED:
                return standing(stored, entry.check)
            match await self._sealed(round_.descriptor.round_id, lane.shard, entry.epk):
                case True:
                    return Outcome.DUPLICATE
                case False:
                    return Outcome.CLOSED
                case _:
                    return Outcome.UNAVAILABLE

    async def _end(self, lane: Lane, committer: LaneCommitter) -> None:
        await committer.drain(self._limits.answer_s)
        if self._committers.get(lane) is committer:
            del self._committers[lane]

    async def _mark_damaged(self, lane: Lane) -> None:
        """Tells the other processes. The anchor tells the driver even if this fails."""
        try:
            await self._store.step(lane, LanePhase.DAMAGED)
        except StoreUnavailable as error:
            logs.event("store_unavailable", round_id=lane.round_id, reason=error.kind)

    def _spawn(self, coroutine: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logs.event("committer_failed", error=error)


def _read(round_: Round, body: bytes) -> tuple[Lane, Entry]:
    """Where an encoded report goes, and what the store is told of it."""
    d = round_.descriptor
    epk = Report.read_key(body, d.round_id, round_.report_bytes)
    lane, bucket = round_.layout.place(epk, d.shard_of(epk))
    return lane, Entry(epk, check_of(memoryview(body)[REPORT_HEADER_BYTES:]), bucket)
