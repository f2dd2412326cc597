"""What must never be forgotten: SQLite, and the one thread that writes (docs/protocol.md 6, 16).

Tables: keys made, descriptors signed, answers given, and the hash-chained budget ledger. No round
root is ever in here.

Durability. `synchronous=EXTRA` with a rollback journal: a commit returns after the pages, the
journal's end and the directory are on disk. A rollback journal rather than a write-ahead log,
because there is one connection only, and because at rest the database is then one file with
nothing pending beside it: what an operator copies is whole, and erased content (`secure_delete`)
lingers in no log.

One thread (`StateThread`) owns the connection and the root directory, so every "look, then change"
below happens alone. Leaves out: the rules (`signing`, `answers`, `keeper`).
"""

import asyncio
import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from dandelion.descriptor import Descriptor
from dandelion.errors import RuleError, WireError
from dandelion.privacy import ledger
from dandelion.service.identity import StateError
from helper import logs

P = ParamSpec("P")
T = TypeVar("T")

SCHEMA_VERSION: Final = 1

# Ledger rows are written once; a bug that tried otherwise would stop here.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS helper (
    one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, identity BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS keys (
    mask_key BLOB PRIMARY KEY, made_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS signings (
    ctx BLOB PRIMARY KEY, mask_key BLOB NOT NULL UNIQUE, party INTEGER NOT NULL,
    scope TEXT NOT NULL, pays_at INTEGER NOT NULL, expires INTEGER NOT NULL,
    state TEXT NOT NULL,
    descriptor BLOB NOT NULL, signature BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS signings_pay ON signings (scope, pays_at);
CREATE TABLE IF NOT EXISTS answers (
    ctx BLOB NOT NULL REFERENCES signings, shard INTEGER NOT NULL, n INTEGER NOT NULL,
    set_digest BLOB NOT NULL, sum BLOB NOT NULL, answer BLOB, PRIMARY KEY (ctx, shard)
) STRICT;
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, ctx BLOB NOT NULL, shard INTEGER NOT NULL,
    scope TEXT NOT NULL, rho_units INTEGER NOT NULL, at INTEGER NOT NULL, note TEXT NOT NULL,
    prev BLOB NOT NULL, hash BLOB NOT NULL, UNIQUE (kind, ctx, shard)
) STRICT;
CREATE INDEX IF NOT EXISTS ledger_ctx ON ledger (ctx);
CREATE TRIGGER IF NOT EXISTS ledger_fixed BEFORE UPDATE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is only appended to'); END;
CREATE TRIGGER IF NOT EXISTS ledger_kept BEFORE DELETE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is only appended to'); END;
"""


class State(StrEnum):
    """Where a signed round stands. Only a LIVE one answers, and no state leads back to it."""

    LIVE = "live"
    ANSWERED = "answered"  # every shard; the root goes
    FREEING = "freeing"  # expired without any answer; the root goes, then the reservation
    FREED = "freed"
    CLOSED = "closed"  # expired after some answers; the root is gone
    LOST = "lost"  # expired, and its root was not there to erase; nothing is freed


@dataclass(frozen=True)
class Signing:
    """A descriptor this helper signed. `pays_at`: the second whose period's budget pays."""

    descriptor: Descriptor
    party: int
    pays_at: int
    signature: bytes
    state: State = State.LIVE

    @property
    def ctx(self) -> bytes:
        """SHA-256 of the descriptor."""
        return self.descriptor.ctx

    @property
    def mask_key(self) -> bytes:
        """This helper's mask key in the round."""
        return self.descriptor.helpers[self.party - 1].mask_key


@dataclass(frozen=True)
class Stored:
    """An answer given. `answer` is None once its bytes were dropped."""

    n: int
    set_digest: bytes
    sum: bytes
    answer: bytes | None


class Store:
    """The database. Every method blocks and belongs on the state thread.

    Raises:
        StateError: on opening a file that is no database, belongs to another helper or version,
            or has a broken ledger.
    """

    def __init__(self, path: Path, identity: bytes) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            raise StateError(f"{path}: {error}") from None
        try:
            path.chmod(0o600)
            self._open(identity)
        except sqlite3.Error as error:
            self._db.close()
            raise StateError(f"{path}: {error}") from None
        except BaseException:
            self._db.close()
            raise

    def _open(self, identity: bytes) -> None:
        for pragma in ("journal_mode=TRUNCATE", "synchronous=EXTRA", "secure_delete=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("PRAGMA foreign_keys=ON")
        with self.transaction():
            for statement in _statements(_SCHEMA):
                self._db.execute(statement)
            self._db.execute(
                "INSERT OR IGNORE INTO helper VALUES (1, ?, ?)", (SCHEMA_VERSION, identity)
            )
        if self._db.execute("SELECT version, identity FROM helper").fetchone() != (
            SCHEMA_VERSION,
            identity,
        ):
            raise StateError("the database belongs to another identity or version")
        try:
            ledger.verify_chain(self.ledger())
        except WireError as error:
            raise StateError(f"the ledger was changed: {error.detail}") from None

    def close(self) -> None:
        """Closes the database."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; durable when the block has been left."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    # Keys

    def add_key(self, mask_key: bytes, now: int) -> None:
        """Remembers that this helper made a mask key."""
        with self.transaction():
            self._db.execute("INSERT INTO keys VALUES (?, ?)", (mask_key, now))

    def knows_key(self, mask_key: bytes) -> bool:
        """Whether this helper made the key and has not forgotten it."""
        row = self._db.execute("SELECT 1 FROM keys WHERE mask_key = ?", (mask_key,)).fetchone()
        return row is not None

    def forget_unsigned_keys(self, made_before: int) -> None:
        """Drops the names of keys that never signed; their roots are long erased."""
        self._db.execute(
            "DELETE FROM keys WHERE made_at < ?"
            " AND mask_key NOT IN (SELECT mask_key FROM signings)",
            (made_before,),
        )

    # Signing records

    def signing(self, ctx: bytes) -> Signing | None:
        """The record of a round."""
        row = self._db.execute(_SIGNINGS + " WHERE ctx = ?", (ctx,)).fetchone()
        return _signing_of(row) if row else None

    def signing_of_key(self, mask_key: bytes) -> Signing | None:
        """The record that used a mask key."""
        row = self._db.execute(_SIGNINGS + " WHERE mask_key = ?", (mask_key,)).fetchone()
        return _signing_of(row) if row else None

    def unsettled(self) -> list[Signing]:
        """The records that are LIVE or FREEING."""
        states = (State.LIVE, State.FREEING)
        return [
            _signing_of(row)
            for row in self._db.execute(_SIGNINGS + " WHERE state IN (?, ?)", states)
        ]

    def open_rounds(self, scope: str, now: int) -> int:
        """How many rounds of a scope can still be answered."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM signings WHERE scope = ? AND state = ? AND expires > ?",
            (scope, State.LIVE, now),
        ).fetchone()
        return int(count)

    def spent(self, scope: str, start: int, end: int) -> int:
        """Rho units reserved or charged by rounds of a scope that pay within start <= t < end."""
        rows = self._db.execute(_ENTRIES + _PAID_WITHIN, (scope, start, end))
        return ledger.spent((ledger.Entry(*row) for row in rows), scope)

    def add_signing(self, signing: Signing, now: int) -> None:
        """Record and reservation; to be called within a transaction."""
        d = signing.descriptor
        self._db.execute(
            "INSERT INTO signings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                signing.ctx,
                signing.mask_key,
                signing.party,
                d.scope,
                signing.pays_at,
                d.expires,
                signing.state,
                d.encode(),
                signing.signature,
            ),
        )
        self.append(ledger.RESERVE, signing, 0, now)

    def set_state(self, ctx: bytes, state: State) -> None:
        """Moves a record on."""
        self._db.execute("UPDATE signings SET state = ? WHERE ctx = ?", (state, ctx))

    # Answers

    def answer(self, ctx: bytes, shard: int) -> Stored | None:
        """What was answered for a shard."""
        row = self._db.execute(
            "SELECT n, set_digest, sum, answer FROM answers WHERE ctx = ? AND shard = ?",
            (ctx, shard),
        ).fetchone()
        return Stored(*row) if row else None

    def answered_shards(self, ctx: bytes) -> int:
        """The shards that have an answer, as a bit mask."""
        rows = self._db.execute("SELECT shard FROM answers WHERE ctx = ?", (ctx,))
        return sum(1 << int(shard) for (shard,) in rows)

    def add_answer(self, ctx: bytes, shard: int, stored: Stored) -> None:
        """One answer; to be called within a transaction."""
        self._db.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)",
            (ctx, shard, stored.n, stored.set_digest, stored.sum, stored.answer),
        )

    def drop_answers(self, expired_before: int) -> None:
        """Drops the bytes, never the record, of answers to rounds that expired before a time."""
        self._db.execute(
            "UPDATE answers SET answer = NULL WHERE answer IS NOT NULL"
            " AND ctx IN (SELECT ctx FROM signings WHERE expires < ?)",
            (expired_before,),
        )

    # Ledger

    def ledger(self) -> list[ledger.Entry]:
        """Every entry, in order."""
        rows = self._db.execute(_ENTRIES + " ORDER BY seq")
        return [ledger.Entry(*row) for row in rows]

    def append(self, kind: str, signing: Signing, shard: int, now: int) -> None:
        """Adds an entry for a round; to be called within a transaction."""
        row = self._db.execute(_ENTRIES + " ORDER BY seq DESC LIMIT 1").fetchone()
        entry = ledger.append(
            ledger.Entry(*row) if row else None,
            kind=kind,
            ctx=signing.ctx,
            shard=shard,
            scope=signing.descriptor.scope,
            rho_units=signing.descriptor.rho_units,
            at=now,
            note=f"pays_at {signing.pays_at}",
        )
        self._db.execute(
            "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            dataclasses.astuple(entry),
        )


class StateThread:
    """The one thread that touches database and root files, in the order of the calls."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `call` there and returns what it returns.

        A call that was started is finished even if the caller stops waiting.

        Raises:
            RuleError: `store_unavailable` if the disk or the database fails.
        """
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.shield(
                loop.run_in_executor(self._executor, lambda: call(*args, **kwargs))
            )
        except (OSError, sqlite3.OperationalError) as error:
            logs.event("store_failed", error=error)
            raise RuleError("store_unavailable") from None

    def close(self) -> None:
        """Waits for the last call and ends the thread."""
        self._executor.shutdown(wait=True)


_SIGNINGS: Final = "SELECT descriptor, party, pays_at, signature, state FROM signings"
# In the order of the fields of `ledger.Entry`, as the table's columns are.
_ENTRIES: Final = "SELECT seq, kind, ctx, shard, scope, rho_units, at, note, prev, hash FROM ledger"
_PAID_WITHIN: Final = (
    " WHERE ctx IN (SELECT ctx FROM signings WHERE scope = ? AND pays_at >= ? AND pays_at < ?)"
)


def _signing_of(row: tuple[bytes, int, int, bytes, str]) -> Signing:
    descriptor, party, pays_at, signature, state = row
    return Signing(Descriptor.decode(descriptor), party, pays_at, signature, State(state))


def _statements(script: str) -> Iterator[str]:
    """Single statements of a script, because `executescript` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
