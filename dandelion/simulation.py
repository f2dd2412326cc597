"""A whole round in memory: clients, collector and helpers without network, disk or clock.

For reading the protocol as a program, for attacks in tests, and for trying parameters. It keeps the
rules that make the sums right; what makes a service (durability, time, authentication) it leaves
out. Randomness is an argument.

`released_sums` is the same round without cryptography, for millions of clients in seconds: the sums
of their rows with the noise that helpers add, drawn as they draw it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dandelion import kernel
from dandelion.descriptor import Descriptor, Envelope, HelperEntry, sign_descriptor
from dandelion.encoding import identity_of
from dandelion.errors import RuleError, WireError
from dandelion.messages import Answer, Ask, Release, Report, ShardRelease
from dandelion.params import KEY_BYTES, SEED_BYTES, SUITE_X25519_CHACHA20
from dandelion.schemes import oneshot

RandomBytes = Callable[[int], bytes]


@dataclass
class MemoryHelper:
    """A helper for one round: one root, one answer per shard."""

    identity_seed: bytes
    root: bytes
    answered: dict[int, Answer] = field(default_factory=dict)

    @classmethod
    def create(cls, random: RandomBytes) -> "MemoryHelper":
        """A helper with fresh secrets."""
        return cls(random(SEED_BYTES), random(SEED_BYTES))

    @property
    def entry(self) -> HelperEntry:
        """Its line in a descriptor."""
        return HelperEntry(identity_of(self.identity_seed), oneshot.round_keys(self.root)[1])

    def answer(self, descriptor: Descriptor, ask: Ask) -> Answer:
        """Answers once per shard (docs/protocol.md section 6).

        Raises:
            WireError, RuleError: with the tokens of section 6.
        """
        oneshot.check_keys(descriptor, ask.shard, ask.keys)
        ask.verify(descriptor.collector)
        party = descriptor.party_of(identity_of(self.identity_seed))
        before = self.answered.get(ask.shard)
        if before is not None:
            if (before.set_digest, before.sum) != (ask.set_digest, ask.sum):
                raise RuleError("set_conflict")
            return before
        r = oneshot.answer_vector(descriptor, party, self.root, ask.shard, ask.set_digest, ask.keys)
        answer = Answer.create(ask, party, r, self.identity_seed)
        self.answered[ask.shard] = answer
        return answer


@dataclass
class MemoryCollector:
    """A collector for one round: a running sum and a set of keys per shard."""

    seed: bytes
    envelope: Envelope
    sums: dict[int, bytes] = field(default_factory=dict)
    seen: dict[bytes, bytes] = field(default_factory=dict)  # epk -> body

    @property
    def descriptor(self) -> Descriptor:
        """The round."""
        return self.envelope.descriptor

    def accept(self, body: bytes) -> bool:
        """Takes a report; False if it was taken before.

        Raises:
            WireError: as `Report.decode`.
            RuleError: `report_conflict`.
        """
        d = self.descriptor
        report = Report.decode(body, d.round_id, d.report_bytes)
        before = self.seen.get(report.epk)
        if before is not None:
            if before != body:
                raise RuleError("report_conflict")
            return False
        shard = d.shard_of(report.epk)
        self.sums[shard] = oneshot.fold(d, self.sums.get(shard, oneshot.zero(d)), [body])
        self.seen[report.epk] = body
        return True

    def keys(self, shard: int) -> bytes:
        """The set of one shard: n * 32 bytes, ascending."""
        return b"".join(sorted(epk for epk in self.seen if self.descriptor.shard_of(epk) == shard))

    def release(self, helpers: Iterable[MemoryHelper]) -> Release:
        """Asks every helper and publishes.

        Raises:
            RuleError: `cohort_too_small` if no shard reaches cohort_min.
        """
        d = self.descriptor
        ordered = sorted(helpers, key=lambda helper: helper.entry.identity)
        shards = []
        for shard in sorted(self.sums):
            keys = self.keys(shard)
            if len(keys) // KEY_BYTES < d.cohort_min:
                continue
            ask = Ask.create(d.ctx, shard, keys, self.sums[shard], self.seed)
            answers = []
            for party, (helper, entry) in enumerate(zip(ordered, d.helpers, strict=True), start=1):
                answer = helper.answer(d, ask)
                answer.check(ask, party, entry.identity)
                answers.append((answer.r, answer.signature))
            shards.append(
                ShardRelease(shard, ask.n, ask.set_digest, self.sums[shard], tuple(answers))
            )
        if not shards:
            raise RuleError("cohort_too_small")
        return Release.create(d, self.envelope.signatures, tuple(shards), self.seed)


@dataclass(frozen=True)
class MemoryRound:
    """One round's parties."""

    collector: MemoryCollector
    helpers: tuple[MemoryHelper, ...]
    random: RandomBytes

    @classmethod
    def open(
        cls,
        describe: Callable[[bytes, tuple[HelperEntry, ...]], Descriptor],
        random: RandomBytes,
        *,
        helpers: int = 2,
    ) -> "MemoryRound":
        """Opens a round.

        Args:
            describe: the descriptor for a collector identity and the helpers' entries.
            random: returns that many random bytes.
            helpers: how many.
        """
        seed = random(SEED_BYTES)
        made = tuple(MemoryHelper.create(random) for _ in range(helpers))
        ordered = sorted(made, key=lambda helper: helper.entry.identity)
        descriptor = describe(identity_of(seed), tuple(helper.entry for helper in ordered))
        seeds = (seed, *(helper.identity_seed for helper in ordered))
        signatures = tuple(sign_descriptor(descriptor, s) for s in seeds)
        return cls(MemoryCollector(seed, Envelope(descriptor, signatures)), made, random)

    def contribute(self, values: oneshot.Vector) -> bytes:
        """One honest client: checks, masks, sends. Returns the body it sent.

        Raises:
            WireError: `bad_signature` if the envelope does not verify.
        """
        d = Envelope.decode(self.collector.envelope.encode()).descriptor
        if not oneshot.gate(d, values):
            values = np.zeros(d.slots, dtype=np.int64)
        key = oneshot.EphemeralKey(self.random(KEY_BYTES))
        body = oneshot.mask(d, values, key).encode()
        if not self.collector.accept(body):
            raise WireError("bad_release", "a fresh key was seen before")
        return body


def released_sums(
    exact: npt.NDArray[np.int64], noise_var: int, helpers: int, random: RandomBytes
) -> npt.NDArray[np.int64]:
    """What a round would release for these sums (docs/protocol.md section 7).

    Args:
        exact: sums over all clients, shape (slots,), as `dandelion.queries.columns.sums` gives.
        noise_var: variance of one helper's noise per slot.
        helpers: how many add noise.
        random: returns that many random bytes.
    """
    noisy = exact.copy()
    for _ in range(helpers):
        drawn = kernel.discrete_gaussian(
            SUITE_X25519_CHACHA20, random(SEED_BYTES), noise_var, len(exact)
        )
        noisy += np.frombuffer(drawn, dtype="<i8")
    return noisy
