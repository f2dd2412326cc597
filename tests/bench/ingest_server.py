"""The two servers that `bench_ingest` compares, each as a process of its own on uvloop.

`collector` is a whole collector process over a real store, with one open round put into place by
hand and no helpers. `nothing` is the aiohttp handler that reads the same body and says 201. Prints
one JSON line when it listens, and ends when its standard input does.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import uvloop
from aiohttp import web

from collector.garbage import collected_on_time
from tests.collector.builders import descriptor_for
from tests.collector.door import door, round_for

# Larger than any run of the benchmark fills.
COHORT_MAX = 1 << 20


async def collector(slots: int, redis_url: str) -> None:
    """A collector process with one open round of `slots` words."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with door(Path(folder), redis_url=redis_url) as it:
            await it.put(round_for(descriptor_for(slots, cohort_max=COHORT_MAX)))
            async with collected_on_time():
                tell(it.node.public_port, it.d.round_id.hex())
                await stdin_ends()


async def nothing() -> None:
    """A handler that reads the body and does nothing."""

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=201)

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/rounds/{round}/reports", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=2_048).start()
    tell(runner.addresses[0][1], "0" * 32)
    await stdin_ends()
    await runner.cleanup()


def tell(port: int, round_id: str) -> None:
    """Says where the server listens."""
    sys.stdout.write(json.dumps({"port": port, "round": round_id}) + "\n")
    sys.stdout.flush()


async def stdin_ends() -> None:
    """Waits until whoever started this process lets go of it."""
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Runs one of the two."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["collector", "nothing"])
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--redis-url", default="")
    options = parser.parse_args()
    if options.kind == "nothing":
        uvloop.run(nothing())
    else:
        uvloop.run(collector(options.slots, options.redis_url))


if __name__ == "__main__":
    main()
