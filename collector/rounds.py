"""The round driver: takes every round from phase to phase, and starts where it left off.

docs/protocol.md section 9. One task per round; the database says where a round stands, so each step
may be cut off anywhere and repeated. Only this process changes a phase; ingest processes hear of it
through the store's list.

Leaves out: how a round is signed (`opening`), sealed (`sealing`), asked for and published
(`asking`, `releasing`).
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from collector import anchors, logs, registry
from collector.asking import gather
from collector.book import RoundBook
from collector.config import Lifetimes, Limits
from collector.database import Database
from collector.helper_client import Helper
from collector.opening import open_round
from collector.registry import RoundRow
from collector.releasing import make_release
from collector.scheme import scheme_of
from collector.sealing import Damaged, check_seals, seal_round
from collector.store import LanePhase, RoundStore, StoreUnavailable
from collector.tasks import end
from dandelion.errors import RuleError, WireError
from dandelion.round import COMMITTING, Phase

RETRY_S: Final = 1.0
# A fault of ours may be there again at once; the pause doubles up to this.
FAULT_PAUSE_MAX_S: Final = 60.0


@dataclass(frozen=True)
class Services:
    """What a round needs. `clock` gives Unix seconds."""

    database: Database
    store: RoundStore
    book: RoundBook
    helpers: Sequence[Helper]
    seed: bytes
    anchors_dir: Path
    lifetimes: Lifetimes
    limits: Limits
    clock: Callable[[], float]


class Driver:
    """All rounds of this collector."""

    def __init__(self, services: Services, partitions: int) -> None:
        self._services = services
        self._partitions = partitions
        self._runners: dict[bytes, _Runner] = {}
        self._compaction = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.failed = 0

    @property
    def failing(self) -> bool:
        """Whether a fault of ours holds a round up."""
        return any(runner.failing for runner in self._runners.values())

    async def start(self) -> None:
        """Takes up every round that is not over and purged."""
        self._tasks = [
            asyncio.create_task(self._compact()),
            asyncio.create_task(self._withdraw_unknown()),
        ]
        unpurged = partial(registry.round_rows, unpurged=True)
        for row in await self._services.database.run(unpurged):
            self._drive(row)

    async def stop(self) -> None:
        """Lets go of every round where it stands."""
        await end(*self._tasks, *(runner.task for runner in self._runners.values()))

    async def open(self, document: dict[str, Any], times: tuple[int, int, int]) -> RoundRow:
        """Opens a round of a query and makes it known.

        Once it is stored it is open, even if the store of reports is away and nobody hears of the
        round before that one is back.

        Raises:
            RuleError, WireError: as `opening.open_round`.
        """
        services = self._services
        round_ = await open_round(
            document,
            times,
            helpers=services.helpers,
            seed=services.seed,
            partitions=self._partitions,
        )
        await services.database.run(lambda connection: registry.add_round(connection, round_))
        round_id = round_.descriptor.round_id
        row = await self._row(round_id)
        logs.event("round_opened", round_id=round_id)
        runner = self._drive(row)
        await self._soon(runner.known)
        return await self._row(round_id)

    async def close(self, round_id: bytes) -> RoundRow:
        """Ends the taking of reports before `closes`, also if nobody can hear of it at once.

        Raises:
            RuleError: `unknown_round`; `round_closed` if it does not take any.
        """
        row = await self._row(round_id)
        runner = self._runners.get(round_id)
        if row.phase is not Phase.OPEN or runner is None:
            raise RuleError("round_closed")
        now = int(self._services.clock())
        move = partial(registry.move, round_id=round_id, to=Phase.CLOSING, now=now)
        await self._services.database.run(move)
        runner.close_requested.set()
        await self._soon(runner.closed)
        return await self._row(round_id)

    async def reports(self, row: RoundRow) -> int | None:
        """How many reports the store holds; None if that is not known."""
        if row.round.purged:
            return None
        try:
            lanes = [await self._services.store.status(it) for it in row.round.layout.lanes]
        except StoreUnavailable:
            return None
        return sum(status.count for status in lanes)

    async def _compact(self) -> None:
        """Has the store rewrite its files after each seal and purge, one rewrite at a time."""
        while True:
            await self._compaction.wait()
            self._compaction.clear()
            try:
                await self._services.store.compact()
            except StoreUnavailable:
                self._compaction.set()
                await asyncio.sleep(RETRY_S)

    async def _withdraw_unknown(self) -> None:
        """Takes rounds off the list that this database has never stored, or has forgotten.

        They are those of a later state of the database: nobody would ever seal or release them.
        """
        services = self._services
        while True:
            try:
                # The list first: a round is stored before it is listed.
                listed = await services.store.published()
                known = await services.database.run(registry.known_rounds)
                for round_id in listed.keys() - known:
                    await services.store.withdraw(round_id)
                    logs.event("round_withdrawn", round_id=round_id)
            except (StoreUnavailable, sqlite3.Error):
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _soon(self, event: asyncio.Event) -> None:
        """Waits for the event, but no longer than a client waits for an answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._services.limits.answer_s):
                await event.wait()

    async def _row(self, round_id: bytes) -> RoundRow:
        return await self._services.database.run(
            lambda connection: registry.round_row(connection, round_id)
        )

    def _drive(self, row: RoundRow) -> "_Runner":
        runner = _Runner(self._services, row, self._compaction.set, self._fault)
        self._runners[row.round_id] = runner
        runner.task.add_done_callback(partial(self._over, row.round_id))
        return runner

    def _over(self, round_id: bytes, task: asyncio.Task[None]) -> None:
        self._runners.pop(round_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault(round_id, error)

    def _fault(self, round_id: bytes, error: BaseException) -> None:
        self.failed += 1
        logs.event("internal", round_id=round_id, error=error)


class _Runner:
    """One round, from wherever it stands to the purge."""

    def __init__(
        self,
        services: Services,
        row: RoundRow,
        compact: Callable[[], None],
        fault: Callable[[bytes, BaseException], None],
    ) -> None:
        self._services = services
        self._row = row
        self._compact = compact
        self._fault = fault
        self.failing = False
        self.close_requested = asyncio.Event()
        self.closed = asyncio.Event()
        self.known = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        pause = RETRY_S
        while not self._row.round.purged:
            try:
                await self._attempt()
            except StoreUnavailable as error:
                logs.event("store_unavailable", round_id=self._row.round_id, reason=error.kind)
                await asyncio.sleep(RETRY_S)
            except sqlite3.Error as error:
                # A full or failing disk: nothing was acted upon that is not written.
                logs.event("internal", round_id=self._row.round_id, error=error)
                await asyncio.sleep(RETRY_S)
            except Exception as error:  # noqa: BLE001 - logged, counted and shown
                # Whatever it is, a round that nobody drives would keep its reports for ever.
                self.failing = True
                self._fault(self._row.round_id, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, FAULT_PAUSE_MAX_S)
            else:
                self.failing, pause = False, RETRY_S

    async def _attempt(self) -> None:
        # What was written last counts, whether or not we were told that it was.
        self._row = await self._services.database.run(
            partial(registry.round_row, round_id=self._row.round_id)
        )
        try:
            await self._step()
        except Damaged as error:
            logs.event("round_damaged", round_id=self._row.round_id, reason=error.reason)
            await self._move(Phase.DAMAGED, error.reason)

    async def _step(self) -> None:
        await self._publish()
        match self._row.phase:
            case Phase.OPEN:
                await self._while_open()
            case Phase.CLOSING:
                await self._seal()
            case Phase.SEALED:
                await self._release()
            case _:
                await self._purge()

    async def _publish(self) -> None:
        """Makes lanes and record agree with the database, in this order."""
        row, services = self._row, self._services
        if row.phase in COMMITTING and not row.ready:
            for lane in row.round.layout.lanes:
                await services.store.open_lane(row.round.layout, lane)
            await self._write(lambda connection: registry.set_ready(connection, row.round_id))
        wanted = {Phase.CLOSING: LanePhase.CLOSING, Phase.DAMAGED: LanePhase.DAMAGED}
        if row.phase not in (Phase.OPEN, Phase.SEALED):
            for lane in row.round.layout.lanes:
                await services.store.step(lane, wanted.get(row.phase, LanePhase.SEALED))
        if row.phase not in COMMITTING:
            # Answered until `expires`, then forgotten even if nobody is here to purge.
            await services.store.expire_at(row.round.layout, row.descriptor.expires)
        await services.store.publish(row.round_id, row.round.encode())
        await services.book.refresh()
        self.known.set()
        if row.phase is not Phase.OPEN:
            self.closed.set()

    async def _while_open(self) -> None:
        """Waits for the end of taking reports, and sees to it that the store keeps them."""
        while not self.close_requested.is_set() and self._left(self._row.descriptor.closes) > 0:
            await self._check_lanes()
            left = self._left(self._row.descriptor.closes)
            await self._wait(self.close_requested, min(self._services.lifetimes.tick_s, left))
        logs.event("round_closing", round_id=self._row.round_id)
        await self._move(Phase.CLOSING)

    async def _check_lanes(self) -> None:
        for lane in self._row.round.layout.lanes:
            status = await self._services.store.status(lane)
            if status.phase in (LanePhase.GONE, LanePhase.DAMAGED):
                raise Damaged(f"lane {lane.name} is {status.phase}")

    async def _seal(self) -> None:
        row, services = self._row, self._services
        d = row.descriptor
        # Never before `closes`, whoever closed it; then as long as commits in flight may take.
        await self._until(d.closes + services.lifetimes.seal_grace_s)
        known = await asyncio.to_thread(anchors.read, services.anchors_dir, row.round_id)
        seals = await seal_round(services.store, scheme_of(d), d, row.round.layout, known)
        if not seals:
            logs.event("round_abandoned", round_id=row.round_id, reason="cohort_too_small")
            await self._move(Phase.ABANDONED, "every shard ended below cohort_min")
            return
        now = int(services.clock())
        self._row = await services.database.run(
            lambda connection: registry.add_seals(connection, row, seals, now)
        )
        logs.event("round_sealed", round_id=row.round_id, n=sum(seal.n for seal in seals))

    async def _release(self) -> None:
        row, services = self._row, self._services
        # Overwritten sums leave the store's files: their differences are batches of reports.
        self._compact()
        seals = await services.database.run(partial(registry.seals, round_id=row.round_id))
        answers = await gather(
            services.database,
            services.helpers,
            row,
            seals,
            seed=services.seed,
            clock=services.clock,
            retry_max_s=services.limits.helper_retry_max_s,
        )
        if answers is None:
            reason = "a helper has not answered before the round expired"
            logs.event("round_abandoned", round_id=row.round_id, reason="helper_unavailable")
            await self._move(Phase.ABANDONED, reason)
            return
        await check_seals(services.store, row.round.layout, seals)
        make = partial(make_release, row, seals, answers, services.seed)
        try:
            artefact, summary = await asyncio.to_thread(make)
        except WireError as error:
            raise Damaged(f"set, sum and answers disagree: {error.token}") from None
        now, shards = int(services.clock()), [seal.shard for seal in seals]
        add = partial(
            registry.add_release,
            row=row,
            artefact=artefact,
            shards=shards,
            summary=summary,
            now=now,
        )
        self._row = await services.database.run(add)
        logs.event("round_released", round_id=row.round_id, n=summary["reports"])

    async def _purge(self) -> None:
        """Waits for `expires`, then lets the store forget the round."""
        row, services = self._row, self._services
        await self._until(row.descriptor.expires)
        await services.store.purge(row.round.layout)
        await services.store.withdraw(row.round_id)
        await self._write(lambda connection: registry.set_purged(connection, row.round_id))
        self._compact()
        await services.book.refresh()
        unpurged = partial(registry.round_rows, unpurged=True)
        live = {it.round_id for it in await services.database.run(unpurged)}
        await asyncio.to_thread(anchors.sweep, services.anchors_dir, live)
        logs.event("purged", round_id=row.round_id)

    async def _move(self, to: Phase, reason: str = "") -> None:
        now, round_id = int(self._services.clock()), self._row.round_id
        self._row = await self._services.database.run(
            lambda connection: registry.move(connection, round_id, to, now, reason)
        )

    async def _write(self, act: Callable[[sqlite3.Connection], None]) -> None:
        await self._services.database.run(act)
        round_id = self._row.round_id
        self._row = await self._services.database.run(
            lambda connection: registry.round_row(connection, round_id)
        )

    async def _until(self, moment: float) -> None:
        """Waits for a moment by the clock, which may jump."""
        while True:
            left = self._left(moment)
            if left <= 0:
                return
            await asyncio.sleep(min(self._services.lifetimes.tick_s, left))

    def _left(self, until: float) -> float:
        return until - self._services.clock()

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> None:
        """Waits for the event, but no longer than that."""
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait({waiting}, timeout=max(0.0, seconds))
        finally:
            waiting.cancel()
