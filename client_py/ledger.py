"""The client's own ledger (docs/protocol.md section 14, step 6, and section 16).

The one ledger that a collector cannot rename: all rounds of a deployment's origin share one
allowance, whatever scopes their descriptors name. It is charged before the first send, and nothing
is ever refunded. Charges are kept as text because rho in units of 2^-40 may exceed 63 bits.
"""

from typing import Final

from client_py.database import Database
from client_py.store import Allowance, Charge, check_allowance

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS charges (
    ctx BLOB PRIMARY KEY,
    origin TEXT NOT NULL,
    scope TEXT NOT NULL,
    rho_units TEXT NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS charges_by_origin ON charges (origin, at);
"""


class Ledger:
    """Charges in the client's database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.connection.executescript(_SCHEMA)

    def charge(self, charge: Charge, allowance: Allowance) -> None:
        """Enters a charge. To be called inside the transaction that stores the report.

        Raises:
            RuleError: `budget_exhausted`.
        """
        check_allowance(self.charges(charge.origin, allowance.since), charge, allowance)
        self._database.connection.execute(
            "INSERT INTO charges (ctx, origin, scope, rho_units, at) VALUES (?, ?, ?, ?, ?)",
            (charge.ctx, charge.origin, charge.scope, str(charge.rho_units), charge.at),
        )

    def charged(self, ctx: bytes) -> bool:
        """Whether a round has been charged."""
        found = self._database.connection.execute("SELECT 1 FROM charges WHERE ctx = ?", (ctx,))
        return found.fetchone() is not None

    def charges(self, origin: str, since: int) -> list[Charge]:
        """Charges of one deployment after a moment, oldest first."""
        found = self._database.connection.execute(
            "SELECT ctx, scope, rho_units, at FROM charges "
            "WHERE origin = ? AND at > ? ORDER BY at, ctx",
            (origin, since),
        )
        return [Charge(origin, scope, ctx, int(units), at) for ctx, scope, units, at in found]
