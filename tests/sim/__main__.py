"""The campaign: `python -m tests.sim SEEDS`, with SEEDS a number, 0:1000, `points` or `spread`.

Prints what was reached and each seed that failed, with the command that replays it. With TRACE=1
in the environment a single seed prints everything that happened in it. The exit code is 1 if an
invariant broke, 2 if something was never reached.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.sim.coverage import missing, table
from tests.sim.points import Point, all_points, run_points, spread
from tests.sim.profile import Profile
from tests.sim.run import run_many
from tests.sim.scenario import Outcome

# With so many seeds everything must have been reached.
ENOUGH = 1_000
PROGRESS_S = 10.0


def main(words: list[str]) -> int:
    """Runs what the words ask for and returns the exit code."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Some sets of bytes are walked; a replay must walk them in the same order.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *words])
    wanted = words[0] if words else "0:1000"
    if wanted.startswith(("points", "spread")):
        return _points(wanted)
    kind, _, numbers = wanted.rpartition("=")
    first, _, end = numbers.partition(":")
    seeds = range(int(first), int(end) if end else int(first) + 1)
    if kind == "digests":
        return _digests(seeds)
    return _seeds(seeds, trace=os.environ.get("TRACE") == "1" and len(seeds) == 1)


def _seeds(seeds: range, *, trace: bool) -> int:
    seen: Counter[str] = Counter()
    failed = 0
    for outcome in _watched(run_many(seeds, trace=trace), len(seeds)):
        seen += outcome.seen
        if trace:
            print("\n".join(outcome.trace))
        if outcome.violations:
            failed += 1
            _show(outcome)
        if trace or (outcome.violations and failed <= 3):
            print(f"  profile\n{Profile.draw(outcome.seed).text()}")
    print(f"reached in {len(seeds)} seeds:\n{table(seen)}")
    print(f"{failed} of {len(seeds)} seeds failed")
    if failed:
        return 1
    if len(seeds) >= ENOUGH and (never := missing(seen)):
        print(f"never reached: {', '.join(never)}")
        return 2
    return 0


def _digests(seeds: range) -> int:
    """What happened in each seed, as a hash, to compare two runs."""
    for outcome in sorted(run_many(seeds), key=lambda it: it.seed):
        print(outcome.seed, outcome.steps, outcome.digest)
    return 0


def _show(outcome: Outcome) -> None:
    print(f"seed {outcome.seed} failed:")
    for violation in outcome.violations[:8]:
        print(f"    {violation}")
    print(f"  replay: make simulate-faults SEEDS={outcome.seed} TRACE=1", flush=True)


def _points(wanted: str) -> int:
    """`points` for all of them, `spread` for some, `points=KIND:HOST:NUMBER` for one."""
    kind, _, one = wanted.partition("=")
    points = [Point.parse(one)] if one else all_points()
    if kind == "spread":
        points = spread(points)
    failed = 0
    outcomes = (outcome for _, outcome in run_points(points))
    for outcome in _watched(outcomes, len(points)):
        if outcome.violations:
            failed += 1
            point = points[outcome.seed]
            print(f"point {point} failed:")
            for violation in outcome.violations[:8]:
                print(f"    {violation}")
            print(f"  replay: make simulate-faults SEEDS=points={point}", flush=True)
    print(f"{failed} of {len(points)} crash points failed")
    return 1 if failed else 0


def _watched(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    """The outcomes, with a line on how it goes every now and then."""
    started = shown = time.monotonic()
    for number, outcome in enumerate(outcomes, start=1):
        yield outcome
        now = time.monotonic()
        if now - shown > PROGRESS_S or number == total:
            rate = number / (now - started)
            print(f"{number} of {total}, {rate:.1f}/s", flush=True)
            shown = now


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
