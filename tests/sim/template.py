"""State directories as a first start leaves them, made once and copied for every seed."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collector import registry, tokens
from collector.database import FILE, connect, transaction
from collector.questions import QueryRequest, make_query
from dandelion.encoding import identity_of
from helper.app import DATABASE
from helper.store import Store
from tests.collector.rig import QUERY
from tests.sim.machine import EPOCH

HELPERS: Final = ("h1", "h2")
# (cohort_min, cohort_max, shard_bits) by the name of a query.
COHORTS: Final = {
    "roomy": (2, 5_000),
    "full": (2, 6),
    "small": (200, 5_000),
}
TOKEN: Final = "dd_0123456789abcdef_" + "5" * 64


@dataclass(frozen=True)
class Template:
    """A folder with a directory per party."""

    folder: Path
    collector: bytes
    helpers: tuple[bytes, ...]
    plans: tuple[bytes, ...]

    def copy_to(self, folder: Path) -> None:
        """Makes the state of a new deployment."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)


def query_name(cohort: str, shard_bits: int) -> str:
    """The query that a profile asks."""
    return f"{cohort}-{shard_bits}"


def make_template(folder: Path) -> Template:
    """Identities, databases, an admin token and the queries. The same in every process."""
    identities = {}
    for name in ("collector", *HELPERS):
        state = folder / name
        state.mkdir(mode=0o700, parents=True)
        seed = hashlib.sha256(f"identity of {name}".encode()).digest()
        (state / "identity").write_bytes(seed)
        (state / "identity").chmod(0o600)
        identities[name] = identity_of(seed)
    for name in HELPERS:
        Store(folder / name / DATABASE, identities[name]).close()
    plans = _fill(folder / "collector")
    helpers = tuple(sorted(identities[name] for name in HELPERS))
    return Template(folder, identities["collector"], helpers, plans)


def _fill(state_dir: Path) -> tuple[bytes, ...]:
    """Makes the collector's database; the plans of its queries."""
    plans = []
    now = int(EPOCH)
    tokens.issue(state_dir, "test", list(tokens.Scope), lifetime_s=90 * 86_400, now=now)
    connection = connect(state_dir / FILE)
    try:
        with transaction(connection):
            connection.execute(
                "UPDATE tokens SET id = ?, hash = ?", (TOKEN.split("_")[1], tokens._hash(TOKEN))
            )
            for cohort, (low, high) in COHORTS.items():
                for bits in (0, 1):
                    fields: dict[str, Any] = QUERY | {
                        "name": query_name(cohort, bits),
                        "cohort_min": low,
                        "cohort_max": high,
                        "shard_bits": bits,
                    }
                    wanted = QueryRequest.model_validate(fields)
                    document = make_query(wanted, len(HELPERS), now)
                    registry.add_query(connection, wanted.name, document, now)
                    plans.append(document["plan_bytes"].encode())
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return tuple(plans)


def rows_of(slot: int) -> dict[str, list[dict[str, Any]]]:
    """The rows of a client that sets its own slot: see tests/collector/rig.py."""
    return {"visit": [{"who": f"c{slot:03}", "load": 2_000}]}
