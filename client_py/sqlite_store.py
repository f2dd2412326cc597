"""A `ClientStore` in one SQLite file: what a real client uses."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from client_py.database import Database
from client_py.events import EventStore, Retention
from client_py.ledger import Ledger
from client_py.pending import PendingReports
from client_py.receipts import Receipt
from client_py.store import Allowance, Charge, Pending, spent
from dandelion.queries.measures import Row
from dandelion.queries.schema import Registry

_FAULT = "fault:"
_NEXT_VISIT = "next visit:"


class SqliteStore:
    """Events, ledger, pending reports and receipts of one person. Used by one thread.

    `events` is where the host program records what happens.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        retention: Retention = Retention(),  # noqa: B008 (frozen)
        registry: Registry | None = None,
    ) -> None:
        self._database = Database(path)
        self.events = EventStore(self._database, retention, registry)
        self.ledger = Ledger(self._database)
        self._reports = PendingReports(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def prune(self, now: int) -> None:
        """Deletes what its owner no longer wants kept: old events, coins of expired rounds."""
        self.events.prune(now)
        self._reports.prune(now)

    def rows(self, event: str) -> list[Row]:
        return self.events.rows(event)

    def coin(self, ctx: bytes, expires: int, toss: Callable[[], bool]) -> bool:
        return self._reports.coin(ctx, expires, toss)

    def known(self, ctx: bytes) -> bool:
        return self.ledger.charged(ctx)

    def commit(
        self, charge: Charge, allowance: Allowance, make: Callable[[], Pending]
    ) -> Pending | None:
        with self._database.transaction():
            if self.ledger.charged(charge.ctx):
                return None
            self.ledger.charge(charge, allowance)
            pending = make()
            self._reports.put(pending)
        return pending

    def spent(self, origin: str, since: int) -> int:
        return spent(self.ledger.charges(origin, since), origin, since)

    def pending(self, origin: str) -> list[Pending]:
        return self._reports.of(origin)

    def postpone(self, ctx: bytes, attempts: int, not_before: int) -> None:
        self._reports.postpone(ctx, attempts, not_before)

    def finish(self, ctx: bytes, receipt: Receipt) -> None:
        self._reports.finish(ctx, receipt)

    def receipts(self) -> list[Receipt]:
        return self._reports.receipts()

    def count_fault(self, kind: str) -> None:
        self._reports.set_counter(_FAULT + kind, self._reports.counter(_FAULT + kind) + 1)

    def faults(self) -> dict[str, int]:
        return self._reports.counters(_FAULT)

    def next_visit(self, origin: str) -> int:
        return self._reports.counter(_NEXT_VISIT + origin)

    def visit_at(self, origin: str, at: int) -> None:
        self._reports.set_counter(_NEXT_VISIT + origin, at)
