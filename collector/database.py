"""What must not roll back: one SQLite file (docs/protocol.md sections 8, 9, 16).

Queries, rounds, seals, answers, releases, the ledger and the tokens. Redis carries reports while a
round is open; this file decides what a round is and what was published. Every write is on disk
before it is acted upon (`synchronous=FULL`), and deleted rows are overwritten.

One process writes; ingest processes read. Leaves out: what the rows mean (`registry`, `ledger`,
`tokens`).
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

FILE: Final = "collector.sqlite3"
_BUSY_S: Final = 5.0
_VERSION: Final = 1
_T = TypeVar("_T")

_SCHEMA: Final = """
CREATE TABLE queries (
    name TEXT PRIMARY KEY, document TEXT NOT NULL, created INTEGER NOT NULL
) STRICT;
CREATE TABLE rounds (
    round BLOB PRIMARY KEY, query TEXT NOT NULL REFERENCES queries, envelope BLOB NOT NULL,
    secret BLOB NOT NULL, partitions INTEGER NOT NULL, ready INTEGER NOT NULL DEFAULT 0,
    phase TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', opens INTEGER NOT NULL,
    closes INTEGER NOT NULL, expires INTEGER NOT NULL, ended INTEGER,
    purged INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX rounds_by_close ON rounds (closes);
CREATE TABLE seals (
    round BLOB NOT NULL REFERENCES rounds, shard INTEGER NOT NULL, n INTEGER NOT NULL,
    set_digest BLOB NOT NULL, y BLOB NOT NULL, keys BLOB, PRIMARY KEY (round, shard)
) STRICT;
CREATE TABLE answers (
    round BLOB NOT NULL REFERENCES rounds, shard INTEGER NOT NULL, party INTEGER NOT NULL,
    r BLOB NOT NULL, signature BLOB NOT NULL, PRIMARY KEY (round, shard, party)
) STRICT;
CREATE TABLE releases (
    round BLOB PRIMARY KEY REFERENCES rounds, artefact BLOB NOT NULL, summary TEXT NOT NULL,
    reports INTEGER NOT NULL, at INTEGER NOT NULL
) STRICT;
CREATE TABLE ledger (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, ctx BLOB NOT NULL, shard INTEGER NOT NULL,
    scope TEXT NOT NULL, rho_units TEXT NOT NULL, at INTEGER NOT NULL, note TEXT NOT NULL,
    prev BLOB NOT NULL, hash BLOB NOT NULL, UNIQUE (ctx, shard, kind)
) STRICT;
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, hash BLOB NOT NULL, scopes TEXT NOT NULL,
    created INTEGER NOT NULL, expires INTEGER NOT NULL, used_on INTEGER
) STRICT;
"""


class Database:
    """The file, behind one thread of its own: `run` is awaited, `transaction` is used inside."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Opens the file; the writer makes it if need be.

        Raises:
            sqlite3.Error: it cannot be opened.
            ValueError: another version of this program wrote it.
        """
        self._write = not read_only
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self.connection = self._thread.submit(_open, path, read_only).result()

    async def run(self, act: Callable[[sqlite3.Connection], _T]) -> _T:
        """Runs `act` in the thread, within one transaction that is durable on return."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._act, act)

    def _act(self, act: Callable[[sqlite3.Connection], _T]) -> _T:
        with transaction(self.connection, write=self._write):
            return act(self.connection)

    def close(self) -> None:
        """Closes the file."""
        self._thread.submit(self.connection.close).result()
        self._thread.shutdown()


@contextmanager
def transaction(connection: sqlite3.Connection, *, write: bool = True) -> Iterator[None]:
    """All or nothing; on disk when it ends."""
    # Who may write takes its turn at the start: a transaction that has read already would be
    # refused its first write, without waiting, if a command wrote meanwhile.
    connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have ended it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with this project's settings, usable in any one thread at a time."""
    address = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(
        address, uri=True, isolation_level=None, timeout=_BUSY_S, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables of a new file; refuses a file of another version.

    Raises:
        ValueError: another version of this program wrote it.
    """
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT")
    elif version != _VERSION:
        raise ValueError(f"{FILE} has version {version}, this program needs {_VERSION}")


def _open(path: Path, read_only: bool) -> sqlite3.Connection:
    connection = connect(path, read_only=read_only)
    if not read_only:
        prepare(connection)
        path.chmod(0o600)
    return connection
