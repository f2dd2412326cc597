"""Four times what a collector can take: how much of its capacity is left (`make overload`).

One collector process over the embedded store. Its capacity is what it takes from connections that
always have a next report. Then reports come at four times that rate, each once: who is told to come
again does not, so the load is the same all the time. At last they come at half the capacity; the
time until the first second in which nobody is turned away is the recovery.

The generator runs on the same cores: it takes from the overloaded more than from the capacity.
"""

import argparse
import resource
import sys
import threading
import time
from array import array
from collections import Counter

from tests.bench.load import Sender
from tests.bench.record import RESULTS, Figure, Run
from tests.edge.stage import HOST, Stage, stage

CAPACITY_CONNECTIONS = 128
FACTOR = 4


class Once(Sender):
    """Sends every report once, whatever it is told, and notes when what was said."""

    def __init__(self, port: int, connections: int) -> None:
        super().__init__(HOST, port, connections, answer_timeout_s=120)
        self.taken: array[float] = array("d")
        self.turned_away: array[float] = array("d")
        self.waits: Counter[int] = Counter()

    def _answered(self, connection, status, head, body):  # type: ignore[no-untyped-def] # as above
        super()._answered(connection, status, head, body)
        now = time.monotonic()
        if status == 201:
            self.taken.append(now)
        elif status == 503:
            self.turned_away.append(now)
            self.waits[int(head.partition(b"Retry-After: ")[2].split(b"\r\n")[0])] += 1
        self._later.clear()

    def _broken(self, connection, reason):  # type: ignore[no-untyped-def] # as above
        super()._broken(connection, reason)
        self._later.clear()


def between(times: "array[float]", start: float, end: float) -> int:
    """How many of the moments lie in the interval."""
    return sum(start <= time < end for time in times)


def capacity(it: Stage, seconds: float) -> float:
    """Reports per second that are taken from a few connections without a pause."""
    sender, load = Once(it.port, CAPACITY_CONNECTIONS), it.steady(100_000, 10_000)
    began = time.monotonic()
    outcomes = sender.run(lambda now: None if now > began + seconds else load(now))
    sender.close()
    return outcomes.taken / (time.monotonic() - began)


class Memory(threading.Thread):
    """Resident memory of the collector, every second."""

    def __init__(self, it: Stage) -> None:
        super().__init__(daemon=True)
        self.bytes: list[int] = []
        self._stage = it
        self._end = threading.Event()

    def run(self) -> None:
        """Until `end`."""
        while not self._end.wait(1.0):
            self.bytes.append(self._stage.state()["rss_bytes"])

    def end(self) -> None:
        """No more samples."""
        self._end.set()
        self.join()


def measure(slots: int, connections: int, seconds: float) -> tuple[dict[str, Figure], bool]:
    """The figures, and whether 503s came with more than one `Retry-After`."""
    with stage(slots) as it:
        capacity(it, 3)
        before = capacity(it, seconds / 4)
        sender, memory = Once(it.port, connections), Memory(it)
        memory.start()
        began = time.monotonic()
        load = it.steady(FACTOR * before, seconds)
        # The end is a moment, not the last of the reports: those that are late are not sent.
        outcomes = sender.run(lambda now: None if now > began + seconds else load(now))
        goodput = between(sender.taken, began + seconds / 10, began + seconds) / (0.9 * seconds)
        offered = len(sender.taken) + len(sender.turned_away)
        sender.close()
        memory.end()
        calm = Once(it.port, connections)
        ended = time.monotonic()
        calm.run(it.steady(before / 2, 15))
        recovery = next(
            (s for s in range(15) if not between(calm.turned_away, ended + s, ended + s + 1)), 15
        )
        calm.close()
        after = capacity(it, seconds / 4)
        third = len(memory.bytes) // 3
        grown = max(memory.bytes[-third:]) / max(memory.bytes[third : 2 * third])
        figures = {
            "capacity": Figure.of([before, after], "reports/s"),
            "taken under overload": Figure.of(
                goodput, "reports/s", ratio=goodput / ((before + after) / 2), promise=">= 0.8"
            ),
            "answered under overload": Figure.of(offered / seconds, "reports/s"),
            "turned away": Figure.of(len(sender.turned_away) / seconds, "reports/s"),
            "broken connections": Figure.of(
                float(sum(n for why, n in outcomes.again.items() if " " in why)), ""
            ),
            "memory, last third against the second": Figure.of(grown, "x", promise="<= 1.05"),
            "memory": Figure.of([size / 1e6 for size in memory.bytes], "MB"),
            "recovery": Figure.of(float(recovery), "s", promise="< 10"),
        }
        return figures, len(sender.waits) > 1


def main() -> int:
    """Prints the figures; 1 if something promised does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--connections", type=int, default=6_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--record", action="store_true", help="append to the record")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    run = Run.begin("overload")
    figures, jittered = measure(options.slots, options.connections, options.seconds)
    parameters = {"slots": options.slots, "connections": options.connections}
    parameters |= {"seconds": options.seconds}
    result = run.record(parameters, figures, to=RESULTS if options.record else None)
    print(f"  Retry-After differs from one refusal to the next: {'yes' if jittered else 'NO'}")
    return 0 if jittered and all(it.held is not False for it in result.figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
