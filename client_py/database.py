"""The one SQLite file of a client and its transactions.

Everything is in one file because a charge and the report it pays for must appear together. Deleted
events and bodies are overwritten, not only unlinked.
"""

import os
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
    """A connection with explicit transactions; used by one thread. `:memory:` is a path as well.

    Raises:
        OSError: the file cannot be opened, or is no database.
    """

    def __init__(self, path: Path | str) -> None:
        if str(path) != ":memory:":
            # What a person does is nobody else's to read; SQLite's side files inherit this mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        try:
            for pragma in _PRAGMAS:
                self.connection.execute(pragma)
        except sqlite3.DatabaseError as error:
            self.connection.close()
            raise OSError(f"{path}: {error}") from None

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
