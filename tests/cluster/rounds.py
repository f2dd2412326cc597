"""A whole round over a cluster: two collector processes, two helpers, clients that really mask.

The first process runs in the test, the second is a process of its own on the same port. Every
client sends the same bytes again until its fate is known, and is one slot of the released sums:
what was acknowledged and what was counted can be compared, client by client.
"""

import asyncio
import base64
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from collector.node import running
from collector.store import Lane
from collector.tokens import Scope, issue
from dandelion.descriptor import Descriptor, Envelope
from dandelion.params import MEDIA_REPORT
from dandelion.verify import verify_release
from tests.cluster.servers import ClusterServers, Server
from tests.collector.rig import QUERY, Parties, Rig, masked, parties
from tests.oracle_membership import counted

ROOT = Path(__file__).parents[2]
CLIENTS = 240
PARTITIONS = 4
ENDED = ("released", "abandoned", "damaged")
# One slot for each client's count. The wide column makes that far more than the noise.
NAMES = [f"c{number:03}" for number in range(CLIENTS)]
REGISTRY = {
    "events": {
        "visit": {
            "columns": {
                "who": {"kind": "category", "values": NAMES},
                "load": {"kind": "number", "lo": 0, "hi": 2_000},
            }
        }
    }
}


class Wrong(AssertionError):
    """A release that leaves out an acknowledged client, or counts one twice or unsent."""


@dataclass
class ClusterRound:
    """A round that is being taken, and who was told yes."""

    it: Rig
    servers: ClusterServers
    id: str
    d: Descriptor
    lanes: tuple[Lane, ...]
    reason: str = ""
    acknowledged: set[int] = field(default_factory=set)
    sent: set[int] = field(default_factory=set)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    def holder(self, lane: Lane) -> Server:
        """The master of a lane."""
        return self.servers.master_of(b"{%s:%s}" % (self.id.encode(), lane.name.encode()))

    @property
    def worker(self) -> int:
        """Process id of the second process."""
        assert self.it.node.supervisor is not None
        [pid] = self.it.node.supervisor.pids
        return pid

    def kill_worker(self) -> None:
        """Ends the second process at once. It is not missed: the first one starts another."""
        os.kill(self.worker, signal.SIGKILL)

    async def send(self, clients: Iterable[int], *, seconds: float = 40) -> None:
        """All of them send until they are told yes, or the round takes no more."""
        # A connection for each request: they spread over both processes.
        connector = aiohttp.TCPConnector(limit=32, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(self._client(session, client) for client in clients))

    async def _client(self, session: aiohttp.ClientSession, client: int) -> None:
        body = masked(self.d, client)
        url = f"{self.it.node.public_url}/v1/rounds/{self.id}/reports"
        headers = {"Content-Type": MEDIA_REPORT}
        self.sent.add(client)
        while not self._over.is_set():
            try:
                async with session.post(url, data=body, headers=headers) as response:
                    if response.status in (200, 201):
                        self.acknowledged.add(client)
                        return
                    if response.status != 503:
                        return
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(0.05)

    async def has(self, count: int) -> None:
        """Waits until so many were told yes."""
        deadline = time.monotonic() + 40
        while len(self.acknowledged) < count:
            assert time.monotonic() < deadline, len(self.acknowledged)
            await asyncio.sleep(0.005)

    async def finish(self) -> str:
        """Closes the round, waits for its end, and holds a release against the clients.

        Raises:
            Wrong: what was released is not what was acknowledged.
        """
        self.it.clock.reach(self.d.closes)
        shown = await self.it.until(self.id, *ENDED, seconds=40)
        self._over.set()
        if shown["phase"] != "released":
            self.reason = shown["reason"]
            return str(shown["phase"])
        _, artefact = await self.it.get(f"/v1/releases/{self.id}")
        verified = verify_release(
            artefact, helpers=tuple(each.identity for each in self.it.helpers)
        )
        times = counted(verified.sums, self.d.linf)
        if set(times.values()) != {1} or verified.n != len(times):
            raise Wrong(f"counted {times}")
        if not self.acknowledged <= set(times) <= self.sent:
            raise Wrong(f"lost {self.acknowledged - set(times)}, new {set(times) - self.sent}")
        return "released"


@asynccontextmanager
async def cluster_round(
    folder: Path, servers: ClusterServers, replicas: int, *, workers: int = 2
) -> AsyncIterator[ClusterRound]:
    """An open round of two processes over a cluster, which wait for so many replicas."""
    async with AsyncExitStack() as stack:
        them = await stack.enter_async_context(parties(folder))
        config = them.config(
            servers.url, replicas_acknowledge=replicas, partitions=PARTITIONS, workers=workers
        )
        file = write(them, servers.url, replicas)
        token = issue(
            config.state_dir, "test", list(Scope), lifetime_s=86_400, now=int(time.time())
        )
        node = await stack.enter_async_context(
            running(config, clock=them.clock, worker_command=command(file))
        )
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        it = Rig(node, them.helpers, them.gates, them.clock, session, token)
        status, answer = await it.admin("POST", "queries", QUERY | {"registry": REGISTRY})
        assert status == 201, answer
        status, opened = await it.admin(
            "POST", "rounds", {"query": QUERY["name"], "duration_s": 600}
        )
        assert status == 201, opened
        _, shown = await it.admin("GET", f"rounds/{opened['round']}")
        d = Envelope.decode(base64.b64decode(shown["envelope"])).descriptor
        [listed] = list(node.book)
        deadline = time.monotonic() + 30
        while node.supervisor is not None and not node.supervisor.snapshots:
            assert time.monotonic() < deadline, "the second process does not start"
            await asyncio.sleep(0.02)
        yield ClusterRound(it, servers, opened["round"], d, listed.layout.lanes)


def command(file: Path) -> Callable[[int, int], list[str]]:
    """Words that start the second process."""
    return lambda number, port: [
        *(sys.executable, "-m", "collector", "--config", str(file)),
        *("--worker", str(number), "--port", str(port)),
    ]


def write(them: Parties, url: str, replicas: int) -> Path:
    """The configuration of the second process: what matters is that of the first."""
    lines = [
        'state_dir = "collector"',
        f'redis_url = "{url}"',
        f"replicas_acknowledge = {replicas}",
        f"partitions = {PARTITIONS}",
        "public = { port = 0 }",
        "admin = { port = 0 }",
        "limits = { answer_s = 5 }",
        "drain_s = 5",
    ]
    for helper in them.helpers:
        lines += ["[[helpers]]", f'url = "{helper.url}"', f'token = "{helper.token}"']
        lines += [f'identity = "{helper.identity.hex()}"']
    file = them.folder / "worker.toml"
    file.write_text("\n".join(lines))
    return file
