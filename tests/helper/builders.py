"""Builders for the helper's tests: a helper on a real socket, a collector, rounds and clients.

Time is an argument everywhere: tests move `FakeTime`, nobody sleeps to make something true.
"""

import asyncio
import hashlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

from dandelion.descriptor import (
    Descriptor,
    HelperEntry,
    partial_envelope,
    sign_descriptor,
)
from dandelion.encoding import identity_of, sign
from dandelion.messages import Answer, Ask, Report
from dandelion.params import MEDIA_ASK, MEDIA_ENVELOPE
from dandelion.schemes import oneshot
from dandelion.service.identity import init_state, write_private
from helper.app import DATABASE, ROOTS, Runner, make_app
from helper.config import Config
from helper.handlers import ANSWERS, LIMITS, HttpLimits

T0 = 1_800_000_000
TOKEN = "correct-horse-battery-staple"


def secret(name: str) -> bytes:
    """32 bytes that stand for a name."""
    return hashlib.sha256(name.encode()).digest()


COLLECTOR_SEED = secret("collector")
COLLECTOR = identity_of(COLLECTOR_SEED)
OTHER = identity_of(secret("other helper"))
OTHER_ROOT = secret("other root")


ALICE = [90, -20, 5, 37]  # what the attacker wants to know
QUIET: dict[str, Any] = {"noise_var": 1, "l2sq": 10_000}
# Nearly no noise: an attack that gets a second answer reads Alice's values by rounding.
ANY_NOISE: dict[str, Any] = {
    "floors": {"cohort_min": 3, "lifetime_max_s": 10_000, "per_round": {"rho_units": 2**62}},
    "scopes": {"test": {"rho_units": 2**62, "period_s": 86_400}},
}


@dataclass
class FakeTime:
    """Unix seconds and steady seconds, moved by the test."""

    now: float = T0
    steady: float = 0.0


def make_config(state_dir: Path, **changes: Any) -> Config:
    """A configuration whose floors the rounds of `make_descriptor` hold."""
    fields: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "state_dir": state_dir,
        "collectors": [COLLECTOR.hex()],
        "token_sha256": [hashlib.sha256(TOKEN.encode()).hexdigest()],
        "floors": {"cohort_min": 3, "lifetime_max_s": 10_000},
        "scopes": {"test": {"epsilon": 10.0, "delta": 1e-8, "period_s": 86_400}},
        # Sweeps are called by name in tests.
        "sweep_s": 3_600.0,
    }
    return Config.model_validate(fields | changes)


def make_descriptor(identity: bytes, mask_key: bytes, **changes: Any) -> Descriptor:
    """A round of this helper and another, open from T0 for 100 s and alive for 1,000 s."""
    entries = [
        HelperEntry(identity, mask_key),
        HelperEntry(OTHER, oneshot.round_keys(OTHER_ROOT)[1]),
    ]
    fields: dict[str, Any] = {
        "suite": 1,
        "opens": T0,
        "closes": T0 + 100,
        "expires": T0 + 1_000,
        "slots": 4,
        "width": 32,
        "shard_bits": 0,
        "cohort_min": 3,
        "cohort_max": 100,
        "linf": 100,
        "l2sq": 10_000,
        "noise_var": 100_000,
        "scope": "test",
        "collector": COLLECTOR,
        "helpers": tuple(sorted(entries, key=lambda entry: entry.identity)),
        "plan": b"{}",
    }
    return Descriptor(**(fields | changes))


def envelope_of(descriptor: Descriptor, seed: bytes = COLLECTOR_SEED) -> bytes:
    """The body of `POST /v1/descriptors`."""
    return partial_envelope(descriptor, sign_descriptor(descriptor, seed))


def report_of(descriptor: Descriptor, client: int, values: Sequence[int] | None = None) -> Report:
    """The report of a numbered client; its vector is its number in every slot unless given."""
    vector = np.array(values or [client] * descriptor.slots, dtype=np.int64)
    return oneshot.mask(descriptor, vector, oneshot.EphemeralKey(secret(f"client {client}")))


def reports_of(descriptor: Descriptor, clients: Iterable[int], shard: int = 0) -> list[Report]:
    """Reports of those clients whose key falls into a shard, in the order of their keys."""
    reports = [report_of(descriptor, client) for client in clients]
    mine = [report for report in reports if descriptor.shard_of(report.epk) == shard]
    return sorted(mine, key=lambda report: report.epk)


def with_and_without_alice(d: Descriptor) -> tuple[list[Report], list[Report]]:
    """Two sets that differ in one client."""
    crowd = reports_of(d, range(5))
    alice = report_of(d, 99, ALICE)
    return sorted([*crowd, alice], key=lambda report: report.epk), crowd


def sum_of(descriptor: Descriptor, reports: Sequence[Report]) -> bytes:
    """Y of a set of reports."""
    bodies = [report.encode() for report in reports]
    return oneshot.fold(descriptor, oneshot.zero(descriptor), bodies)


def ask_of(
    descriptor: Descriptor,
    reports: Sequence[Report],
    shard: int = 0,
    *,
    seed: bytes = COLLECTOR_SEED,
    y: bytes | None = None,
) -> Ask:
    """The collector's ask for a set of reports."""
    keys = b"".join(report.epk for report in reports)
    total = sum_of(descriptor, reports) if y is None else y
    return Ask.create(descriptor.ctx, shard, keys, total, seed)


def other_answer(descriptor: Descriptor, ask: Ask) -> bytes:
    """R of the other helper."""
    return oneshot.answer_vector(
        descriptor,
        descriptor.party_of(OTHER),
        OTHER_ROOT,
        ask.shard,
        ask.set_digest,
        ask.keys,
        threads=1,
    )


@dataclass(frozen=True)
class Reply:
    """What the helper said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def token(self) -> str:
        """The token of a problem document, or the status of anything else."""
        if self.headers.get("Content-Type") != "application/problem+json":
            return str(self.status)
        return str(json.loads(self.body)["type"]).rpartition(":")[2]

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Running:
    """A helper that runs, as its collector meets it."""

    def __init__(
        self, runner: web.AppRunner, session: aiohttp.ClientSession, base: str, identity: bytes
    ) -> None:
        self.runner = runner
        self.app = runner.app
        self.base = base
        self.identity = identity
        self._session = session

    async def request(self, method: str, path: str, **options: Any) -> Reply:
        """One request, with the token unless headers are given."""
        options.setdefault("headers", {"Authorization": f"Bearer {TOKEN}"})
        async with self._session.request(method, self.base + path, **options) as response:
            body = await response.read()
            return Reply(response.status, dict(response.headers), body)

    async def make_key(self) -> bytes:
        """A mask key."""
        reply = await self.request("POST", "/v1/keys")
        assert reply.status == 201, reply
        return bytes.fromhex(reply.json["mask_key"])

    async def sign(self, envelope: bytes) -> Reply:
        """POST /v1/descriptors."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": MEDIA_ENVELOPE}
        return await self.request("POST", "/v1/descriptors", data=envelope, headers=headers)

    async def ask(self, ask: Ask | bytes, *, ctx: bytes | None = None, shard: int = 0) -> Reply:
        """POST …/ask."""
        if isinstance(ask, Ask):
            ctx, shard, ask = ask.ctx, ask.shard, ask.encode()
        assert ctx is not None
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": MEDIA_ASK}
        path = f"/v1/rounds/{ctx.hex()}/shards/{shard}/ask"
        return await self.request("POST", path, data=ask, headers=headers)

    async def fetch(self, ctx: bytes, shard: int = 0) -> Reply:
        """GET …/answer."""
        return await self.request("GET", f"/v1/rounds/{ctx.hex()}/shards/{shard}/answer")

    async def signed_round(self, **changes: Any) -> Descriptor:
        """A round that this helper has signed."""
        descriptor = make_descriptor(self.identity, await self.make_key(), **changes)
        reply = await self.sign(envelope_of(descriptor))
        assert reply.status == 200, reply
        return descriptor

    async def computed(self) -> None:
        """Waits until no answer is being computed."""
        tasks = self.app[ANSWERS]._tasks
        if tasks:
            await asyncio.wait(tasks)


class Bench:
    """A state directory, a configuration and a time; helpers are started over them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.state_dir.mkdir()
        write_private(self.state_dir / "identity", secret("this helper"))
        self.identity = init_state(self.state_dir)
        self.config = make_config(self.state_dir)
        self.time = FakeTime()

    def configure(self, **changes: Any) -> None:
        """Changes the configuration of helpers started from now on."""
        self.config = make_config(self.state_dir, **changes)

    @property
    def roots(self) -> Path:
        """The directory of root files."""
        return self.state_dir / ROOTS

    @property
    def database(self) -> Path:
        """The database file."""
        return self.state_dir / DATABASE

    @asynccontextmanager
    async def helper(
        self, state_dir: Path | None = None, *, limits: HttpLimits | None = None
    ) -> AsyncIterator[Running]:
        """A helper on a socket of its own, over a copy of the state if one is named."""
        config = self.config.model_copy(update={"state_dir": state_dir or self.state_dir})
        app = make_app(config, clock=lambda: self.time.now, steady=lambda: self.time.steady)
        app[LIMITS] = limits or app[LIMITS]
        runner = Runner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            async with aiohttp.ClientSession() as session:
                yield Running(runner, session, f"http://{host}:{port}", self.identity)
        finally:
            await runner.cleanup()

    async def answered(self, helper: Running, ask: Ask) -> bytes:
        """The answer's bytes, waiting and moving the steady clock as needed."""
        reply = await helper.ask(ask)
        assert reply.status == 202, reply
        await helper.computed()
        self.time.steady += 1_000
        reply = await helper.fetch(ask.ctx, ask.shard)
        assert reply.status == 200, reply
        return reply.body

    def copy(self, name: str) -> Path:
        """A copy of the state directory as it is now: a snapshot, or what a kill leaves."""
        return copy_state(self.state_dir, self.directory / name)

    def record(self) -> tuple[object, ...]:
        """Everything recorded: all rows of all tables, and the names of the roots."""
        with closing(sqlite3.connect(self.database)) as db:
            tables = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE sql > ''")]
            names = sorted(name for name in tables if db.execute(_IS_TABLE, (name,)).fetchone())
            rows = [tuple(db.execute(f"SELECT * FROM {name} ORDER BY 1, 2")) for name in names]
        return (*rows, *sorted(path.name for path in self.roots.iterdir()))

    def entries(self) -> list[tuple[str, int]]:
        """Kind and shard of every ledger entry."""
        with closing(sqlite3.connect(self.database)) as db:
            return list(db.execute("SELECT kind, shard FROM ledger ORDER BY seq"))


_IS_TABLE = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?"


def copy_state(source: Path, target: Path) -> Path:
    """Copies a state directory, replacing what is there."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def closed(bench: Bench, descriptor: Descriptor) -> None:
    """Moves the time to the end of a round's collection."""
    bench.time.now = descriptor.closes


def answer_in(body: bytes, descriptor: Descriptor) -> Answer:
    """The answer message of a reply."""
    return Answer.decode(body, descriptor.payload_bytes)


def mutated(descriptor: Descriptor, change: Callable[[bytes], bytes]) -> bytes:
    """A signed partial envelope around changed descriptor bytes, valid or not."""
    data = change(descriptor.encode())
    signature = sign(COLLECTOR_SEED, "descriptor", hashlib.sha256(data).digest())
    return len(data).to_bytes(4, "big") + data + signature
