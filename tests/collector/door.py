"""The public door alone: a collector process whose rounds are put into place by hand.

No helper runs and nobody drives the rounds, so tests decide what phase a round is in.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from collector import registry
from collector.book import Round
from collector.config import Config
from collector.node import Node, running
from collector.store import LanePhase, Layout, RoundStore
from dandelion import kernel
from dandelion.descriptor import Descriptor
from dandelion.params import MEDIA_REPORT
from dandelion.round import Phase
from dandelion.schemes import oneshot
from dandelion.service.identity import init_state
from tests.collector.builders import descriptor_for, envelope_for, plain_report, seed
from tests.oracle_membership import Vector

SECRET = bytes(16)


@dataclass
class Door:
    """A running process, an HTTP session, and what the store holds."""

    node: Node
    session: aiohttp.ClientSession
    round: Round

    @property
    def d(self) -> Descriptor:
        """The round's descriptor."""
        return self.round.descriptor

    @property
    def layout(self) -> Layout:
        """The round's layout."""
        return self.round.layout

    @property
    def path(self) -> str:
        """Where reports go."""
        return f"/v1/rounds/{self.d.round_id.hex()}/reports"

    async def post(
        self, body: bytes, path: str | None = None, **headers: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Sends a body; status, JSON and headers."""
        wanted = {"Content-Type": MEDIA_REPORT} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        url = self.node.public_url + (path or self.path)
        async with self.session.post(url, data=body, headers=wanted) as response:
            answer = await response.json(content_type=None)
            return response.status, answer, dict(response.headers)

    async def send(self, client: int) -> int:
        """Client number `client` sends its report, unmasked; the status."""
        status, _, _ = await self.post(plain_report(self.d, client).encode())
        return status

    async def token_of(self, body: bytes, path: str | None = None, **headers: str) -> str:
        """The token of the refusal that a body meets."""
        status, answer, _ = await self.post(body, path, **headers)
        assert status >= 400, answer
        assert answer["status"] == status
        return str(answer["type"]).removeprefix("urn:dandelion:problem:")

    async def put(self, round_: Round) -> None:
        """Puts the round into place as the driver would."""
        self.round = round_
        database, store = self.node.database, self.node.store
        await database.run(lambda connection: _put(connection, round_))
        for lane in self.layout.lanes:
            await store.open_lane(self.layout, lane)
        await store.publish(self.d.round_id, round_.encode())
        await self.node.book.refresh()

    async def move(self, phase: Phase, lanes: LanePhase | None = None) -> None:
        """Puts the round into another phase."""
        for lane in self.layout.lanes if lanes else ():
            await self.node.store.step(lane, lanes or LanePhase.SEALED)
        await self.put(replace(self.round, phase=phase))

    async def contents(self) -> tuple[object, ...]:
        """Everything the store holds of the round, to compare: nothing changed."""
        store = self.node.store
        found: list[object] = []
        for lane in self.layout.lanes:
            found.append((await store.status(lane)).count)
            found.append(sorted(await store.keys(self.layout, lane)))
            found.append(await store.sums(lane))
        return tuple(found)

    async def sums(self) -> Vector:
        """The sum of everything that was committed."""
        parts = [total for lane in self.layout.lanes for total in await self.node.store.sums(lane)]
        total = oneshot.add_sums(self.d, parts)
        return np.frombuffer(kernel.unpack(total, self.d.width), dtype="<i8")


@asynccontextmanager
async def door(
    folder: Path, store: RoundStore | None = None, *, slots: int = 64, **changes: Any
) -> AsyncIterator[Door]:
    """A process with one open round of `slots` clients."""
    fields: dict[str, Any] = {
        "state_dir": folder / "collector",
        "redis_url": "unix:///nowhere",
        "public": {"port": 0},
        "admin": {"port": 0},
        "helpers": [
            {"url": "http://127.0.0.1:9", "identity": seed(str(number)).hex(), "token": "t"}
            for number in (1, 2)
        ],
        "drain_s": 2,
    }
    config = Config.model_validate(fields | changes)
    init_state(config.state_dir)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        running(config, store=store) as node,
        aiohttp.ClientSession(auto_decompress=False, connector=connector) as session,
    ):
        it = Door(node, session, round_for(descriptor_for(slots)))
        await it.put(it.round)
        yield it


def round_for(descriptor: Descriptor) -> Round:
    """The open round of a descriptor."""
    return Round(envelope_for(descriptor), Phase.OPEN, "test", SECRET, 1)


def _put(connection: Any, round_: Round) -> None:
    row = connection.execute("SELECT 1 FROM queries").fetchone()
    if row is None:
        registry.add_query(connection, "test", {"name": "test"}, int(time.time()))
    known = connection.execute(
        "SELECT 1 FROM rounds WHERE round = ?", (round_.descriptor.round_id,)
    ).fetchone()
    if known is None:
        registry.add_round(connection, round_)
    connection.execute(
        "UPDATE rounds SET phase = ? WHERE round = ?", (round_.phase, round_.descriptor.round_id)
    )


async def raw(node: Node, request: bytes, *, seconds: float = 5) -> bytes:
    """Sends bytes over a fresh connection and returns everything that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.public_port)
    try:
        writer.write(request)
        async with asyncio.timeout(seconds):
            return await reader.read()
    finally:
        writer.close()


def random_key() -> bytes:
    """An acceptable report key."""
    return kernel.x25519_public(os.urandom(32))
