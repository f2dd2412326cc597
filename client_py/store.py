"""What a client keeps: events, ledger, pending reports, receipts (docs/protocol.md section 14).

`ClientStore` is the interface, `MemoryStore` the model for all stores and what simulations use;
`SqliteStore` is the durable one. Encoded reports are kept, ephemeral keys never: the interface has
no place for one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from client_py.receipts import Receipt
from dandelion.errors import RuleError
from dandelion.queries.measures import Row


@dataclass(frozen=True)
class Charge:
    """What one round costs at one deployment, in units of 2^-40 rho. `scope` is for the reader."""

    origin: str
    scope: str
    ctx: bytes
    rho_units: int
    at: int


@dataclass(frozen=True)
class Allowance:
    """The most a deployment may have cost since a moment, in units of 2^-40 rho."""

    rho_units: int
    since: int


@dataclass(frozen=True)
class Pending:
    """An encoded report that has not been acknowledged yet.

    It goes to `origin` and nowhere else. `receipt` is what will be said of it; `not_before` is
    when it may be sent again and `expires` when the round is over, both in Unix seconds.
    """

    origin: str
    ctx: bytes
    round_id: bytes
    body: bytes
    expires: int
    receipt: Receipt
    attempts: int = 0
    not_before: int = 0


class ClientStore(Protocol):
    """What `Client` needs to keep. Clients of several deployments may share one."""

    def rows(self, event: str) -> Sequence[Row]:
        """Local events of one table."""

    def coin(self, ctx: bytes, expires: int, toss: Callable[[], bool]) -> bool:
        """The coin of a round, tossed at most once: later calls return the first result."""

    def known(self, ctx: bytes) -> bool:
        """Whether a report for this round was ever made, whatever became of it."""

    def commit(
        self, charge: Charge, allowance: Allowance, make: Callable[[], Pending]
    ) -> Pending | None:
        """Charges, makes the report and stores its body, in one transaction.

        `make` is called after the charge has been found payable, and not at all otherwise. None
        if a report for this round was made before.

        Raises:
            RuleError: `budget_exhausted`; nothing is stored.
        """

    def spent(self, origin: str, since: int) -> int:
        """What a scope has been charged since a moment, in units of 2^-40 rho."""

    def pending(self, origin: str) -> list[Pending]:
        """Reports for a deployment without an acknowledgement, oldest first."""

    def postpone(self, ctx: bytes, attempts: int, not_before: int) -> None:
        """Notes that a report was sent in vain."""

    def finish(self, ctx: bytes, receipt: Receipt) -> None:
        """Deletes a body for good and keeps the receipt."""

    def receipts(self) -> list[Receipt]:
        """Receipts of all reports that are finished, oldest first."""

    def count_fault(self, kind: str) -> None:
        """Counts a fault for which zeros were sent."""

    def faults(self) -> dict[str, int]:
        """Faults counted so far."""

    def next_visit(self, origin: str) -> int:
        """When to ask a deployment for rounds again, in Unix seconds; 0 at first."""

    def visit_at(self, origin: str, at: int) -> None:
        """Notes when to ask a deployment for rounds again."""


class MemoryStore:
    """A `ClientStore` that forgets everything with the process.

    Its tables are made when first used: a simulation has tens of thousands of stores.
    """

    __slots__ = ("_charges", "_coins", "_events", "_faults", "_next", "_pending", "_receipts")

    def __init__(self, events: Mapping[str, Sequence[Row]] | None = None) -> None:
        self._events = events or {}
        self._coins: dict[bytes, bool] | None = None
        self._charges: dict[bytes, Charge] = {}
        self._pending: dict[bytes, Pending] = {}
        self._receipts: list[Receipt] | None = None
        self._faults: Counter[str] | None = None
        self._next: dict[str, int] = {}

    def rows(self, event: str) -> Sequence[Row]:
        return self._events.get(event, ())

    def coin(self, ctx: bytes, expires: int, toss: Callable[[], bool]) -> bool:
        if self._coins is None:
            self._coins = {}
        if ctx not in self._coins:
            self._coins[ctx] = toss()
        return self._coins[ctx]

    def known(self, ctx: bytes) -> bool:
        return ctx in self._charges

    def commit(
        self, charge: Charge, allowance: Allowance, make: Callable[[], Pending]
    ) -> Pending | None:
        if charge.ctx in self._charges:
            return None
        check_allowance(self._charges.values(), charge, allowance)
        pending = make()
        self._charges[charge.ctx] = charge
        self._pending[charge.ctx] = pending
        return pending

    def spent(self, origin: str, since: int) -> int:
        return spent(self._charges.values(), origin, since)

    def pending(self, origin: str) -> list[Pending]:
        return [each for each in self._pending.values() if each.origin == origin]

    def postpone(self, ctx: bytes, attempts: int, not_before: int) -> None:
        self._pending[ctx] = replace(self._pending[ctx], attempts=attempts, not_before=not_before)

    def finish(self, ctx: bytes, receipt: Receipt) -> None:
        self._pending.pop(ctx, None)
        if self._receipts is None:
            self._receipts = []
        self._receipts.append(receipt)

    def receipts(self) -> list[Receipt]:
        return list(self._receipts or ())

    def count_fault(self, kind: str) -> None:
        if self._faults is None:
            self._faults = Counter()
        self._faults[kind] += 1

    def faults(self) -> dict[str, int]:
        return dict(self._faults or {})

    def next_visit(self, origin: str) -> int:
        return self._next.get(origin, 0)

    def visit_at(self, origin: str, at: int) -> None:
        self._next[origin] = at


def spent(charges: Iterable[Charge], origin: str, since: int) -> int:
    """What the charges of one deployment add up to since a moment, whatever their scopes."""
    return sum(each.rho_units for each in charges if each.origin == origin and each.at > since)


def check_allowance(charges: Iterable[Charge], charge: Charge, allowance: Allowance) -> None:
    """Whether a further charge is within the allowance.

    Raises:
        RuleError: `budget_exhausted`.
    """
    before = spent(charges, charge.origin, allowance.since)
    if before + charge.rho_units > allowance.rho_units:
        raise RuleError("budget_exhausted", "this client's own allowance for the collector")
