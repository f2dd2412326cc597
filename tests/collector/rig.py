"""A whole collector in this process, with two real helpers, and clients that really mask."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from collector.config import Config
from collector.node import Node, running
from collector.store import RoundStore
from collector.tokens import Scope, issue
from dandelion.descriptor import Descriptor, Envelope
from dandelion.params import MEDIA_REPORT
from dandelion.schemes import oneshot
from dandelion.service.identity import init_state
from tests.collector.builders import seed
from tests.collector.gate import Gate
from tests.oracle_membership import one_hot
from tests.services import RunningHelper, helper_pair

# Client k sets slot k, the count of its own group, as far as it may. The wide column makes that far
# more than the noise, so released sums still tell who was counted.
REGISTRY: dict[str, Any] = {
    "events": {
        "visit": {
            "columns": {
                "who": {"kind": "category", "values": [f"c{number:03}" for number in range(64)]},
                "load": {"kind": "number", "lo": 0, "hi": 2_000},
            }
        }
    }
}
QUERY: dict[str, Any] = {
    "name": "members",
    "sql": "SELECT who, COUNT(load), SUM(load) FROM visit GROUP BY who",
    "registry": REGISTRY,
    "epsilon": "1000",
    "delta": "0.00000001",
    "scope": "test",
    "cohort_min": 2,
    "cohort_max": 5000,
}


class Clock:
    """The time of all parties, which a test may move forward."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead

    def reach(self, moment: float) -> None:
        """Moves on to a moment, Unix seconds."""
        self._ahead = max(self._ahead, moment - time.time())


@dataclass
class Rig:
    """A running collector, its helpers, an HTTP session, and a token that may do everything."""

    node: Node
    helpers: list[RunningHelper]
    gates: list[Gate]
    clock: Clock
    session: aiohttp.ClientSession
    token: str

    async def admin(
        self, method: str, path: str, body: object = None, *, token: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an admin request."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        url = f"{self.node.admin_url}/admin/v1/{path}"
        async with self.session.request(method, url, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a public request."""
        async with self.session.get(f"{self.node.public_url}{path}") as response:
            return response.status, await response.read()

    async def post(
        self, round_id: str, body: bytes, media: str = MEDIA_REPORT
    ) -> tuple[int, dict[str, Any]]:
        """Sends a report; status and JSON."""
        url = f"{self.node.public_url}/v1/rounds/{round_id}/reports"
        headers = {"Content-Type": media}
        async with self.session.post(url, data=body, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def open(self, duration_s: int = 600, **changes: object) -> tuple[str, Descriptor]:
        """Adds the query if need be and opens a round of it."""
        status, answer = await self.admin("POST", "queries", QUERY)
        assert status in (201, 409), answer
        body = {"query": "members", "duration_s": duration_s} | changes
        status, opened = await self.admin("POST", "rounds", body)
        assert status == 201, opened
        _, shown = await self.admin("GET", f"rounds/{opened['round']}")
        envelope = Envelope.decode(base64.b64decode(shown["envelope"]))
        return opened["round"], envelope.descriptor

    async def send(self, d: Descriptor, clients: Iterable[int]) -> list[int]:
        """Each client sends its masked report; the statuses."""
        bodies = [masked(d, client) for client in clients]
        answers = await asyncio.gather(*(self.post(d.round_id.hex(), it) for it in bodies))
        return [status for status, _ in answers]

    async def until(self, round_id: str, *phases: str, seconds: float = 20) -> dict[str, Any]:
        """Waits until the round is in one of the phases."""
        deadline = time.monotonic() + seconds
        while True:
            _, shown = await self.admin("GET", f"rounds/{round_id}")
            if shown["phase"] in phases:
                return shown
            assert time.monotonic() < deadline, shown
            await asyncio.sleep(0.05)


@dataclass
class Parties:
    """Helpers that outlive the collector: it may be started again over the same state."""

    folder: Path
    helpers: list[RunningHelper]
    gates: list[Gate]
    clock: Clock

    def config(self, redis_url: str = "unix:///nowhere", **changes: Any) -> Config:
        """A configuration with short times, on free ports."""
        fields: dict[str, Any] = {
            "state_dir": self.folder / "collector",
            "redis_url": redis_url,
            "public": {"port": 0},
            "admin": {"port": 0},
            "helpers": [
                {"url": gate.url, "identity": it.identity.hex(), "token": it.token}
                for it, gate in zip(self.helpers, self.gates, strict=True)
            ],
            "lifetimes": {"seal_grace_s": 0.1, "answer_s": 3_600, "tick_s": 0.05},
            "limits": {"answer_s": 5, "helper_retry_max_s": 0.5},
            "drain_s": 5,
        }
        return Config.model_validate(fields | changes)

    @asynccontextmanager
    async def rig(self, store: RoundStore | None = None, **changes: Any) -> AsyncIterator[Rig]:
        """A running collector with these helpers."""
        config = self.config(**changes)
        token = issue(
            config.state_dir, "test", list(Scope), lifetime_s=86_400, now=int(time.time())
        )
        async with (
            running(config, store=store, clock=self.clock) as node,
            aiohttp.ClientSession(auto_decompress=False) as session,
        ):
            yield Rig(node, self.helpers, self.gates, self.clock, session, token)


def masked(d: Descriptor, client: int) -> bytes:
    """The encoded report of a client that sets its own coordinate to `linf`; always the same."""
    key = oneshot.EphemeralKey(seed(f"esk {client} of {d.ctx.hex()}"))
    return oneshot.mask(d, one_hot(d.slots, client, d.linf), key).encode()


@asynccontextmanager
async def parties(folder: Path, *, cohort_min: int = 1) -> AsyncIterator[Parties]:
    """Two helpers behind gates, and a collector identity that they serve."""
    identity, clock = init_state(folder / "collector"), Clock()
    async with AsyncExitStack() as stack:
        helpers = await stack.enter_async_context(
            helper_pair(folder, identity, cohort_min=cohort_min, clock=clock)
        )
        gates = [await stack.enter_async_context(Gate(it.url)) for it in helpers]
        yield Parties(folder, helpers, gates, clock)


@asynccontextmanager
async def rig(
    folder: Path, store: RoundStore | None = None, *, cohort_min: int = 1, **changes: Any
) -> AsyncIterator[Rig]:
    """A collector over `store`, or over the Redis that `redis_url` names, with its helpers."""
    async with parties(folder, cohort_min=cohort_min) as them, them.rig(store, **changes) as it:
        yield it
