"""Random cases, and what the Python implementation makes of them, for the tests in TypeScript.

    python random_cases.py KIND SEED COUNT > cases.ndjson

One case a line. KIND is `plans` (plans and rows, docs/protocol.md 15), `bytes` (plan bytes with
faults, 3.3), `descriptors` (3.2), `admissions` (14, steps 1 and 2), `accounting` (16) or `tables`
(15.4). The same seed writes the same cases.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from random_plans import plan_bytes, plans, tables
from random_rounds import accounts, admissions, descriptors

Case = dict[str, Any]

KINDS: Final[Mapping[str, Callable[[random.Random], Case]]] = {
    "plans": plans,
    "bytes": plan_bytes,
    "descriptors": descriptors,
    "admissions": admissions,
    "accounting": accounts,
    "tables": tables,
}


def cases(kind: str, seed: int, count: int) -> Iterator[Case]:
    """`count` cases of a kind."""
    rng = random.Random(f"{kind} {seed}")  # noqa: S311 (no secrets here)
    for _ in range(count):
        yield KINDS[kind](rng)


def main() -> None:
    """Entry point."""
    kind, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for case in cases(kind, seed, count):
        sys.stdout.write(json.dumps(case) + "\n")


if __name__ == "__main__":
    main()
