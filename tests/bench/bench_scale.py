"""One collector process against two: reports per second, taken in turns under the same load.

``python -m tests.bench.bench_scale``: both deployments run side by side, each with a store of its
own, and only one is loaded at a time. Two processes need two cores; the store and the generator
need some too. What the machine allows at the most, `cores / core time of everybody per report`, is
printed beside what was reached: on two cores the ratio of 1.7 is out of reach for any collector
that leaves its neighbours less than 0.3 of a core.
"""

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dandelion.cli.stack import running
from tests.bench.bed import Bed, Opened, Wrong, settings
from tests.bench.crew import Crew
from tests.bench.record import RESULTS, Figure, Run, paired_ratio
from tests.bench.watch import Watch

_SECONDS = 3_600


@dataclass
class _Contender:
    """A deployment and what it reached: reports per second, and core seconds per report."""

    name: str
    bed: Bed
    opened: Opened
    watch: Watch
    rates: list[float]
    costs: list[float]
    sent: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=20_000, help="in each turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--slots", type=int, default=100, help="an even number")
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--record", action="store_true", help="append to the record")
    arguments = parser.parse_args()
    run = Run.begin("scale")
    found = measure(arguments.reports, arguments.turns, arguments.slots, arguments.connections)
    run.record(
        {"reports": arguments.reports, "turns": arguments.turns, "slots": arguments.slots},
        found,
        to=RESULTS if arguments.record else None,
    )


def measure(reports: int, turns: int, slots: int, connections: int) -> dict[str, Figure]:
    """Rates of one and of two processes, and the ceiling of this machine for two."""
    with ExitStack() as stack:
        crew = stack.enter_context(Crew(1))
        pair = [
            _contender(stack, crew, workers, reports * (turns + 1), slots) for workers in (1, 2)
        ]
        # The first turn finds everything cold and does not count.
        for turn in range(turns + 1):
            for each in pair:
                _turn(each, crew, reports, connections, counts=turn > 0)
    one, two = pair
    cores = len(os.sched_getaffinity(0))
    ceiling = [cores / cost for cost in two.costs]
    return {
        one.name: Figure.of(one.rates, "reports/s"),
        two.name: Figure.of(two.rates, "reports/s", ratio=paired_ratio(two.rates, one.rates)),
        "ceiling of these cores for two": Figure.of(
            ceiling, "reports/s", ratio=paired_ratio(ceiling, one.rates)
        ),
        "two processes, share of the ceiling": Figure.of(
            [rate / most for rate, most in zip(two.rates, ceiling, strict=True)], "x"
        ),
        "core time with one, everybody": Figure.of([1e6 * it for it in one.costs], "us/report"),
        "core time with two, everybody": Figure.of(
            [1e6 * it for it in two.costs], "us/report", ratio=paired_ratio(two.costs, one.costs)
        ),
    }


def _contender(stack: ExitStack, crew: Crew, workers: int, reports: int, slots: int) -> _Contender:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-")))
    started = stack.enter_context(running(settings(folder, workers=workers)))
    bed = Bed(started, folder)
    bed.add_query("scale", slots, 2, max(1_000, reports))
    watch = stack.enter_context(Watch())
    watch.processes(started.processes() | crew.pids)
    name = "one process" if workers == 1 else f"{workers} processes"
    return _Contender(name, bed, bed.open("scale", _SECONDS), watch, [], [])


def _turn(each: _Contender, crew: Crew, reports: int, connections: int, *, counts: bool) -> None:
    crew.make(each.opened.descriptor, reports, seed=1, first=each.sent)
    each.sent += reports
    began = each.watch.sample()
    started = time.monotonic()
    outcomes = crew.send(each.bed.endpoint, connections)
    seconds = time.monotonic() - started
    ended = each.watch.sample()
    if outcomes.taken != reports:
        raise Wrong(f"not every report was taken: {dict(outcomes.counts)}")
    if counts:
        each.rates.append(reports / seconds)
        core = sum(each.watch.core_s(name, began, ended) for name in each.watch.names)
        each.costs.append(core / reports)


if __name__ == "__main__":
    main()
