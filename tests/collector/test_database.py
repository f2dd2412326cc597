"""The file that must not roll back: durable at once, and deleted rows do not linger."""

import sqlite3
from pathlib import Path

import pytest

from collector.database import FILE, Database, connect, transaction


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A new file."""
    return Database(tmp_path / FILE)


async def test_writes_are_synchronous_and_deletions_overwrite(database: Database) -> None:
    """synchronous=FULL (2), secure_delete on, for every connection, tokens issued beside
    included.
    """
    beside = connect(Path(database.connection.execute("PRAGMA database_list").fetchone()[2]))
    for connection in (database.connection, beside):
        settings = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "secure_delete", "foreign_keys")
        ]
        assert settings == [2, 1, 1]
    beside.close()
    database.close()


async def test_a_writer_waits_for_another_instead_of_failing(database: Database) -> None:
    """Nobody writes between what a transaction reads and what it writes: it cannot be refused.

    The control: begun without the intention to write, the transaction has read an old state and is
    refused at its first write.
    """
    path = Path(database.connection.execute("PRAGMA database_list").fetchone()[2])
    insert = "INSERT INTO queries VALUES (?, '{}', 0)"
    beside = connect(path)
    beside.execute("PRAGMA busy_timeout = 0")

    def read_and_write(connection: sqlite3.Connection) -> None:
        connection.execute("SELECT * FROM queries").fetchall()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            beside.execute(insert, ("a",))
        connection.execute(insert, ("b",))

    await database.run(read_and_write)
    with transaction(beside):
        beside.execute(insert, ("a",))
    beside.execute("BEGIN")
    beside.execute("SELECT * FROM queries").fetchall()
    await database.run(lambda connection: connection.execute(insert, ("c",)))
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        beside.execute(insert, ("d",))
    beside.execute("ROLLBACK")
    beside.close()
    database.close()
