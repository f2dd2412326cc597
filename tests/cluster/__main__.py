"""`python -m tests.cluster --seeds 1:50` plays rounds over a cluster with drawn failovers.

Prints each plan and how its round ended; a seed that fails prints itself and why. The servers are
those of the embedded store, or Debian's with --redis.
"""

import argparse
import asyncio
import collections
import sys
import tempfile
import time
from pathlib import Path

from dandelion.cli.embedded_store import valkey_binary
from tests.cluster.failovers import Plan, play
from tests.cluster.servers import ClusterServers, cluster_of
from tests.services import redis_binary


def main() -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--seeds", default="1:50", metavar="FIRST:END")
    parser.add_argument("--redis", action="store_true")
    arguments = parser.parse_args()
    first, end = (int(part) for part in arguments.seeds.split(":"))
    ends: collections.Counter[str] = collections.Counter()
    with cluster_of(redis_binary() if arguments.redis else valkey_binary()) as servers:
        for seed in range(first, end):
            ends[once(servers, Plan.draw(seed))] += 1
    print(", ".join(f"{count} {phase}" for phase, count in sorted(ends.items())))
    return 1 if ends["FAILED"] else 0


def once(servers: ClusterServers, plan: Plan) -> str:
    """Plays one plan, prints it, and says how it ended."""
    servers.heal()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="round-") as folder:
        try:
            phase = asyncio.run(play(Path(folder), servers, plan))
        except (AssertionError, TimeoutError, RuntimeError) as error:
            print(f"seed {plan.seed}: {type(error).__name__}: {error}", flush=True)
            phase = "FAILED"
    print(f"{plan} {phase} {time.monotonic() - began:.1f} s", flush=True)
    return phase


if __name__ == "__main__":
    sys.exit(main())
