"""Queries, rounds and what became of them, as rows of the database (docs/protocol.md section 9).

Functions here run inside a transaction of `Database.run`. A phase changes together with what
justifies it: the seal with its sets, sums and ledger entries, the release with its artefact.
"""

import json
import sqlite3
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from collector import ledger
from collector.book import Round
from dandelion.descriptor import Descriptor
from dandelion.errors import RuleError
from dandelion.params import KEY_BYTES
from dandelion.round import FINAL, Phase, advance

Document = dict[str, Any]


@dataclass(frozen=True)
class RoundRow:
    """A round as it is on disk. `ready` says that its lanes exist in the store."""

    round: Round
    ready: bool
    reason: str
    ended: int | None

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor."""
        return self.round.descriptor

    @property
    def round_id(self) -> bytes:
        """The round id."""
        return self.round.descriptor.round_id

    @property
    def phase(self) -> Phase:
        """Where the round stands."""
        return self.round.phase


@dataclass(frozen=True)
class Seal:
    """The fixed set of one release shard: n keys (32 bytes each, ascending), and their sum Y."""

    shard: int
    n: int
    set_digest: bytes
    y: bytes
    keys: bytes


def add_query(connection: sqlite3.Connection, name: str, document: Document, now: int) -> None:
    """Stores a query for good.

    Raises:
        RuleError: `query_exists`.
    """
    try:
        connection.execute(
            "INSERT INTO queries (name, document, created) VALUES (?, ?, ?)",
            (name, json.dumps(document), now),
        )
    except sqlite3.IntegrityError:
        raise RuleError("query_exists") from None


def query(connection: sqlite3.Connection, name: str) -> Document:
    """A query's document.

    Raises:
        RuleError: `unknown_query`.
    """
    row = connection.execute("SELECT document FROM queries WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise RuleError("unknown_query")
    document: Document = json.loads(row["document"])
    return document


def queries(connection: sqlite3.Connection) -> list[Document]:
    """All queries, oldest first."""
    rows = connection.execute("SELECT document FROM queries ORDER BY created, name")
    return [json.loads(row["document"]) for row in rows]


def add_round(connection: sqlite3.Connection, round_: Round) -> None:
    """Stores a round before anybody hears of it."""
    d = round_.descriptor
    connection.execute(
        "INSERT INTO rounds (round, query, envelope, secret, partitions, phase, opens, closes,"
        " expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            d.round_id,
            round_.query,
            round_.envelope,
            round_.secret,
            round_.partitions,
            round_.phase,
            d.opens,
            d.closes,
            d.expires,
        ),
    )


def set_ready(connection: sqlite3.Connection, round_id: bytes) -> None:
    """Notes that the round's lanes exist: from now on their absence is a loss."""
    connection.execute("UPDATE rounds SET ready = 1 WHERE round = ?", (round_id,))


def known_rounds(connection: sqlite3.Connection) -> set[bytes]:
    """Ids of all rounds."""
    return {row["round"] for row in connection.execute("SELECT round FROM rounds")}


def round_row(connection: sqlite3.Connection, round_id: bytes) -> RoundRow:
    """A round.

    Raises:
        RuleError: `unknown_round`.
    """
    row = connection.execute("SELECT * FROM rounds WHERE round = ?", (round_id,)).fetchone()
    if row is None:
        raise RuleError("unknown_round")
    return _round_row(row)


def round_rows(
    connection: sqlite3.Connection, *, unpurged: bool = False, limit: int = 500
) -> list[RoundRow]:
    """Rounds, the one that closes last first; only those that still need the driver, if asked."""
    where = "WHERE NOT purged" if unpurged else ""
    rows = connection.execute(
        f"SELECT * FROM rounds {where} ORDER BY closes DESC, rowid DESC LIMIT ?",  # noqa: S608
        (-1 if unpurged else limit,),
    )
    return [_round_row(row) for row in rows]


def move(
    connection: sqlite3.Connection, round_id: bytes, to: Phase, now: int, reason: str = ""
) -> RoundRow:
    """Changes the phase as section 9 allows. What nothing may come of any more is erased.

    Raises:
        RuleError: `round_closed` if the table of section 9 forbids the step.
    """
    row = round_row(connection, round_id)
    advance(row.phase, to)
    if to is not row.phase:
        ended = now if to in FINAL else None
        connection.execute(
            "UPDATE rounds SET phase = ?, reason = ?, ended = ? WHERE round = ?",
            (to, reason, ended, round_id),
        )
    if to in FINAL:
        connection.execute("DELETE FROM answers WHERE round = ?", (round_id,))
        connection.execute("DELETE FROM seals WHERE round = ?", (round_id,))
    return round_row(connection, round_id)


def set_reason(connection: sqlite3.Connection, round_id: bytes, reason: str) -> None:
    """Notes why a round does not get on."""
    connection.execute("UPDATE rounds SET reason = ? WHERE round = ?", (reason, round_id))


def set_purged(connection: sqlite3.Connection, round_id: bytes) -> None:
    """Notes that the store holds nothing of the round any more."""
    connection.execute("UPDATE rounds SET purged = 1 WHERE round = ?", (round_id,))


def add_seals(
    connection: sqlite3.Connection, row: RoundRow, seals: Sequence[Seal], now: int
) -> RoundRow:
    """Fixes the sets: seals, ledger entries before the first ask, and the phase, in one."""
    d = row.descriptor
    for seal in seals:
        connection.execute(
            "INSERT INTO seals (round, shard, n, set_digest, y, keys) VALUES (?, ?, ?, ?, ?, ?)",
            (d.round_id, seal.shard, seal.n, seal.set_digest, seal.y, seal.keys),
        )
        ledger.charge(connection, d, seal.shard, now)
    return move(connection, d.round_id, Phase.SEALED, now)


def seals(connection: sqlite3.Connection, round_id: bytes) -> list[Seal]:
    """The sets of a sealed round, by shard."""
    rows = connection.execute("SELECT * FROM seals WHERE round = ? ORDER BY shard", (round_id,))
    return [Seal(row["shard"], row["n"], row["set_digest"], row["y"], row["keys"]) for row in rows]


def in_seal(connection: sqlite3.Connection, round_id: bytes, shard: int, epk: bytes) -> bool | None:
    """Whether a key is in the set of a sealed round's shard; None if there is no set."""
    row = connection.execute(
        "SELECT rowid, n FROM seals WHERE round = ? AND shard = ?", (round_id, shard)
    ).fetchone()
    if row is None:
        return None
    # A set may take 128 MiB: it is searched where it lies.
    with connection.blobopen("seals", "keys", row["rowid"], readonly=True) as keys:
        at = bisect_left(range(row["n"]), epk, key=lambda index: _key_at(keys, index))
        return at < row["n"] and _key_at(keys, at) == epk


def _key_at(keys: sqlite3.Blob, index: int) -> bytes:
    keys.seek(KEY_BYTES * index)
    return keys.read(KEY_BYTES)


def add_answer(
    connection: sqlite3.Connection,
    round_id: bytes,
    shard: int,
    party: int,
    r: bytes,
    signature: bytes,
) -> None:
    """Keeps a helper's verified answer; a second one changes nothing."""
    connection.execute(
        "INSERT OR IGNORE INTO answers (round, shard, party, r, signature) VALUES (?, ?, ?, ?, ?)",
        (round_id, shard, party, r, signature),
    )


def answers(
    connection: sqlite3.Connection, round_id: bytes
) -> dict[tuple[int, int], tuple[bytes, bytes]]:
    """(R, signature) by (shard, party)."""
    rows = connection.execute("SELECT * FROM answers WHERE round = ?", (round_id,))
    return {(row["shard"], row["party"]): (row["r"], row["signature"]) for row in rows}


def answered(connection: sqlite3.Connection, round_id: bytes) -> set[tuple[int, int]]:
    """(shard, party) of the answers that are there."""
    rows = connection.execute("SELECT shard, party FROM answers WHERE round = ?", (round_id,))
    return {(row["shard"], row["party"]) for row in rows}


def add_release(
    connection: sqlite3.Connection,
    row: RoundRow,
    artefact: bytes,
    shards: Sequence[int],
    summary: Document,
    now: int,
) -> RoundRow:
    """Stores the one result of a round: what is stored is what every reader gets, for ever."""
    d = row.descriptor
    connection.execute(
        "INSERT INTO releases (round, artefact, summary, reports, at) VALUES (?, ?, ?, ?, ?)",
        (d.round_id, artefact, json.dumps(summary), summary["reports"], now),
    )
    for shard in shards:
        ledger.released(connection, d, shard, artefact, now)
    return move(connection, d.round_id, Phase.RELEASED, now)


def artefact(connection: sqlite3.Connection, round_id: bytes) -> bytes:
    """The release of a round, byte for byte as it was stored.

    Raises:
        RuleError: `unknown_round`, `not_released`.
    """
    data: bytes = _release(connection, round_id)["artefact"]
    return data


def summary(connection: sqlite3.Connection, round_id: bytes) -> Document:
    """The decoded table of a round's release.

    Raises:
        RuleError: `unknown_round`, `not_released`.
    """
    document: Document = json.loads(_release(connection, round_id)["summary"])
    return document


def ended(connection: sqlite3.Connection, limit: int = 500) -> list[Document]:
    """Rounds that have ended, newest first, as the public list shows them."""
    rows = connection.execute(
        "SELECT r.round, r.query, r.phase, r.reason, r.opens, r.closes, r.ended,"
        " s.reports"
        " FROM rounds r LEFT JOIN releases s ON s.round = r.round"
        " WHERE r.ended IS NOT NULL ORDER BY r.ended DESC, r.rowid DESC LIMIT ?",
        (limit,),
    )
    return [
        {
            "round": row["round"].hex(),
            "query": row["query"],
            "phase": row["phase"],
            "opens": row["opens"],
            "closes": row["closes"],
            "ended": row["ended"],
            **({"reason": row["reason"]} if row["reason"] else {}),
            **({"reports": row["reports"]} if row["reports"] is not None else {}),
        }
        for row in rows
    ]


def count_by_phase(connection: sqlite3.Connection) -> dict[str, int]:
    """Number of rounds in each phase that has any."""
    rows = connection.execute("SELECT phase, count(*) AS n FROM rounds GROUP BY phase")
    return {row["phase"]: row["n"] for row in rows}


def _release(connection: sqlite3.Connection, round_id: bytes) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM releases WHERE round = ?", (round_id,)
    ).fetchone()
    if row is None:
        round_row(connection, round_id)
        raise RuleError("not_released")
    return row


def _round_row(row: sqlite3.Row) -> RoundRow:
    round_ = Round(
        row["envelope"], Phase(row["phase"]), row["query"], row["secret"], row["partitions"]
    )
    return RoundRow(
        replace(round_, purged=bool(row["purged"])), bool(row["ready"]), row["reason"], row["ended"]
    )
