"""`make plots`: cost against the number of clients and of slots, measured, drawn, slopes stated.

For each point a deployment of its own takes real reports over HTTP, and one helper's mask sum over
as many keys is timed. Core time counts, not wall time. The data goes to ``cost.ndjson``, the plots
to ``docs/``, the slopes into docs/performance.md; ``--draw`` only draws what was measured before.
Vectors travel in words of 32 bits throughout.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from collector.redis_store import connect
from dandelion import kernel
from dandelion.cli.stack import running
from dandelion.params import KEY_BYTES
from tests.bench.bed import Bed, Wrong, settings
from tests.bench.crew import Crew
from tests.bench.record import ROOT, Run
from tests.bench.svg import Panel, Point, Series, draw, slope
from tests.bench.table import PAGE, between
from tests.bench.watch import Watch, bytes_in

DATA: Final = Path(__file__).with_name("cost.ndjson")
DOCS: Final = ROOT / "docs"
CLIENTS: Final = (1_000, 10_000, 100_000, 1_000_000)
SLOTS: Final = (64, 256, 1_024, 4_096, 16_384)
# The slots of the first row of points, and the clients of the second.
SLOTS_FIXED: Final = 100
CLIENTS_FIXED: Final = 20_000
BEGIN: Final = "<!-- cost.ndjson: python -m tests.bench.plots --draw writes what follows -->"
END: Final = "<!-- end of cost.ndjson -->"
_PART_BYTES: Final = 200_000_000
_WARM_UP: Final = 500
_ROUND_S: Final = 7_200


@dataclass(frozen=True)
class Cost:
    """What a round of so many clients and slots took: bytes, and core seconds.

    `store_memory` and `store_file` are what the store's memory and files grew by, the report keys
    and the running sum included. `helper_core_s` is one helper's mask sum.
    """

    clients: int
    slots: int
    upload_bytes: int
    helper_core_s: float
    collector_core_s: float
    store_core_s: float
    store_memory: int
    store_file: int
    commit: str
    date: str
    machine: str
    load: float


Y = Callable[[Cost], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--clients-max", type=int, default=max(CLIENTS))
    parser.add_argument("--slots-max", type=int, default=max(SLOTS))
    parser.add_argument("--into", type=Path, help="folder for data and plots instead of the docs")
    arguments = parser.parse_args()
    data = arguments.into / DATA.name if arguments.into else DATA
    if not arguments.draw:
        wanted = [(n, SLOTS_FIXED) for n in CLIENTS if n <= arguments.clients_max]
        fixed = min(CLIENTS_FIXED, arguments.clients_max)
        wanted += [(fixed, d) for d in SLOTS if d <= arguments.slots_max]
        costs = [measure(clients, slots) for clients, slots in wanted]
        data.write_text("".join(json.dumps(asdict(cost)) + "\n" for cost in costs), "utf-8")
    costs = read(data)
    for name, text in plots(costs).items():
        ((arguments.into or DOCS) / name).write_text(text, "utf-8")
    if not arguments.into:
        PAGE.write_text(between(PAGE.read_text("utf-8"), BEGIN, END, words(costs)), "utf-8")


def measure(clients: int, slots: int) -> Cost:
    """One point, in a deployment of its own; says what it found."""
    run = Run.begin("cost")
    with (
        tempfile.TemporaryDirectory(prefix="cost-") as name,
        Crew(1) as crew,
        running(settings(Path(name))) as stack,
        Watch() as watch,
    ):
        folder = Path(name)
        bed = Bed(stack, folder)
        bed.add_histogram("cost", slots, max(1_000, clients))
        cold = bed.open("cost", _ROUND_S)
        crew.make(cold.descriptor, _WARM_UP, seed=1)
        crew.send(bed.endpoint, 64)
        opened = bed.open("cost", _ROUND_S)
        watch.processes(stack.processes())
        store = folder / "store"
        url = f"unix://{store.resolve() / 'store.sock'}"
        memory, file = asyncio.run(_used_memory(url)), bytes_in(store)
        collector = storage = 0.0
        # In parts, so that the generator need not hold all of a large round.
        part = max(1, _PART_BYTES // opened.descriptor.report_bytes)
        for first in range(0, clients, part):
            count = min(part, clients - first)
            crew.make(opened.descriptor, count, seed=1, first=first)
            began = watch.sample()
            outcomes = crew.send(bed.endpoint, 64)
            ended = watch.sample()
            if outcomes.taken != count:
                raise Wrong(f"not every report was taken: {dict(outcomes.counts)}")
            collector += watch.core_s("collector", began, ended)
            storage += watch.core_s("store", began, ended)
        cost = Cost(
            clients,
            slots,
            opened.descriptor.report_bytes,
            helper_core_s(clients, slots),
            round(collector, 2),
            round(storage, 2),
            asyncio.run(_used_memory(url)) - memory,
            bytes_in(store) - file,
            run.commit,
            run.date,
            run.machine,
            run.load or 0.0,
        )
    print(json.dumps(asdict(cost)), flush=True)
    return cost


def helper_core_s(clients: int, slots: int) -> float:
    """Core seconds of one helper's mask sum over so many keys, on one thread."""
    keys = bytearray(os.urandom(clients * KEY_BYTES))
    # Any 255 bits are a point; the top bit of a key is clear.
    keys[KEY_BYTES - 1 :: KEY_BYTES] = bytes(it & 0x7F for it in keys[KEY_BYTES - 1 :: KEY_BYTES])
    began = time.process_time()
    kernel.mask_sum(
        kernel.SUITE_X25519_CHACHA20, 32, slots, bytes(32), 1, os.urandom(32), bytes(keys), 1
    )
    return round(time.process_time() - began, 4)


async def _used_memory(url: str) -> int:
    client = connect(url)
    try:
        return int((await client.info("memory"))["used_memory"])
    finally:
        await client.aclose()


def read(path: Path = DATA) -> list[Cost]:
    """What was measured."""
    return [Cost(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


_CORE: Final[dict[str, Y]] = {
    "helper": lambda cost: cost.helper_core_s,
    "collector": lambda cost: cost.collector_core_s,
    "store": lambda cost: cost.store_core_s,
}
_BYTES: Final[dict[str, Y]] = {
    "uploads": lambda cost: cost.clients * cost.upload_bytes,
    "store, file": lambda cost: cost.store_file,
    "store, memory": lambda cost: cost.store_memory,
}


def by_clients(costs: Sequence[Cost]) -> list[Cost]:
    """The points that differ in clients."""
    return sorted((c for c in costs if c.slots == SLOTS_FIXED), key=lambda cost: cost.clients)


def by_slots(costs: Sequence[Cost]) -> list[Cost]:
    """The points that differ in slots."""
    return sorted((c for c in costs if c.slots != SLOTS_FIXED), key=lambda cost: cost.slots)


def plots(costs: Sequence[Cost]) -> dict[str, str]:
    """The documents by file name."""
    clients, slots = by_clients(costs), by_slots(costs)
    per_report = {name: _per_report(y, 1e6) for name, y in _CORE.items()}
    bytes_per_report = {name: _per_report(y, 1) for name, y in _BYTES.items()}
    return {
        "cost-clients.svg": draw(
            "Cost of a round against its clients",
            f"Core seconds and bytes of rounds of {SLOTS_FIXED} slots; both grow in proportion.",
            [
                _panel("Core time of a round", "clients", "core seconds", _CORE, clients),
                _panel("Bytes of a round", "clients", "bytes", _BYTES, clients),
            ],
        ),
        "cost-slots.svg": draw(
            "Cost of a report against the slots of its vector",
            "Core time and bytes per report: a fixed part, and one that grows with the vector.",
            [
                _panel("Core time of a report", "slots", "core microseconds", per_report, slots),
                _panel("Bytes of a report", "slots", "bytes", bytes_per_report, slots),
            ],
        ),
    }


def words(costs: Sequence[Cost]) -> str:
    """The slopes, as a Markdown table with what they were measured on."""
    clients, slots = by_clients(costs), by_slots(costs)
    first = costs[0]
    lines = [
        f"{first.date}, commit {first.commit}, {first.machine}. Slope 1 is proportional, 0 is"
        " constant.",
        "",
        f"| | slope over clients, {clients[0].clients:,} to {clients[-1].clients:,}"
        f" | slope over slots, {slots[0].slots:,} to {slots[-1].slots:,}"
        f" | per report at {SLOTS_FIXED} slots | at {slots[-1].slots:,} slots |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kinds, scale, unit in ((_CORE, 1e6, "µs"), (_BYTES, 1, "B")):
        for name, y in kinds.items():
            each = _per_report(y, scale)
            lines.append(
                f"| {name} | {slope(_points(y, clients, 'clients')):.2f}"
                f" | {slope(_points(each, slots, 'slots')):.2f}"
                f" | {each(clients[-1]):,.0f} {unit} | {each(slots[-1]):,.0f} {unit} |"
            )
    return "\n".join(lines)


def _per_report(y: Y, scale: float) -> Y:
    return lambda cost: scale * y(cost) / cost.clients


def _panel(title: str, x: str, unit: str, kinds: dict[str, Y], costs: Sequence[Cost]) -> Panel:
    series = [Series(name, _points(y, costs, x)) for name, y in kinds.items()]
    return Panel(title, x, unit, [each for each in series if each.points])


def _points(y: Y, costs: Sequence[Cost], x: str) -> list[Point]:
    """What is below the clock's resolution has no logarithm and is left out."""
    return [(getattr(cost, x), y(cost)) for cost in costs if y(cost) > 0]


if __name__ == "__main__":
    main()
