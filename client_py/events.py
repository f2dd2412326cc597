"""The local event store: what happened here, and never leaves.

An event is one row of a declared table. Rows are kept for `retention_s`, at most `rows_max` of
them and `bytes_max` bytes in all; the oldest go first. Nothing here is ever sent: plans read the
rows (docs/protocol.md section 15) and only masked sums leave.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from client_py.database import Database
from dandelion.errors import RuleError
from dandelion.queries.measures import Row
from dandelion.queries.schema import Registry

ROW_BYTES_MAX: Final = 16_384

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY,
    event TEXT NOT NULL,
    at INTEGER NOT NULL,
    size INTEGER NOT NULL,
    fields TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_event ON events (event, at);
CREATE INDEX IF NOT EXISTS events_by_time ON events (at);
"""


@dataclass(frozen=True)
class Retention:
    """How much is kept: seconds, rows, and bytes of encoded fields."""

    retention_s: int = 90 * 86_400
    rows_max: int = 10_000
    bytes_max: int = 16 * 1024 * 1024


class EventStore:
    """Rows of events in the client's database.

    With a registry, events and columns that it does not declare are refused, so that a misspelt
    name is noticed where it is written. The store itself does not need one.
    """

    def __init__(
        self,
        database: Database,
        retention: Retention = Retention(),
        registry: Registry | None = None,
    ) -> None:
        self._database = database
        self._retention = retention
        self._registry = registry
        database.connection.executescript(_SCHEMA)

    def record(self, event: str, fields: Mapping[str, object], at: int) -> None:
        """Keeps one row. `at` is Unix seconds.

        Fields are strings, numbers or None.

        Raises:
            RuleError: `schema_refused`, if a value is of another type, the row is too large, or a
                name is not in the registry.
        """
        encoded = self._encode(event, fields)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO events (event, at, size, fields) VALUES (?, ?, ?, ?)",
                (event, at, len(encoded), encoded),
            )
            self._prune(at)

    def rows(self, event: str) -> list[Row]:
        """All kept rows of one event, oldest first."""
        found = self._database.connection.execute(
            "SELECT fields FROM events WHERE event = ? ORDER BY at, id", (event,)
        )
        return [json.loads(fields) for (fields,) in found]

    def counts(self) -> dict[str, int]:
        """Number of kept rows of each event."""
        return dict(
            self._database.connection.execute(
                "SELECT event, COUNT(*) FROM events GROUP BY event ORDER BY event"
            )
        )

    def delete(self, event: str | None = None, before: int | None = None) -> int:
        """Deletes rows of one event or of all, optionally only those before a moment.

        Returns how many.
        """
        with self._database.transaction() as connection:
            return connection.execute(
                "DELETE FROM events WHERE (?1 IS NULL OR event = ?1) AND (?2 IS NULL OR at < ?2)",
                (event, before),
            ).rowcount

    def prune(self, now: int) -> None:
        """Deletes what is older than the retention or beyond the caps."""
        with self._database.transaction():
            self._prune(now)

    def _prune(self, now: int) -> None:
        connection = self._database.connection
        keep = self._retention
        connection.execute("DELETE FROM events WHERE at < ?", (now - keep.retention_s,))
        rows, size = connection.execute("SELECT COUNT(*), SUM(size) FROM events").fetchone()
        if rows <= keep.rows_max and (size or 0) <= keep.bytes_max:
            return
        oldest = connection.execute("SELECT id, size FROM events ORDER BY at, id").fetchall()
        for key, row_size in oldest:
            if rows <= keep.rows_max and size <= keep.bytes_max:
                break
            connection.execute("DELETE FROM events WHERE id = ?", (key,))
            rows, size = rows - 1, size - row_size

    def _encode(self, event: str, fields: Mapping[str, object]) -> str:
        if self._registry is not None:
            schema = self._registry.events.get(event)
            if schema is None or not fields.keys() <= schema.columns.keys():
                raise RuleError("schema_refused", "an event or a column that is not declared")
        for value in fields.values():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (value is None or isinstance(value, str) or number):
                raise RuleError("schema_refused", "a field is a string, a number or None")
        # What is not a finite number is null in every plan.
        plain = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in fields.items()
        }
        encoded = json.dumps(plain, separators=(",", ":"))
        if len(encoded) > ROW_BYTES_MAX:
            raise RuleError("schema_refused", f"a row of more than {ROW_BYTES_MAX} bytes")
        return encoded
