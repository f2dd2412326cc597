"""Accepted, deduplicated, durable reports per second, against a handler that does nothing.

``python -m tests.bench.bench_ingest``: one collector process over the embedded store, synced before
every answer, and one do-nothing aiohttp process on the same event loop (`ingest_server`), loaded in
turns by the same generator with the same bytes. Two ratios come out:

- of the **rates**, which is what was promised. It needs a core for the server and a second one for
  the generator and the store; on two shared cores whatever else runs takes from it.
- of the servers' **core time** per report, which does not depend on who else is there. The store's
  is given beside it.

The reports carry random payloads under random keys: a collector cannot tell them from masked ones.
"""

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dandelion.cli.embedded_store import EmbeddedStore
from dandelion.params import KEY_BYTES, MEDIA_REPORT, MESSAGE_VERSION, REPORT_HEADER_BYTES
from tests.bench.load import Sender, at_once
from tests.bench.record import RESULTS, Figure, Run, paired_ratio
from tests.bench.watch import core_s

_HOST = "127.0.0.1"


@dataclass
class _Server:
    """A process under load, and what it reached in each turn."""

    pid: int
    port: int
    round_id: bytes
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="*", default=[100, 1_000])
    parser.add_argument("--reports", type=int, default=30_000, help="in each turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--record", action="store_true", help="append to the record")
    arguments = parser.parse_args()
    for slots in arguments.slots:
        run = Run.begin("ingest")
        found = measure(slots, arguments.reports, arguments.turns, arguments.connections)
        run.record(
            {
                "slots": slots,
                "reports": arguments.reports,
                "turns": arguments.turns,
                "connections": arguments.connections,
            },
            found,
            to=RESULTS if arguments.record else None,
        )


def measure(slots: int, reports: int, turns: int, connections: int) -> dict[str, Figure]:
    """Rates, core times and latencies of both servers, taken in turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ingest-")))
        store = EmbeddedStore(folder)
        store.start()
        stack.callback(store.stop)
        assert store.pid is not None
        nothing = stack.enter_context(_server("nothing"))
        collector = stack.enter_context(
            _server("collector", "--slots", str(slots), "--redis-url", store.url)
        )
        store_costs = []
        # The first turn finds everything cold and does not count.
        for turn in range(turns + 1):
            bodies = _bodies(collector.round_id, slots, reports)
            for server in (nothing, collector):
                before = core_s(store.pid)
                _load(server, bodies, slots, connections)
                if server is collector:
                    store_costs.append(1e6 * (core_s(store.pid) - before) / reports)
            if turn == 0:
                for kept in (nothing.rates, nothing.costs, nothing.late):
                    kept.clear()
                for kept in (collector.rates, collector.costs, collector.late, store_costs):
                    kept.clear()
    promise = ">= 0.85"
    return {
        "do-nothing handler": Figure.of(nothing.rates, "reports/s"),
        "collector": Figure.of(
            collector.rates,
            "reports/s",
            ratio=paired_ratio(collector.rates, nothing.rates),
            promise=promise,
        ),
        "do-nothing handler, core time": Figure.of(nothing.costs, "us/report"),
        "collector, core time": Figure.of(collector.costs, "us/report"),
        "work per core second against the handler": Figure.of(
            [a / b for a, b in zip(nothing.costs, collector.costs, strict=True)],
            "x",
            promise=promise,
        ),
        "store, core time": Figure.of(store_costs, "us/report"),
        "do-nothing handler, p99": Figure.of(nothing.late, "ms"),
        "collector, p99": Figure.of(collector.late, "ms"),
    }


@contextmanager
def _server(kind: str, *options: str) -> Iterator[_Server]:
    """One of the two servers, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.ingest_server", kind, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = json.loads(process.stdout.readline())
        yield _Server(process.pid, line["port"], bytes.fromhex(line["round"]))
    finally:
        process.stdin.close()
        process.wait(timeout=30)


def _bodies(round_id: bytes, slots: int, count: int) -> bytearray:
    """Reports under fresh keys. Clearing the top bits keeps every key below the field's prime."""
    payload = secrets.token_bytes(4 * slots)
    made = bytearray()
    for _ in range(count):
        key = bytearray(secrets.token_bytes(KEY_BYTES))
        key[-1] &= 0x3F
        made += bytes([MESSAGE_VERSION]) + round_id + key + payload
    return made


def _load(server: _Server, bodies: bytearray, slots: int, connections: int) -> None:
    """One turn."""
    size = REPORT_HEADER_BYTES + 4 * slots
    count = len(bodies) // size
    head = (
        f"POST /v1/rounds/{server.round_id.hex()}/reports HTTP/1.1\r\nHost: {_HOST}\r\n"
        f"Content-Type: {MEDIA_REPORT}\r\nContent-Length: {size}\r\n\r\n"
    ).encode()
    sender = Sender(_HOST, server.port, connections)
    before = core_s(server.pid)
    try:
        outcomes = sender.run(at_once(head, bodies, size, 0))
    finally:
        sender.close()
    if outcomes.counts != {"accepted": count}:
        raise RuntimeError(f"not every report was taken: {dict(outcomes.counts)}")
    server.rates.append(count / (outcomes.ended - outcomes.began))
    server.costs.append(1e6 * (core_s(server.pid) - before) / count)
    server.late.append(1e3 * outcomes.percentiles(99)[0])


if __name__ == "__main__":
    main()
