"""What a report costs the store: memory, and bytes of the append-only file, by size of batch.

``python -m tests.bench.bench_store``: for Valkey and Redis, a lane is filled through the product's
own commits. The baseline for memory is the report's key, 32 bytes that helpers need whole; the
baseline for the file is what has to be told at all: key, check and bucket of each report, and the
running sum once per commit.
"""

import argparse
import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from collector.redis_store import RedisStore, connect
from collector.store import CHECK_BYTES, Code, Entry, Lane, Layout
from dandelion.cli.embedded_store import valkey_binary
from dandelion.params import KEY_BYTES
from tests.bench.record import RESULTS, Figure, Run
from tests.bench.watch import bytes_in
from tests.services import StoreServer, redis_binary

BATCHES: Final = (16, 64, 256, 1_024)
SERVERS: Final[dict[str, Callable[[], Path]]] = {"Valkey": valkey_binary, "Redis": redis_binary}
_BUCKET_BYTES: Final = 2


@dataclass(frozen=True)
class Cost:
    """Bytes per report: of memory, and of the file per size of batch."""

    version: str
    memory: float
    file: dict[int, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=200_000, help="in the lane, at the end")
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--record", action="store_true", help="append to the record")
    arguments = parser.parse_args()
    run = Run.begin("store")
    for name, binary in SERVERS.items():
        cost = asyncio.run(measure(binary(), arguments.reports, arguments.slots))
        run.record(
            {
                "server": f"{name} {cost.version}",
                "reports": arguments.reports,
                "slots": arguments.slots,
            },
            figures(cost, arguments.slots),
            to=RESULTS if arguments.record else None,
        )


def figures(cost: Cost, slots: int) -> dict[str, Figure]:
    """Bytes per report beside their baselines."""
    found = {
        "the key itself": Figure.of(KEY_BYTES, "B/report"),
        "memory beyond the key": Figure.of(cost.memory - KEY_BYTES, "B/report", promise="<= 20"),
    }
    for batch, written in cost.file.items():
        told = KEY_BYTES + CHECK_BYTES + _BUCKET_BYTES + 4 * slots / batch
        found[f"file, batches of {batch}"] = Figure.of(written, "B/report", ratio=written / told)
    return found


async def measure(binary: Path, reports: int, slots: int) -> Cost:
    """A lane for each size of batch, all as large as `reports`; the last one is filled."""
    server = StoreServer(binary)
    server.start()
    client = connect(server.url)
    store = RedisStore(client, "bench")
    file: dict[int, float] = {}
    memory = 0.0
    try:
        for number, batch in enumerate(BATCHES):
            # What a small batch writes does not depend on how many there are.
            count = reports if batch == BATCHES[-1] else min(reports, 100 * batch)
            told, held = bytes_in(server.folder), await _memory(client)
            await _fill(
                store, Layout(bytes([number]) * 16, 1, 1, reports, bytes(16)), count, batch, slots
            )
            file[batch] = (bytes_in(server.folder) - told) / count
            memory = (await _memory(client) - held) / count
        about = await client.info("server")
        version = str(about.get("valkey_version") or about["redis_version"])
    finally:
        await client.aclose()
        server.discard()
    return Cost(version, memory, file)


async def _fill(store: RedisStore, layout: Layout, count: int, batch: int, slots: int) -> None:
    lane, total = layout.lanes[0], bytes(4 * slots)
    await store.open_lane(layout, lane)
    epoch = await store.new_epoch(lane, bytes(16))
    if epoch is None:
        raise RuntimeError("a new lane takes reports")
    for seq, start in enumerate(range(0, count, batch), start=1):
        entries = [_entry(layout, lane) for _ in range(min(batch, count - start))]
        result = await store.commit(lane, epoch, seq, entries, total)
        if result.code is not Code.OK:
            raise RuntimeError(f"a commit ended {result.code}")


def _entry(layout: Layout, lane: Lane) -> Entry:
    epk = os.urandom(KEY_BYTES)
    return Entry(epk, os.urandom(CHECK_BYTES), layout.place(epk, lane.shard)[1])


async def _memory(client: Redis) -> int:
    return int((await client.info("memory"))["used_memory"])


if __name__ == "__main__":
    main()
