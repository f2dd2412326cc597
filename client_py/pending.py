"""Reports on their way, coins and receipts (docs/protocol.md section 14, steps 3 and 7).

A pending report is its encoded body, to be sent again byte for byte. There is no column for an
ephemeral key: it is gone once the body exists.
"""

import json
from collections.abc import Callable
from typing import Final

from client_py.database import Database
from client_py.receipts import Outcome, Receipt
from client_py.store import Pending

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pending (
    ctx BLOB PRIMARY KEY,
    origin TEXT NOT NULL,
    round_id BLOB NOT NULL,
    body BLOB NOT NULL,
    expires INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    receipt TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS receipts (
    id INTEGER PRIMARY KEY,
    ctx BLOB NOT NULL,
    receipt TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS coins (
    ctx BLOB PRIMARY KEY,
    expires INTEGER NOT NULL,
    heads INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
"""


class PendingReports:
    """Reports without an acknowledgement, and the receipts of those that are finished."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.connection.executescript(_SCHEMA)

    def put(self, pending: Pending) -> None:
        """Stores a report. To be called inside the transaction that charges for it."""
        self._database.connection.execute(
            "INSERT INTO pending "
            "(origin, ctx, round_id, body, expires, attempts, not_before, receipt) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                pending.origin,
                pending.ctx,
                pending.round_id,
                pending.body,
                pending.expires,
                pending.attempts,
                pending.not_before,
                _encode(pending.receipt),
            ),
        )

    def of(self, origin: str) -> list[Pending]:
        """Those for one deployment, oldest first."""
        found = self._database.connection.execute(
            "SELECT ctx, round_id, body, expires, receipt, attempts, not_before "
            "FROM pending WHERE origin = ? ORDER BY rowid",
            (origin,),
        )
        return [
            Pending(origin, ctx, round_id, body, expires, _decode(receipt), attempts, not_before)
            for ctx, round_id, body, expires, receipt, attempts, not_before in found
        ]

    def postpone(self, ctx: bytes, attempts: int, not_before: int) -> None:
        """Notes that a report was sent in vain."""
        self._database.connection.execute(
            "UPDATE pending SET attempts = ?, not_before = ? WHERE ctx = ?",
            (attempts, not_before, ctx),
        )

    def finish(self, ctx: bytes, receipt: Receipt) -> None:
        """Deletes a body and keeps the receipt."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM pending WHERE ctx = ?", (ctx,))
            connection.execute(
                "INSERT INTO receipts (ctx, receipt) VALUES (?, ?)", (ctx, _encode(receipt))
            )

    def receipts(self) -> list[Receipt]:
        """All receipts, oldest first."""
        found = self._database.connection.execute("SELECT receipt FROM receipts ORDER BY id")
        return [_decode(text) for (text,) in found]

    def coin(self, ctx: bytes, expires: int, toss: Callable[[], bool]) -> bool:
        """The coin of a round, tossed once; kept until the round has expired."""
        with self._database.transaction() as connection:
            found = connection.execute("SELECT heads FROM coins WHERE ctx = ?", (ctx,)).fetchone()
            if found is not None:
                return bool(found[0])
            heads = toss()
            connection.execute(
                "INSERT INTO coins (ctx, expires, heads) VALUES (?, ?, ?)", (ctx, expires, heads)
            )
            return heads

    def prune(self, now: int) -> None:
        """Forgets the coins of rounds that have expired."""
        self._database.connection.execute("DELETE FROM coins WHERE expires <= ?", (now,))

    def counter(self, name: str) -> int:
        """A number kept under a name; 0 at first."""
        found = self._database.connection.execute(
            "SELECT value FROM counters WHERE name = ?", (name,)
        ).fetchone()
        return int(found[0]) if found else 0

    def set_counter(self, name: str, value: int) -> None:
        """Keeps a number under a name."""
        self._database.connection.execute(
            "INSERT INTO counters (name, value) VALUES (?1, ?2) "
            "ON CONFLICT (name) DO UPDATE SET value = ?2",
            (name, value),
        )

    def counters(self, prefix: str) -> dict[str, int]:
        """All numbers whose name starts with a prefix, without it."""
        found = self._database.connection.execute("SELECT name, value FROM counters ORDER BY name")
        return {
            name.removeprefix(prefix): value for name, value in found if name.startswith(prefix)
        }


def _encode(receipt: Receipt) -> str:
    return json.dumps(receipt.to_object(), ensure_ascii=False, separators=(",", ":"))


def _decode(text: str) -> Receipt:
    fields = json.loads(text)
    return Receipt(**(fields | {"outcome": Outcome(fields["outcome"])}))
