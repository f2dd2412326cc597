"""The one SQLite file of a client and its transactions.

Everything is in one file because a charge and the report it pays for must appear together. Deleted
events and bodies are overwritten, not only unlinked.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    # A charge that a power cut takes back would be spent again.
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",
    "PRAGMA foreign_keys = ON",
)


class Database:
    """A connection with explicit transactions; used by one thread."""

    def __init__(self, path: Path | str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        for pragma in _PRAGMAS:
            self.connection.execute(pragma)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; the write lock is taken at the start, so what is read stays true."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def close(self) -> None:
        """Writes the log back into the file and closes it."""
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()
