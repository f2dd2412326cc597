"""The collector's ledger: a hash chain of what was asked for and what was published.

docs/protocol.md section 16. An entry per (ctx, shard) is on disk before the first ask, another with
the artefact's hash when it is published. This ledger shows what happened; those that limit it are
the helpers' and the clients' own. Nothing here is ever refunded.
"""

import hashlib
import sqlite3
from typing import Any

from dandelion.descriptor import Descriptor
from dandelion.errors import WireError
from dandelion.privacy.ledger import CHARGE, RELEASE, Entry, append, verify_chain


def charge(connection: sqlite3.Connection, d: Descriptor, shard: int, now: int) -> None:
    """Notes that a shard's mask sum is about to be asked for. Once per (ctx, shard)."""
    _append(connection, CHARGE, d, shard, now, "")


def released(
    connection: sqlite3.Connection, d: Descriptor, shard: int, artefact: bytes, now: int
) -> None:
    """Notes what was published. Once per (ctx, shard)."""
    _append(connection, RELEASE, d, shard, now, hashlib.sha256(artefact).hexdigest())


def entries(connection: sqlite3.Connection, after: int = 0, limit: int = -1) -> list[Entry]:
    """Entries in order, those beyond number `after`."""
    rows = connection.execute(
        "SELECT * FROM ledger WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
    )
    return [_entry(row) for row in rows]


def audit(connection: sqlite3.Connection) -> dict[str, Any]:
    """The whole ledger with the verdict on its chain, fit for JSON."""
    found = entries(connection)
    try:
        verify_chain(found)
    except WireError as error:
        fault = error.detail
    else:
        fault = ""
    return {
        "intact": not fault,
        **({"fault": fault} if fault else {}),
        "head": found[-1].hash.hex() if found else "",
        "entries": [
            {
                "seq": entry.seq,
                "kind": entry.kind,
                "ctx": entry.ctx.hex(),
                "shard": entry.shard,
                "scope": entry.scope,
                "rho_units": entry.rho_units,
                "at": entry.at,
                "note": entry.note,
                "prev": entry.prev.hex(),
                "hash": entry.hash.hex(),
            }
            for entry in found
        ],
    }


def count(connection: sqlite3.Connection) -> int:
    """Number of entries."""
    [number] = connection.execute("SELECT count(*) FROM ledger").fetchone()
    return int(number)


def _append(
    connection: sqlite3.Connection, kind: str, d: Descriptor, shard: int, now: int, note: str
) -> None:
    last = connection.execute("SELECT * FROM ledger ORDER BY seq DESC LIMIT 1").fetchone()
    entry = append(
        _entry(last) if last is not None else None,
        kind=kind,
        ctx=d.ctx,
        shard=shard,
        scope=d.scope,
        rho_units=d.rho_units,
        at=now,
        note=note,
    )
    connection.execute(
        "INSERT INTO ledger (seq, kind, ctx, shard, scope, rho_units, at, note, prev, hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.seq,
            entry.kind,
            entry.ctx,
            entry.shard,
            entry.scope,
            str(entry.rho_units),
            entry.at,
            entry.note,
            entry.prev,
            entry.hash,
        ),
    )


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(
        seq=row["seq"],
        kind=row["kind"],
        ctx=row["ctx"],
        shard=row["shard"],
        scope=row["scope"],
        rho_units=int(row["rho_units"]),
        at=row["at"],
        note=row["note"],
        prev=row["prev"],
        hash=row["hash"],
    )
