"""Bearer tokens of the admin interface: `dd_<id>_<secret>`, each with scopes and an end.

Only the SHA-256 of a token is stored. Whoever may read the state directory may make tokens; that is
how the first one comes about.
"""

import hashlib
import hmac
import re
import secrets
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from collector.database import FILE, connect, prepare, transaction

_TOKEN: Final = re.compile(r"dd_([0-9a-f]{16})_[0-9a-f]{64}")
_DAY_S: Final = 86_400
LIFETIME_MAX_S: Final = 366 * _DAY_S


class Scope(StrEnum):
    """What a token may do."""

    QUERY_WRITE = "query:write"
    ROUND_WRITE = "round:write"
    ROUND_CLOSE = "round:close"
    ROUND_READ = "round:read"
    RESULT_READ = "result:read"
    AUDIT_READ = "audit:read"


@dataclass(frozen=True)
class Holder:
    """Who presented a valid token."""

    id: str
    scopes: frozenset[Scope]


def issue(
    state_dir: Path, name: str, scopes: Collection[Scope], *, lifetime_s: int, now: int
) -> str:
    """Makes a token and returns it; nobody can read it again afterwards.

    Args:
        state_dir: the collector's; the database is made if there is none.
        name: what the operator calls it.
        scopes: what it may do.
        lifetime_s: seconds, at most a year.
        now: Unix seconds.

    Raises:
        ValueError: no scope, or a lifetime out of range.
    """
    if not scopes or not 0 < lifetime_s <= LIFETIME_MAX_S:
        raise ValueError("a token needs a scope and a lifetime of at most a year")
    token = f"dd_{secrets.token_hex(8)}_{secrets.token_hex(32)}"
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = connect(state_dir / FILE)
    try:
        prepare(connection)
        with transaction(connection):
            connection.execute(
                "INSERT INTO tokens (id, name, hash, scopes, created, expires)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    token.split("_")[1],
                    name,
                    _hash(token),
                    " ".join(sorted(scopes)),
                    now,
                    now + lifetime_s,
                ),
            )
    finally:
        connection.close()
    return token


def revoke(state_dir: Path, token_id: str) -> bool:
    """Ends a token at once. Says whether there was one."""
    connection = connect(state_dir / FILE)
    try:
        prepare(connection)
        with transaction(connection):
            found = connection.execute("DELETE FROM tokens WHERE id = ?", (token_id,)).rowcount
    finally:
        connection.close()
    return found > 0


def holder_of(connection: sqlite3.Connection, token: str, now: int) -> Holder | None:
    """Who holds the token; None if it is unknown, wrong or expired.

    Within a transaction; notes the day of use, nothing finer.
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    row = connection.execute("SELECT * FROM tokens WHERE id = ?", (match[1],)).fetchone()
    if row is None or not hmac.compare_digest(row["hash"], _hash(token)) or now >= row["expires"]:
        return None
    day = now // _DAY_S
    if row["used_on"] != day:
        connection.execute("UPDATE tokens SET used_on = ? WHERE id = ?", (day, match[1]))
    return Holder(match[1], frozenset(Scope(word) for word in row["scopes"].split()))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()
