"""`make million`: one round of a million clients, every party a process, exact to the last unit.

Prints where the time went, by stage and party, and the peak of everybody's memory. The generator
makes all reports before it sends the first, so that the two can be told apart; a round's closing
time is announced when it opens, so a pilot first measures how fast this machine is, and what is
left of that time is spent waiting. `CLIENTS=` makes it smaller, `SLOTS=` longer.
"""

import argparse
import itertools
import math
import os
import pstats
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from dandelion.cli.stack import running
from tests.bench.bed import SEAL_GRACE_S, Bed, Opened, Wrong, require_exact, settings
from tests.bench.crew import Crew
from tests.bench.load import Outcomes, truth
from tests.bench.record import RESULTS, Figure, Run
from tests.bench.watch import Stage, Watch

_PILOT: Final = 4_000
# The machine may be this much slower than the pilot before late reports are turned away.
_MARGIN: Final = 1.25
_QUERY: Final = "million"
_GENERATOR: Final = "generator"
_PROFILED: Final = Path(__file__).with_name("profiled")
MAKE, INGEST, WAIT, SEAL, ASK, RELEASE, VERIFY = (
    "make reports",
    "ingest",
    "wait for closing time",
    "seal",
    "ask and unmask",
    "release",
    "verify",
)


@dataclass(frozen=True)
class Options:
    """What may be varied."""

    clients: int = 1_000_000
    slots: int = 100
    seed: int = 1
    workers: int = 1
    generators: int = 2
    connections: int = 128
    redis_url: str | None = None
    spare_s: int = 4

    @property
    def cohort_min(self) -> int:
        """Half the clients, so that the pilot's round stays below it."""
        return max(2, self.clients // 2)


@dataclass(frozen=True)
class Ran:
    """What a run measured."""

    stages: list[Stage]
    peaks_mb: dict[str, float]
    outcomes: Outcomes
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=Options.clients)
    parser.add_argument("--slots", type=int, default=Options.slots, help="an even number")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--workers", type=int, default=Options.workers, help="of the collector")
    parser.add_argument("--generators", type=int, default=Options.generators)
    parser.add_argument("--connections", type=int, default=Options.connections)
    parser.add_argument("--redis-url", help="instead of the embedded store")
    parser.add_argument("--record", action="store_true", help="append to the record")
    parser.add_argument("--profile", type=Path, help="folder for profiles of the collector")
    arguments = vars(parser.parse_args())
    to = RESULTS if arguments.pop("record") else None
    if profile := arguments.pop("profile"):
        profile.mkdir(parents=True, exist_ok=True)
        # Processes that are started inherit it; see profiled/sitecustomize.py.
        os.environ |= {"BENCH_PROFILE": str(profile), "PYTHONPATH": str(_PROFILED)}
    options = Options(**arguments)
    run = Run.begin("million")
    folder = Path(tempfile.mkdtemp(prefix="million-"))
    try:
        ran = measure(options, folder)
    except Wrong as wrong:
        sys.exit(f"NOT EXACT: {wrong}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(ran)
    for file in sorted(profile.glob("*.prof")) if profile else ():
        pstats.Stats(str(file)).sort_stats("tottime").print_stats(25)
    result = run.record(
        {"clients": options.clients, "slots": options.slots, "workers": options.workers},
        figures(options, ran),
        to=to,
    )
    sys.exit(any(figure.held is False for figure in result.figures.values()))


def measure(options: Options, folder: Path) -> Ran:
    """One run.

    Raises:
        Wrong: the released sum is not that of the acknowledged reports.
    """
    began = time.monotonic()
    with (
        Crew(options.generators) as crew,
        running(settings(folder, workers=options.workers, redis_url=options.redis_url)) as stack,
        Watch() as watch,
    ):
        bed = Bed(stack, folder)
        bed.add_query(_QUERY, options.slots, options.cohort_min, max(1_000, options.clients))
        make_rate, send_rate = _pilot(options, bed, crew)
        needed = options.clients * (1 / make_rate + 1 / send_rate)
        duration = options.spare_s + math.ceil(_MARGIN * needed)
        watch.processes(stack.processes() | crew.pids)
        opened = bed.open(_QUERY, duration)
        _say(
            f"{options.clients:,} clients, {options.slots} slots; pilot: {make_rate:,.0f} made and"
            f" {send_rate:,.0f} taken per second; the round is open for {duration} s"
        )
        outcomes = _contribute(options, bed, crew, watch, opened)
        checked, released = _finish(bed, watch, opened, outcomes)
        watch.sample()
        _say(
            f"exact: {checked:,} reports, each once; {released:,} bytes of release, verified;"
            " the helpers' noise, known from their roots, is taken away"
        )
        parties = [*stack.processes(), *crew.pids]
        peaks = {name: watch.peak_mb(name) for name in parties}
        return Ran(watch.stages(), peaks, outcomes, time.monotonic() - began)


def _pilot(options: Options, bed: Bed, crew: Crew) -> tuple[float, float]:
    """Reports made and taken per second; its round stays below cohort_min and is abandoned."""
    few = min(_PILOT, options.cohort_min - 1)
    opened = bed.open(_QUERY, 30)
    rates = (1e3, 1e3)
    # The first part finds everything cold.
    for first, count in ((0, few // 4), (few // 4, few - few // 4)):
        if count == 0:
            continue
        began = time.monotonic()
        crew.make(opened.descriptor, count, options.seed, first=first)
        made = time.monotonic()
        outcomes = crew.send(bed.endpoint, options.connections)
        if outcomes.taken != count:
            raise Wrong(f"the pilot's reports were not all taken: {dict(outcomes.counts)}")
        rates = (count / (made - began), count / (time.monotonic() - made))
    bed.api.admin("POST", f"/admin/v1/rounds/{opened.id}/close")
    return rates


def _contribute(options: Options, bed: Bed, crew: Crew, watch: Watch, opened: Opened) -> Outcomes:
    watch.mark(MAKE)
    crew.make(opened.descriptor, options.clients, options.seed)
    watch.mark(INGEST)
    outcomes = crew.send(bed.endpoint, options.connections)
    watch.mark(WAIT)
    if outcomes.taken != options.clients:
        raise Wrong(f"not every report was taken: {dict(outcomes.counts)}")
    return outcomes


def _finish(bed: Bed, watch: Watch, opened: Opened, outcomes: Outcomes) -> tuple[int, int]:
    """From the last report to a release that is checked. Returns its n and its bytes."""
    d = opened.descriptor
    time.sleep(max(0.0, d.closes + SEAL_GRACE_S - time.time()))
    watch.mark(SEAL)
    bed.until(opened.id, "sealed", "released")
    watch.mark(ASK)
    bed.until_answered()
    watch.mark(RELEASE)
    bed.until(opened.id, "released")
    watch.mark(VERIFY)
    release = bed.release(opened.id)
    checked = bed.check(opened, release)
    require_exact(checked, truth(d, np.arange(outcomes.taken)), outcomes.taken)
    watch.mark("end")
    return checked.verified.n, len(release)


def figures(options: Options, ran: Ran) -> dict[str, Figure]:
    """What is recorded; the promises are those for a million clients."""
    wall = {stage.name: stage.wall_s for stage in ran.stages}
    core: dict[str, float] = {}
    for stage in ran.stages:
        for party, seconds in stage.core_s.items():
            name = _GENERATOR if party.startswith(_GENERATOR) else party
            core[name] = core.get(name, 0.0) + seconds
    p50, p99 = ran.outcomes.percentiles(50, 99)
    found = {
        "whole command": Figure.of(ran.seconds, "s", promise="<= 600"),
        "collector, peak memory": Figure.of(ran.peaks_mb["collector"], "MB", promise="< 500"),
    }
    if "store" in ran.peaks_mb:
        found["store, peak memory"] = Figure.of(ran.peaks_mb["store"], "MB", promise="< 400")
    found |= {
        f"{name}, peak memory": Figure.of(ran.peaks_mb[name], "MB")
        for name in sorted(ran.peaks_mb)
        if name.startswith("helper")
    }
    found["taken"] = Figure.of(options.clients / wall[INGEST], "reports/s")
    found["answer, median"] = Figure.of(1e3 * p50, "ms")
    found["answer, p99"] = Figure.of(1e3 * p99, "ms")
    found |= {f"wall: {name}": Figure.of(seconds, "s") for name, seconds in wall.items()}
    found |= {
        f"core time of {name}": Figure.of(1e6 * seconds / options.clients, "us/report")
        for name, seconds in core.items()
    }
    return found


def show(ran: Ran) -> None:
    """The split by stage and party."""
    parties = [name for name in ran.peaks_mb if not name.startswith(_GENERATOR)]
    print("".join(["stage".ljust(24), "wall s".rjust(9), *(_column(it) for it in parties)]), end="")
    print(_column(_GENERATOR), "  core seconds by party")
    total = dict.fromkeys([*parties, _GENERATOR], 0.0)
    for stage in ran.stages:
        cells = {name: stage.core_s.get(name, 0.0) for name in parties}
        cells[_GENERATOR] = sum(
            seconds for name, seconds in stage.core_s.items() if name.startswith(_GENERATOR)
        )
        for name, seconds in cells.items():
            total[name] += seconds
        _row(stage.name, stage.wall_s, list(cells.values()))
    _row("all", sum(stage.wall_s for stage in ran.stages), list(total.values()))
    peaks = ", ".join(f"{name} {mb:,.0f}" for name, mb in ran.peaks_mb.items())
    print(f"peak memory in MB: {peaks}")
    outcomes = ran.outcomes
    counted = itertools.chain(outcomes.counts.items(), outcomes.again.items())
    print("answers: " + ", ".join(f"{name} {count:,}" for name, count in counted))


def _column(name: str) -> str:
    return name.rjust(max(11, len(name) + 2))


def _row(name: str, wall_s: float, cells: list[float]) -> None:
    print(name.ljust(24) + f"{wall_s:9.1f}" + "".join(f"{cell:11.1f}" for cell in cells))


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
