"""What a Redis Cluster costs and gives: commits of four lanes, against one server, in turns.

``python -m tests.bench.bench_cluster``: the product's store commits batches to four lanes at once,
on one server, on a cluster of three masters with replicas, and on the same cluster waiting for one
replica. All servers share this machine: that shows what waiting costs, not what more machines give.
"""

import argparse
import asyncio
import os
import statistics
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from collector.redis_store import RedisStore, connect, connect_any
from collector.store import CHECK_BYTES, Code, Entry, Lane, Layout
from dandelion.cli.embedded_store import valkey_binary
from dandelion.params import KEY_BYTES
from tests.bench.record import RESULTS, Figure, Run
from tests.bench.watch import bytes_in
from tests.cluster.servers import ClusterServers, cluster_of
from tests.services import StoreServer

LANES: Final = 4
ROUNDS: Final = count()


@dataclass
class Way:
    """A store under measurement, and its samples."""

    store: RedisStore
    folders: list[Path]
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    file: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256, help="reports in a commit")
    parser.add_argument("--commits", type=int, default=40, help="of each lane and turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--slots", type=int, default=1_000)
    parser.add_argument("--record", action="store_true", help="append to the record")
    arguments = parser.parse_args()
    run = Run.begin("cluster")
    server = StoreServer(valkey_binary())
    server.start()
    try:
        with cluster_of(valkey_binary()) as servers:
            ways = asyncio.run(measure(server, servers, arguments))
    finally:
        server.discard()
    parameters = {name: getattr(arguments, name) for name in ("batch", "commits", "turns", "slots")}
    run.record(parameters, figures(ways), to=RESULTS if arguments.record else None)


async def measure(
    server: StoreServer, servers: ClusterServers, arguments: argparse.Namespace
) -> dict[str, Way]:
    """Turn by turn, each way the same work on fresh lanes."""
    many = [each.folder for each in servers.servers]
    ways = {
        "one server": Way(RedisStore(connect(server.url), "bench"), [server.folder]),
        "cluster": Way(RedisStore(connect_any(servers.url, 0), "bench"), many),
        "cluster, 1 replica waited for": Way(
            RedisStore(connect_any(servers.url, 1), "bench"), many
        ),
    }
    for turn in range(arguments.turns + 1):
        for way in ways.values():
            await _turn(way, arguments, warm=turn == 0)
    for way in ways.values():
        await way.store.close()
    return ways


async def _turn(way: Way, arguments: argparse.Namespace, *, warm: bool) -> None:
    capacity = 2 * arguments.batch * arguments.commits
    layout = Layout(next(ROUNDS).to_bytes(16, "big"), 1, LANES, capacity, bytes(16))
    batches = {
        lane: [
            [_entry(layout, lane) for _ in range(arguments.batch)] for _ in range(arguments.commits)
        ]
        for lane in layout.lanes
    }
    told = sum(bytes_in(folder) for folder in way.folders)
    began = time.perf_counter()
    took = await asyncio.gather(
        *(_fill(way.store, layout, lane, batches[lane], arguments.slots) for lane in batches)
    )
    seconds = time.perf_counter() - began
    reports = LANES * arguments.commits * arguments.batch
    # What replicas still have to be told and to write.
    await asyncio.sleep(0.3)
    if not warm:
        way.rates.append(reports / seconds)
        way.seconds.append(statistics.median(each for lane in took for each in lane))
        way.file.append((sum(bytes_in(folder) for folder in way.folders) - told) / reports)
    await way.store.purge(layout)


async def _fill(
    store: RedisStore, layout: Layout, lane: Lane, batches: list[list[Entry]], slots: int
) -> list[float]:
    """Seconds of each commit."""
    await store.open_lane(layout, lane)
    epoch = await store.new_epoch(lane, bytes(16))
    if epoch is None:
        raise RuntimeError("a new lane takes reports")
    took = []
    for seq, entries in enumerate(batches, start=1):
        began = time.perf_counter()
        result = await store.commit(lane, epoch, seq, entries, os.urandom(4 * slots))
        if result.code is not Code.OK:
            raise RuntimeError(f"a commit ended {result.code}")
        took.append(time.perf_counter() - began)
    return took


def _entry(layout: Layout, lane: Lane) -> Entry:
    epk = os.urandom(KEY_BYTES)
    return Entry(epk, os.urandom(CHECK_BYTES), layout.place(epk, lane.shard)[1])


def figures(ways: dict[str, Way]) -> dict[str, Figure]:
    """Rates, the time of a commit, and bytes of all files, beside those of one server."""
    base, *_ = ways.values()
    found = {}
    for name, way in ways.items():
        first = way is base
        for what, unit, samples, baseline in (
            ("rate", "reports/s", way.rates, base.rates),
            ("a commit", "ms", [1e3 * it for it in way.seconds], [1e3 * it for it in base.seconds]),
            ("files", "B/report", way.file, base.file),
        ):
            ratio = None if first else statistics.median(samples) / statistics.median(baseline)
            found[f"{name}: {what}"] = Figure.of(samples, unit, ratio=ratio)
    return found


if __name__ == "__main__":
    main()
