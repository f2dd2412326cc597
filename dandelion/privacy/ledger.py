"""The arithmetic and the hash chain of a budget ledger (docs/protocol.md section 16).

Pure: services keep the entries where they like. An entry names (ctx, shard); a scope pays a
    round's rho
once, because shards are disjoint. Nothing is ever removed, a `free` entry undoes a reservation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from dandelion.encoding import digest, u16
from dandelion.errors import WireError
from dandelion.params import HASH_BYTES

RESERVE: Final = "reserve"
CHARGE: Final = "charge"
FREE: Final = "free"
RELEASE: Final = "release"
KINDS: Final = (RESERVE, CHARGE, FREE, RELEASE)

GENESIS: Final = bytes(HASH_BYTES)


@dataclass(frozen=True)
class Entry:
    """One line of a ledger. `at` is Unix seconds, `hash` covers everything else, `prev`
    included.
    """

    seq: int
    kind: str
    ctx: bytes
    shard: int
    scope: str
    rho_units: int
    at: int
    note: str
    prev: bytes
    hash: bytes = b""

    def computed_hash(self) -> bytes:
        """What `hash` must be."""
        texts = [text.encode() for text in (self.kind, self.scope, self.note)]
        return digest(
            "ledger",
            self.prev,
            self.seq.to_bytes(8, "big"),
            self.ctx,
            u16(self.shard),
            self.rho_units.to_bytes(16, "big"),
            self.at.to_bytes(8, "big"),
            *(len(text).to_bytes(4, "big") + text for text in texts),
        )


def append(
    last: Entry | None,
    *,
    kind: str,
    ctx: bytes,
    shard: int,
    scope: str,
    rho_units: int,
    at: int,
    note: str = "",
) -> Entry:
    """The entry that follows `last` (None: the first).

    Raises:
        ValueError: an unknown kind, or a ctx that has not 32 bytes.
    """
    if kind not in KINDS or len(ctx) != HASH_BYTES:
        raise ValueError("not a ledger entry")
    entry = Entry(
        seq=last.seq + 1 if last else 1,
        kind=kind,
        ctx=ctx,
        shard=shard,
        scope=scope,
        rho_units=rho_units,
        at=at,
        note=note,
        prev=last.hash if last else GENESIS,
    )
    return replace(entry, hash=entry.computed_hash())


def verify_chain(entries: Sequence[Entry]) -> None:
    """Checks numbering and hashes from the first entry on.

    Raises:
        WireError: `bad_release`, naming the first entry that does not follow.
    """
    prev = GENESIS
    for number, entry in enumerate(entries, start=1):
        if entry.seq != number or entry.prev != prev or entry.hash != entry.computed_hash():
            raise WireError("bad_release", f"ledger entry {number}")
        prev = entry.hash


def spent(entries: Iterable[Entry], scope: str) -> int:
    """What a scope has reserved or been charged, in rho units: each ctx once, at the most any of
    its shards cost.
    """
    costs: dict[tuple[bytes, int], int] = {}
    for entry in entries:
        if entry.scope != scope:
            continue
        key = (entry.ctx, entry.shard)
        if entry.kind in (RESERVE, CHARGE):
            costs[key] = max(costs.get(key, 0), entry.rho_units)
        elif entry.kind == FREE:
            costs.pop(key, None)
    rounds: dict[bytes, int] = {}
    for (ctx, _), cost in costs.items():
        rounds[ctx] = max(rounds.get(ctx, 0), cost)
    return sum(rounds.values())
