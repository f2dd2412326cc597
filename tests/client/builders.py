"""A deployment in memory, rounds of it, and clients for it."""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from time import monotonic

from client_py.client import Client, Patience
from client_py.config import PinnedConfig, Policy
from client_py.store import ClientStore, MemoryStore
from client_py.transport import Reply, Transport
from dandelion.descriptor import Descriptor, Envelope, HelperEntry, sign_descriptor
from dandelion.encoding import identity_of
from dandelion.privacy import accounting
from dandelion.queries.measures import Row
from dandelion.queries.plan import Plan
from dandelion.queries.schema import Registry
from dandelion.queries.sql import Compiled, compile_query
from dandelion.schemes import oneshot

NOW = 1_800_000_000
SQL = "SELECT carrier, COUNT(*), AVG(dep_delay) FROM flight GROUP BY carrier"
EPSILON = "1"
DELTA = "1e-8"
ROWS: Mapping[str, Sequence[Row]] = {"flight": [{"carrier": "UA", "dep_delay": 7}]}


def seed(name: str) -> bytes:
    """32 bytes that depend on a name."""
    return sha256(name.encode()).digest()


@dataclass(frozen=True)
class Party:
    """A helper's identity seed and round root."""

    name: str

    @property
    def identity_seed(self) -> bytes:
        return seed(f"{self.name} identity")

    @property
    def identity(self) -> bytes:
        return identity_of(self.identity_seed)

    def entry(self, number: int) -> HelperEntry:
        """Its line in the descriptor of round `number`."""
        root = seed(f"{self.name} root {number}")
        return HelperEntry(self.identity, oneshot.round_keys(root)[1])


@dataclass(frozen=True)
class Deployment:
    """A collector and its helpers, who sign what they are told to."""

    helpers: tuple[Party, ...] = (Party("a"), Party("b"))
    collector_seed: bytes = field(default_factory=lambda: seed("collector"))

    @property
    def collector(self) -> bytes:
        return identity_of(self.collector_seed)

    def config(self, endpoint: str = "http://127.0.0.1:1") -> PinnedConfig:
        """The pins of this deployment."""
        return PinnedConfig(
            endpoint, self.collector, tuple(sorted(each.identity for each in self.helpers))
        )

    def descriptor(self, number: int = 1, sql: str = SQL, **changes: object) -> Descriptor:
        """The descriptor of round `number`."""
        compiled, noise_var = _compiled(sql)
        ordered = sorted(self.helpers, key=lambda each: each.identity)
        descriptor = Descriptor(
            suite=1,
            opens=NOW - 60 + number,
            closes=NOW + 3_600,
            expires=NOW + 7_200,
            slots=compiled.slots,
            width=compiled.width(2_000, noise_var, len(self.helpers)),
            shard_bits=0,
            cohort_min=1_000,
            cohort_max=2_000,
            linf=compiled.linf,
            l2sq=compiled.l2sq,
            noise_var=noise_var,
            scope="public",
            collector=self.collector,
            helpers=tuple(each.entry(number) for each in ordered),
            plan=compiled.plan_bytes,
        )
        return replace(descriptor, **changes)  # type: ignore[arg-type]

    def envelope(self, descriptor: Descriptor) -> bytes:
        """A descriptor with everybody's signature."""
        signers = [self.collector_seed]
        signers += [
            each.identity_seed for each in sorted(self.helpers, key=lambda each: each.identity)
        ]
        signatures = tuple(sign_descriptor(descriptor, each) for each in signers)
        return Envelope(descriptor, signatures).encode()

    def round(self, number: int = 1, **changes: object) -> bytes:
        """The envelope of round `number`."""
        return self.envelope(self.descriptor(number, **changes))  # type: ignore[arg-type]


@lru_cache(maxsize=16)
def _compiled(sql: str) -> tuple[Compiled, int]:
    """A query and the noise of its round, since most tests ask for the same one."""
    compiled = compile_query(
        sql, Registry.example(), name="carrier-delay", epsilon=EPSILON, delta=DELTA
    )
    return compiled, accounting.noise_var_for(compiled.l2sq, float(EPSILON), float(DELTA))


@dataclass
class Clock:
    """Time that passes only by sleeping."""

    now: float = NOW
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Lets time pass."""
        self.slept.append(seconds)
        self.now += seconds


class FakeTransport:
    """Answers from a script, the last one for ever; keeps every body that was sent."""

    def __init__(self, *script: Reply | Exception, listing: Reply | None = None) -> None:
        self._script = list(script) or [Reply(201)]
        self._listing = listing or Reply(200, b'{"rounds":[]}')
        self.bodies: list[bytes] = []
        self.listings = 0
        self.on_post: Callable[[], None] = lambda: None

    async def get_rounds(self) -> Reply:
        self.listings += 1
        return self._listing

    async def post_report(self, round_id: bytes, body: bytes) -> Reply:
        self.on_post()
        self.bodies.append(body)
        await asyncio.sleep(0)  # as any answer over a network lets others run
        answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def make_client(
    transport: Transport,
    *,
    store: ClientStore | None = None,
    policy: Policy | None = None,
    config: PinnedConfig | None = None,
    clock: Clock | None = None,
    steady: Callable[[], float] = monotonic,
    patience: Patience | None = None,
    rng_seed: int = 1,
    random_bytes: Callable[[int], bytes] | None = None,
) -> Client:
    """A client of the default deployment, with repeatable coins and a clock that stands still."""
    time = clock or Clock()
    sleep: Callable[[float], Awaitable[None]] = time.sleep
    return Client(
        config or Deployment().config(),
        policy or Policy(),
        store if store is not None else MemoryStore(ROWS),
        transport,
        patience=patience or Patience(step_s=0),
        clock=time,
        steady=steady,
        rng=random.Random(rng_seed),
        sleep=sleep,
        random_bytes=random_bytes or secrets.token_bytes,
    )


def unmasked(descriptor: Descriptor, body: bytes) -> list[int]:
    """The vector inside a report for round 1 of the default deployment: what all helpers together
    could see, and nobody should.
    """
    import numpy as np

    from dandelion import kernel
    from dandelion.params import REPORT_HEADER_BYTES

    epk = body[17:REPORT_HEADER_BYTES]
    payload = body[REPORT_HEADER_BYTES:]
    ordered = sorted(Deployment().helpers, key=lambda each: each.identity)
    masks = []
    for party, each in enumerate(ordered, start=1):
        secret, _ = oneshot.round_keys(seed(f"{each.name} root 1"))
        masks.append(
            kernel.mask_sum(
                descriptor.suite,
                descriptor.width,
                descriptor.slots,
                descriptor.ctx,
                party,
                secret,
                epk,
                1,
            )
        )
    plain = kernel.sub_payloads(payload, masks, 0, descriptor.width)
    return [int(v) for v in np.frombuffer(kernel.unpack(plain, descriptor.width), dtype="<i8")]


def plan_of(descriptor: Descriptor) -> Plan:
    """The parsed plan of a descriptor."""
    return Plan.parse(descriptor.plan)
