"""One listener as a process of its own on uvloop, as in production, with a question it answers.

`collector`, `admin` and `helper` say which listener. Prints one JSON line when it listens; each
line on standard input is answered with another one (`state`), and its end is the process's end.
"""

import argparse
import asyncio
import hashlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from collector import registry
from collector.garbage import collected_on_time
from collector.store import MemoryStore
from collector.tokens import Scope, issue
from dandelion.params import MEDIA_ASK, MEDIA_REPORT
from dandelion.service.http_guard import Runner
from helper.handlers import HttpLimits
from tests.collector.builders import descriptor_for, plain_report
from tests.collector.door import Door, door, round_for
from tests.collector.rig import QUERY
from tests.edge.corpus import Target
from tests.helper.builders import TOKEN, Bench, ask_of, make_descriptor, reports_of, secret

COHORT_MAX = 1 << 20
# Short enough for a test to wait for, far above what a good client needs.
SHORT = {"header_s": 0.5, "body_s": 0.5, "body_bytes_per_s": 2**20, "keepalive_s": 0.3}
SHORT |= {"linger_s": 0.1}


@dataclass(frozen=True)
class Listening:
    """What the parent needs to know: where, and what a good request there is."""

    port: int
    target: Target
    round: str = ""


@dataclass
class Served:
    """A listener, the runner behind it, and all that it has stored, to be hashed."""

    listening: Listening
    runner: Runner
    contents: Callable[[], Awaitable[object]]

    async def state(self) -> dict[str, Any]:
        """What is stored, as a digest, and what the process is busy with."""
        stored = repr(await self.contents()).encode()
        return {
            "stored": hashlib.sha256(stored).hexdigest(),
            "connections": self.runner.connections,
            "swept": self.runner.counters.swept,
            "refused": self.runner.counters.refused,
            "cpu_s": time.process_time(),
            "rss_bytes": rss_bytes(),
        }


def rss_bytes() -> int:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@asynccontextmanager
async def collector(folder: Path, options: argparse.Namespace) -> AsyncIterator[Served]:
    """The public listener; its round has a place for a million reports."""
    store = None if options.redis_url else MemoryStore()
    limits = json.loads(options.limits)
    settings = {"redis_url": options.redis_url} if options.redis_url else {}
    async with door(folder, store, limits=limits, **settings) as it:
        await it.put(round_for(descriptor_for(options.slots, cohort_max=COHORT_MAX)))
        body = plain_report(it.d, 0).encode()
        target = Target(it.path, MEDIA_REPORT, body)

        async def contents() -> object:
            return await it.contents() if options.exact else await counts(it)

        where = Listening(it.node.public_port, target, it.d.round_id.hex())
        yield Served(where, it.node.runner, contents)


async def counts(it: Door) -> object:
    """How many reports are in."""
    return [(await it.node.store.status(lane)).count for lane in it.layout.lanes]


@asynccontextmanager
async def admin(folder: Path, options: argparse.Namespace) -> AsyncIterator[Served]:
    """The admin listener, and a query that it would take."""
    async with door(folder, MemoryStore(), limits=json.loads(options.limits)) as it:
        state_dir = it.node.config.state_dir
        token = issue(state_dir, "edge", list(Scope), lifetime_s=3_600, now=int(time.time()))
        body = json.dumps(QUERY).encode()
        lines = (f"Authorization: Bearer {token}",)
        target = Target("/admin/v1/queries", "application/json", body, lines)

        async def contents() -> object:
            return await it.node.database.run(registry.queries)

        assert it.node.admin_runner is not None
        yield Served(Listening(it.node.admin_port, target), it.node.admin_runner, contents)


@asynccontextmanager
async def helper(folder: Path, options: argparse.Namespace) -> AsyncIterator[Served]:
    """A helper, and an ask of a round that it never signed."""
    bench = Bench(folder)
    limits = json.loads(options.limits)
    bench.configure(connections_max=limits.pop("connections_max", 1_000), asks_at_once_max=1_000)
    async with bench.helper(limits=HttpLimits(bench.config.connections_max, **limits)) as it:
        d = make_descriptor(it.identity, secret("mask key"))
        body = ask_of(d, reports_of(d, range(5))).encode()
        path = f"/v1/rounds/{d.ctx.hex()}/shards/0/ask"
        target = Target(path, MEDIA_ASK, body, (f"Authorization: Bearer {TOKEN}",))

        async def contents() -> object:
            return bench.record()

        assert isinstance(it.runner, Runner)
        yield Served(Listening(int(it.base.rpartition(":")[2]), target), it.runner, contents)


KINDS = {"collector": collector, "admin": admin, "helper": helper}


async def serve(options: argparse.Namespace) -> None:
    """Serves until standard input ends."""
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        async with KINDS[options.kind](Path(folder), options) as served, collected_on_time():
            say(encoded(served.listening))
            while await asyncio.to_thread(sys.stdin.readline):
                say(await served.state())


def say(document: dict[str, Any]) -> None:
    """One line for the parent."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def encoded(listening: Listening) -> dict[str, Any]:
    """As JSON takes it."""
    document = asdict(listening)
    document["target"]["body"] = listening.target.body.hex()
    return document


def decoded(document: dict[str, Any]) -> Listening:
    """The other way round."""
    target = document["target"]
    lines = tuple(target["lines"])
    target = Target(target["path"], target["media"], bytes.fromhex(target["body"]), lines)
    return Listening(document["port"], target, document["round"])


def main() -> None:
    """Runs one of the three."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("--limits", default="{}")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--redis-url", default="")
    parser.add_argument("--exact", action="store_true", help="state hashes sums and keys, too")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
