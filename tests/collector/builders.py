"""Small parts that tests of the collector put together: a descriptor, reports, faulty stores."""

import hashlib
import time
from collections.abc import Sequence

from collector.store import (
    CommitResult,
    Entry,
    Epoch,
    Lane,
    Layout,
    MemoryStore,
    StoreUnavailable,
    check_of,
)
from dandelion import kernel
from dandelion.descriptor import Descriptor, Envelope, HelperEntry, sign_descriptor
from dandelion.encoding import identity_of
from dandelion.messages import Report
from dandelion.schemes import oneshot
from tests.oracle_membership import one_hot

COLLECTOR_SEED = hashlib.sha256(b"collector").digest()
HELPER_SEEDS = tuple(hashlib.sha256(b"helper %d" % number).digest() for number in (1, 2))


def seed(text: str) -> bytes:
    """32 bytes that follow from a name."""
    return hashlib.sha256(text.encode()).digest()


def descriptor_for(slots: int = 64, *, closes_in: int = 3_600, **changes: object) -> Descriptor:
    """A valid descriptor of a round that is open now and has one slot per client."""
    now = int(time.time())
    mask_keys = [oneshot.round_keys(seed(f"root {number}"))[1] for number in (1, 2)]
    helpers = sorted(
        (
            HelperEntry(identity_of(key), mask)
            for key, mask in zip(HELPER_SEEDS, mask_keys, strict=True)
        ),
        key=lambda helper: helper.identity,
    )
    fields: dict[str, object] = {
        "suite": 1,
        "opens": now,
        "closes": now + closes_in,
        "expires": now + closes_in + 3_600,
        "slots": slots,
        "width": 32,
        "shard_bits": 0,
        "cohort_min": 1,
        "cohort_max": 10_000,
        "linf": 1,
        "l2sq": 1,
        "noise_var": 1,
        "scope": "test",
        "collector": identity_of(COLLECTOR_SEED),
        "helpers": tuple(helpers),
        "plan": b"{}",
    }
    return Descriptor(**(fields | changes))  # type: ignore[arg-type]


def envelope_for(descriptor: Descriptor) -> bytes:
    """The descriptor with the signatures of everybody in it."""
    seeds = {identity_of(key): key for key in (COLLECTOR_SEED, *HELPER_SEEDS)}
    signers = (descriptor.collector, *(helper.identity for helper in descriptor.helpers))
    signatures = tuple(sign_descriptor(descriptor, seeds[signer]) for signer in signers)
    return Envelope(descriptor, signatures).encode()


def epk_of(client: int) -> bytes:
    """The report key of client number `client`."""
    return kernel.x25519_public(seed(f"client {client}"))


def plain_report(descriptor: Descriptor, client: int) -> Report:
    """The report of a client that sets its own coordinate, without masks: sums can be read."""
    payload = kernel.pack(one_hot(descriptor.slots, client), descriptor.width)
    return Report(descriptor.round_id, epk_of(client), payload)


def entry_of(report: Report, layout: Layout) -> Entry:
    """What a store is given for a report of release shard 0."""
    _, bucket = layout.place(report.epk, 0)
    return Entry(report.epk, check_of(report.payload), bucket)


class FaultyStore(MemoryStore):
    """Fails as told: `faults` holds one word per call of `commit`, used up from the front.

    `before` fails without acting; `after` acts, then loses the answer. `blocked` fails every call.
    """

    def __init__(self, faults: Sequence[str] = ()) -> None:
        super().__init__()
        self.faults = list(faults)
        self.blocked = False
        self.commits: list[tuple[int, tuple[bytes, ...], bytes]] = []

    async def commit(
        self, lane: Lane, epoch: Epoch, seq: int, entries: Sequence[Entry], total: bytes
    ) -> CommitResult:
        fault = self.faults.pop(0) if self.faults else ""
        self.commits.append((seq, tuple(entry.epk for entry in entries), total))
        if self.blocked or fault == "before":
            raise StoreUnavailable("before")
        result = await super().commit(lane, epoch, seq, entries, total)
        if fault == "after":
            raise StoreUnavailable("after")
        return result
