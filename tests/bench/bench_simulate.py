"""How long trying a question out takes: ``python -m tests.bench.bench_simulate``.

``dandelion registry simulate --sample`` in one process: rows are drawn from what a registry
declares, added up column by column, released with exact noise and decoded. The baseline is the
plain way to do the adding up: ``Plan.execute`` on each client's row, in Python, for as many of the
clients as take a second or so; both are microseconds per client of the same rows, in turns.
"""

import argparse
import random
import time
from typing import Final

import numpy as np

from dandelion.privacy.accounting import noise_var_for
from dandelion.queries.columns import Numbers, Rows, sums
from dandelion.queries.decode import decode
from dandelion.queries.plan import Plan
from dandelion.queries.schema import Registry
from dandelion.queries.sql import compile_query
from dandelion.queries.synthetic import drawn_rows, simulated_sums
from dandelion.simulation import released_sums
from tests.bench.record import RESULTS, Figure, Run, paired_ratio

SQL: Final = "SELECT carrier, COUNT(*), AVG(dep_delay), SUM(distance) FROM flight GROUP BY carrier"
HELPERS: Final = 2
# Trying a question out is interactive.
PROMISE: Final = "< 10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1_000_000)
    parser.add_argument("--one-by-one", type=int, default=50_000, help="clients of the baseline")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="append to the record")
    arguments = parser.parse_args()
    run = Run.begin("simulate")
    run.record(
        {"clients": arguments.clients, "slots": plan_of(Registry.example()).slots},
        measure(arguments.clients, arguments.one_by_one, arguments.repeats),
        to=RESULTS if arguments.record else None,
    )


def plan_of(registry: Registry) -> Plan:
    """The plan of the question at epsilon 1."""
    return compile_query(SQL, registry, name="simulate", epsilon="1", delta="1e-8").parsed


def measure(clients: int, one_by_one: int, repeats: int) -> dict[str, Figure]:
    """Seconds of a whole simulation, and microseconds per client of the adding up, both ways.

    Raises:
        AssertionError: the two ways disagree about a sum.
    """
    registry = Registry.example()
    plan = plan_of(registry)
    event = registry.events[plan.event]
    alone, together, whole = [], [], []
    for repeat in range(repeats):
        rows = next(drawn_rows(plan, event, one_by_one, np.random.default_rng(repeat)))
        documents = listed(rows)
        began = time.perf_counter()
        plain = np.zeros(plan.slots, dtype=np.int64)
        for row in documents:
            plain += plan.execute([row], lambda n, k: range(k))
        between = time.perf_counter()
        columnwise = sums(plan, rows, np.random.default_rng(repeat))
        after = time.perf_counter()
        assert plain.tolist() == columnwise.tolist()
        alone.append(1e6 * (between - began) / one_by_one)
        together.append(1e6 * (after - between) / one_by_one)
        began = time.perf_counter()
        simulate(plan, registry, clients, repeat)
        whole.append(time.perf_counter() - began)
    return {
        "one client after the other": Figure.of(alone, "us/client"),
        "column by column": Figure.of(
            together, "us/client", ratio=paired_ratio(together, alone), promise="<= 0.05"
        ),
        "whole simulation": Figure.of(whole, "s", promise=PROMISE),
    }


def simulate(plan: Plan, registry: Registry, clients: int, seed: int) -> None:
    """Everything that the command does after it has read its files, but for the printing."""
    noise_var = noise_var_for(plan.l2sq, 1.0, 1e-8)
    event = registry.events[plan.event]
    exact = simulated_sums(plan, event, clients, np.random.default_rng(seed))
    random_bytes = random.Random(seed).randbytes
    decode(plan, released_sums(exact, noise_var, HELPERS, random_bytes), clients, 2 * noise_var)


def listed(rows: Rows) -> list[dict[str, object]]:
    """The same rows as a client keeps them."""
    columns = {
        name: column.values.astype(np.int64).tolist()
        if isinstance(column, Numbers)
        else [column.words[code] for code in column.codes.tolist()]
        for name, column in rows.columns.items()
    }
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


if __name__ == "__main__":
    main()
