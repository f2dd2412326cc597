"""Those who are not under test: an operator, and the devices of clients."""

import asyncio
import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from client_py.admit import RoundCache
from client_py.client import Client, Patience
from client_py.config import PinnedConfig, Policy
from client_py.fleet import FleetTransport
from client_py.receipts import Outcome, Receipt
from client_py.store import Allowance, Charge, MemoryStore, Pending
from client_py.transport import Reply, TransportError
from tests.sim.loop import Process
from tests.sim.machine import EPOCH
from tests.sim.profile import Profile
from tests.sim.template import TOKEN, query_name, rows_of
from tests.sim.world import World

POLICY: Final = Policy(cohort_min=1, epsilon_round=1_000.0, delta=1e-8, epsilon_period=100_000.0)
PATIENCE: Final = Patience(attempts=3, wait_max_s=10.0, step_s=0)
DONE: Final = (Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.REJECTED, Outcome.LAPSED)


class Http(FleetTransport):
    """One connection of an operator or a reader."""

    async def request(
        self, method: str, path: str, body: object = None, *, token: str = ""
    ) -> Reply:
        """One exchange; `TransportError` if there is no answer."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: sim\r\nContent-Length: {len(data)}\r\n"
        if body is not None:
            head += "Content-Type: application/json\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        return await self._exchange(head.encode() + b"\r\n" + data)


class Keeping(MemoryStore):
    """A client's store that remembers every report it made."""

    def __init__(self, events: Any) -> None:
        super().__init__(events)
        self.made: dict[bytes, Pending] = {}

    def commit(
        self, charge: Charge, allowance: Allowance, make: Callable[[], Pending]
    ) -> Pending | None:
        pending = super().commit(charge, allowance, make)
        if pending is not None:
            self.made[pending.round_id] = pending
        return pending


@dataclass
class Device:
    """A device with one client; several devices may share a key, and even a report."""

    name: str
    slot: int
    key: bytes
    store: Keeping
    liar: bool
    receipts: list[Receipt] = field(default_factory=list)
    finished: bool = False

    def verdict(self, round_id: bytes) -> Receipt | None:
        """What the device finally heard about its report."""
        for receipt in self.receipts:
            if receipt.round_id == round_id.hex() and receipt.outcome in DONE:
                return receipt
        return None


class Operator:
    """Opens the rounds, whatever it takes, and knows their envelopes."""

    def __init__(self, world: World, profile: Profile, rng: random.Random) -> None:
        self._world = world
        self._profile = profile
        self._rng = rng
        self.envelopes: dict[bytes, bytes] = {}
        self.closes = 0.0

    async def run(self) -> None:
        """Opens all rounds of the profile, some time apart."""
        for number in range(self._profile.rounds):
            if number:
                await asyncio.sleep(self._rng.uniform(0.1, 3.0))
            while True:
                if await self._open(number + 1):
                    break
                await asyncio.sleep(0.5)

    async def _open(self, wanted: int) -> bool:
        """One attempt; whether there are so many rounds now."""
        http = Http("http://admin:81", timeout_s=10.0)
        try:
            now = int(EPOCH + self._world.loop.now)
            body = {
                "query": query_name(self._profile.cohort, self._profile.shard_bits),
                "opens": now,
                "closes": now + 1 + self._profile.open_s,
                "expires": now + 1 + self._profile.open_s + self._profile.answer_s,
            }
            if len(await self._listed(http)) < wanted:
                await http.request("POST", "/admin/v1/rounds", body, token=TOKEN)
            return len(await self._listed(http)) >= wanted
        except TransportError:
            return False
        finally:
            http.close()

    async def _listed(self, http: Http) -> list[bytes]:
        """The rounds that there are; fetches the envelopes of new ones."""
        reply = await http.request("GET", "/admin/v1/rounds", token=TOKEN)
        if reply.status != 200:
            raise TransportError(f"status {reply.status}")
        found = []
        for row in json.loads(reply.body)["rounds"]:
            round_id = bytes.fromhex(row["round"])
            found.append(round_id)
            self.closes = max(self.closes, row["closes"] - EPOCH)
            if round_id not in self.envelopes:
                got = await http.request("GET", f"/admin/v1/rounds/{row['round']}", token=TOKEN)
                if got.status != 200:
                    raise TransportError(f"status {got.status}")
                self.envelopes[round_id] = _envelope(got)
        return found


def _envelope(reply: Reply) -> bytes:
    return base64.b64decode(json.loads(reply.body)["envelope"])


class Crowd:
    """All devices, and what became of them."""

    def __init__(
        self, world: World, profile: Profile, operator: Operator, rng: random.Random
    ) -> None:
        self._world = world
        self._operator = operator
        self._rng = rng
        self._cache = RoundCache()
        self._pinned = PinnedConfig(
            "http://collector:80", world.template.collector, world.template.helpers
        )
        self.devices: list[Device] = []
        for slot in range(profile.clients):
            self._add(slot, rng.randbytes(32))
        for slot in range(profile.twins):
            self._add(slot, self.devices[slot].key)
        for number in range(profile.liars):
            slot = profile.twins + number
            self.devices[slot].liar = True
            self._add(profile.clients + number, self.devices[slot].key, liar=True)

    def start(self) -> None:
        """Lets all of them come at their times."""
        last = self._world.profile.open_s + 1.5
        twin_at: dict[bytes, float] = {}
        for device in self.devices:
            at = twin_at.get(device.key, self._rng.uniform(0.3, last))
            twin_at[device.key] = at
            self._world.loop.start(Process(device.name), self._run(device, at))

    def _add(self, slot: int, key: bytes, *, liar: bool = False) -> None:
        name = f"k{len(self.devices):02}"
        self.devices.append(Device(name, slot, key, Keeping(rows_of(slot)), liar))

    async def _run(self, device: Device, at: float) -> None:
        transport = FleetTransport("http://collector:80", timeout_s=20.0)
        clock = self._world.machines.time
        client = Client(
            self._pinned,
            POLICY,
            device.store,
            transport,
            cache=self._cache,
            patience=PATIENCE,
            clock=clock,
            steady=self._world.loop.time,
            random_bytes=lambda _: device.key,
            rng=random.Random(f"{device.name} {device.key.hex()}"),
        )
        asks = self._rng.random() < 0.3
        await asyncio.sleep(at)
        while True:
            # A list that came out of a cache, or the collector's own.
            rounds = None if asks else list(self._operator.envelopes.values())
            device.receipts += await client.contribute(rounds, early=True)
            waiting = device.store.pending("http://collector:80")
            if not waiting and self._over(device):
                break
            await asyncio.sleep(self._rng.uniform(0.5, 2.5))
        device.finished = True
        transport.close()

    def _over(self, device: Device) -> bool:
        """Whether no round can come any more that this client could answer."""
        operator, profile = self._operator, self._world.profile
        if len(operator.envelopes) < profile.rounds:
            return False
        answered = all(device.verdict(it) is not None for it in operator.envelopes)
        return answered or self._world.loop.now > operator.closes + 1
