"""Five thousand slow connections while five hundred good clients work (`make slowloris`).

One collector process over the embedded store, the good clients in this process, the slow ones in
one of their own. Each good client keeps a connection and sends a report a second. Without and with
the slow ones in turns: every report must be taken, and the 99th percentile of the time until the
answer, against that of the turn before, must not double.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter

from tests.bench.load import Outcomes, Sender
from tests.bench.record import RESULTS, Figure, Run, paired_ratio
from tests.edge.slow import raise_file_limit
from tests.edge.stage import HOST, ROOT, Stage, stage

WARM_S = 12.0  # longer than a slow body may take: slow ones of every age


def work(it: Stage, clients: int, seconds: float) -> Outcomes:
    """Good clients, each with a report a second."""
    sender = Sender(HOST, it.port, clients)
    try:
        return sender.run(it.steady(clients, seconds))
    finally:
        sender.close()


def measure(
    slots: int, slow: int, good: int, seconds: float, turns: int
) -> tuple[dict[str, Figure], Counter[str]]:
    """The figures, and what the slow ones heard."""
    calm: list[float] = []
    beset: list[float] = []
    served, sent, heard, counts = 0, 0, Counter[str](), []
    busy: dict[bool, list[float]] = {False: [], True: []}

    def turn(times: list[float], *, slow_ones: bool) -> Outcomes:
        before = it.state()["cpu_s"]
        outcomes = work(it, good, seconds)
        times += outcomes.percentiles(99)
        spent = it.state()["cpu_s"] - before
        busy[slow_ones].append(100 * spent / (outcomes.ended - outcomes.began))
        return outcomes

    with stage(slots) as it:
        wrong = it.head.replace(f"Length: {it.size}".encode(), b"Length: 12345")
        heads = json.dumps([it.head.decode(), wrong.decode()])
        work(it, good, 3)
        for _ in range(turns):
            turn(calm, slow_ones=False)
            crowd = subprocess.Popen(
                [sys.executable, "-m", "tests.edge.slow", str(it.port), str(slow), heads],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            work(it, good, WARM_S)
            counts.append(float(it.state()["connections"]))
            outcomes = turn(beset, slow_ones=True)
            served += outcomes.counts["accepted"]
            sent += int(good * seconds)
            output, _ = crowd.communicate()
            heard.update(json.loads(output))
    figures = {
        "p99 without": Figure.of([1e3 * it for it in calm], "ms"),
        "p99 with slow connections": Figure.of(
            [1e3 * it for it in beset], "ms", ratio=paired_ratio(beset, calm), promise="< 2"
        ),
        "reports taken": Figure.of(100 * served / sent, "%", promise=">= 100"),
        "connections": Figure.of(counts, ""),
        "collector's core without": Figure.of(busy[False], "%"),
        "collector's core with slow connections": Figure.of(busy[True], "%"),
    }
    return figures, heard


def main() -> int:
    """Prints the figures; 1 if something promised does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=1_000)
    parser.add_argument("--slow", type=int, default=5_000)
    parser.add_argument("--good", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="append to the record")
    options = parser.parse_args()
    raise_file_limit()
    run = Run.begin("slowloris")
    names = ("slots", "slow", "good", "seconds", "turns")
    wanted = {name: getattr(options, name) for name in names}
    figures, heard = measure(**wanted)
    result = run.record(wanted, figures, to=RESULTS if options.record else None)
    print(f"  the slow ones: {dict(sorted(heard.items()))}")
    return 0 if all(figure.held is not False for figure in result.figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
