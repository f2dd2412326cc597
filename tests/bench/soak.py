"""`make soak MINUTES=10`: a steady 2,900 reports per second while rounds open, seal and release.

Every few seconds two rounds open, their reports mixed; those before are closed, sealed, unmasked
and released meanwhile, and older ones are purged from the store. Everything shares the machine:
collector, store, helpers, and the generator, which masks for every client. It ends with a verdict
for each promise; the exit code says whether all hold.

"Flat" compares thirds: the time after the warm-up is cut in three, and the last third's median may
exceed the first's by a twentieth and a little. The slope is printed beside it.
"""

import argparse
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from dandelion.cli.stack import running
from tests.bench.bed import ENDED, Bed, Opened, Wrong, require_exact, settings
from tests.bench.feed import Fed, Feed
from tests.bench.load import truth
from tests.bench.record import RESULTS, Figure, Run
from tests.bench.watch import Watch, slope_per_hour

QUERIES: Final = ("left", "right")
# How long after `closes` a round is purged: long enough to be released, short enough to be seen.
_ANSWER_S: Final = 30
_TICK_S: Final = 0.25
_LAG: Final = re.compile(r'dandelion_event_loop_lag_seconds\{process="0"\} (\S+)')
_MB: Final = 1e6


@dataclass(frozen=True)
class Options:
    """What may be varied.

    Attributes:
        period_s: how often a pair of rounds opens.
        spare_s: for how much longer than that a round takes reports: what making and sending them
            may lag behind.
    """

    minutes: float = 10.0
    rate: float = 2_900.0
    slots: int = 100
    period_s: float = 10.0
    connections: int = 128
    seed: int = 1
    redis_url: str | None = None
    spare_s: int = 8

    @property
    def pairs(self) -> int:
        """How many pairs of rounds are opened."""
        return max(1, round(60 * self.minutes / self.period_s))

    @property
    def reports(self) -> int:
        """Reports of one round."""
        return int(self.rate * self.period_s / 2)


@dataclass
class _Round:
    opened: Opened
    first: int
    count: int
    release: bytes | None = None


@dataclass
class Soaked:
    """What was seen. Moments are of the steady clock."""

    began: float
    ended: float
    fed: Fed
    rounds: int
    lags_s: list[float]
    faults: list[str]
    watch: Watch = field(repr=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=Options.minutes)
    parser.add_argument("--rate", type=float, default=Options.rate, help="reports per second")
    parser.add_argument("--slots", type=int, default=Options.slots, help="an even number")
    parser.add_argument("--period-s", type=float, default=Options.period_s)
    parser.add_argument("--connections", type=int, default=Options.connections)
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--redis-url", help="instead of the embedded store")
    parser.add_argument("--record", action="store_true", help="append to the record")
    arguments = vars(parser.parse_args())
    to = RESULTS if arguments.pop("record") else None
    options = Options(**arguments)
    run = Run.begin("soak")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        soaked = soak(options, folder)
    except Wrong as wrong:
        sys.exit(f"FAILED: {wrong}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    outcomes = soaked.fed.outcomes
    counted = (outcomes.counts | outcomes.again).items()
    print("answers: " + ", ".join(f"{name} {count:,}" for name, count in counted))
    for name in sorted(soaked.watch.names):
        at, rss = _settled(soaked, name, "rss")
        slope = slope_per_hour(at, rss) / _MB
        core = soaked.watch.core_s(name, soaked.began, soaked.ended)
        share = 100 * core / (soaked.ended - soaked.began)
        print(
            f"{name:<17} {share:5.1f} % of a core, {statistics.median(rss) / _MB:6.0f} MB"
            f" ({slope:+,.1f} MB per hour)"
        )
    result = run.record(
        {"minutes": options.minutes, "rate": options.rate, "slots": options.slots},
        figures(options, soaked),
        to=to,
    )
    sys.exit(any(figure.held is False for figure in result.figures.values()))


def soak(options: Options, folder: Path) -> Soaked:
    """One run.

    Raises:
        Wrong: a round is not exact or does not end `released`.
    """
    with running(settings(folder, redis_url=options.redis_url)) as stack, Watch() as watch:
        bed = Bed(stack, folder)
        for name in QUERIES:
            bed.add_query(name, options.slots, 2, max(1_000, options.reports))
        with Feed(bed.endpoint, options.rate, options.connections, options.seed) as feed:
            watch.processes(stack.processes() | feed.pids)
            if options.redis_url is None:
                watch.folder("store", folder / "store")
            rounds: list[_Round] = []
            lags: list[float] = []
            began = time.monotonic()
            _run(options, bed, feed, rounds, lags)
            fed = feed.finish(timeout_s=60 + options.period_s)
            ended = time.monotonic()
            _until_released(bed, rounds)
        for each in rounds:
            _check(bed, each, fed)
        return Soaked(began, ended, fed, len(rounds), lags, _faults(folder), watch)


def _run(options: Options, bed: Bed, feed: Feed, rounds: list[_Round], lags: list[float]) -> None:
    """Opens pairs of rounds on time and gives orders for them; meanwhile collects releases."""
    began, client, looked = time.monotonic(), 0, 0.0
    for pair in range(options.pairs):
        due = began + pair * options.period_s
        while (now := time.monotonic()) < due:
            if now - looked >= 1:
                looked = now
                lags.append(_lag(bed))
                _collect(bed, rounds)
            time.sleep(min(_TICK_S, max(0.0, due - time.monotonic())))
        for query in QUERIES:
            duration = int(options.period_s + options.spare_s)
            opened = bed.open(query, duration, _ANSWER_S)
            rounds.append(_Round(opened, client, options.reports))
            feed.order(opened.descriptor, client, options.reports)
            client += options.reports


def _collect(bed: Bed, rounds: list[_Round]) -> None:
    """Fetches the releases that have come out since the last time."""
    for each in rounds:
        if each.release is not None or time.time() < each.opened.descriptor.closes:
            continue
        shown = bed.round(each.opened.id)
        if shown["phase"] == "released":
            each.release = bed.release(each.opened.id)
        elif shown["phase"] in ENDED:
            raise Wrong(f"round {each.opened.id} ended {shown['phase']}: {shown['reason']}")


def _until_released(bed: Bed, rounds: list[_Round]) -> None:
    for each in rounds:
        if each.release is None:
            bed.until(each.opened.id, "released")
    _collect(bed, rounds)


def _check(bed: Bed, each: _Round, fed: Fed) -> None:
    """The round holds what was acknowledged, each once."""
    if each.release is None:
        raise Wrong(f"round {each.opened.id} has no release")
    clients = np.arange(each.first, each.first + each.count)
    refused = np.array(fed.outcomes.refused, dtype=np.int64)
    taken = np.setdiff1d(clients, refused, assume_unique=True)
    checked = bed.check(each.opened, each.release)
    require_exact(checked, truth(each.opened.descriptor, taken), taken.size)


def figures(options: Options, soaked: Soaked) -> dict[str, Figure]:
    """What is recorded and promised."""
    outcomes, seconds = soaked.fed.outcomes, soaked.fed.outcomes.ended - soaked.fed.outcomes.began
    p50, p99, worst = outcomes.percentiles(50, 99, 100)
    found = {
        "rounds, every one exact": Figure.of(soaked.rounds, "rounds"),
        "taken": Figure.of(
            outcomes.taken / seconds, "reports/s", promise=f">= {0.98 * options.rate:.0f}"
        ),
        "refused": Figure.of(len(outcomes.refused), "reports", promise="<= 0"),
        "answer, median": Figure.of(1e3 * p50, "ms"),
        "answer, p99": Figure.of(1e3 * p99, "ms", promise="< 250"),
        "answer, longest": Figure.of(1e3 * worst, "ms"),
        "event loop, p99 of how late": Figure.of(
            1e3 * float(np.percentile(soaked.lags_s or [0.0], 99)), "ms", promise="< 250"
        ),
        "generator without work": Figure.of(
            100 * soaked.fed.starved_s / seconds, "% of the time", promise="<= 2"
        ),
        "faults in the logs": Figure.of(len(soaked.faults), "lines", promise="<= 0"),
    }
    for name in sorted(soaked.watch.names):
        if name.startswith("generator"):
            continue
        rss = _growth(_settled(soaked, name, "rss")[1], 4 * _MB)
        fds = _growth(_settled(soaked, name, "fds")[1], 4)
        found[f"{name}, memory: last third to first"] = Figure.of(rss, "x", promise="<= 1.05")
        found[f"{name}, open files: last third to first"] = Figure.of(fds, "x", promise="<= 1.05")
    if "store" in soaked.watch.folders:
        at, sizes = soaked.watch.sizes("store")
        sizes = [size for when, size in zip(at, sizes, strict=True) if when <= soaked.ended]
        found["store, largest its files were"] = Figure.of(max(sizes) / _MB, "MB")
        half = len(sizes) // 2
        found["store, files: second half to first"] = Figure.of(
            max(sizes[half:]) / max(sizes[:half] or [1]), "x", promise="<= 1.5"
        )
    return found


def _settled(soaked: Soaked, name: str, what: str) -> tuple[list[float], list[float]]:
    """Samples after the warm-up, which is a quarter of the time and at most two minutes."""
    start = soaked.began + min(120.0, (soaked.ended - soaked.began) / 4)
    at, values = soaked.watch.series(name, what)
    kept = [(t, v) for t, v in zip(at, values, strict=True) if start <= t <= soaked.ended]
    return [t for t, _ in kept], [v for _, v in kept]


def _growth(values: list[float], allowance: float) -> float:
    """The last third's median, less an allowance, as a multiple of the first third's."""
    third = max(1, len(values) // 3)
    first, last = statistics.median(values[:third]), statistics.median(values[-third:])
    return max(first, last - allowance) / first if last > first else last / first


def _lag(bed: Bed) -> float:
    with urllib.request.urlopen(f"{bed.admin_address}/metrics", timeout=10) as response:
        found = _LAG.search(response.read().decode())
    return float(found[1]) if found else 0.0


def _faults(folder: Path) -> list[str]:
    """Lines of the parties' logs that tell of a fault of ours."""
    found = []
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text().splitlines():
            try:
                document = json.loads(line)
            except ValueError:
                found.append(line)
                continue
            if document.get("level") in ("warning", "error", "critical"):
                found.append(line)
    for line in found[:10]:
        print(line, file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
