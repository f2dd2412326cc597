"""What a store of open rounds must do, and a store in memory that is the model for all of them.

A round is spread over **lanes**: one per release shard and storage partition. A collector process
that starts takes a new **epoch** in a lane and from then on overwrites one absolute running sum,
numbered by `seq`; the sum of a lane is the sum over its epochs. Section 10.4 of docs/protocol.md
rests on `commit`: one atomic step that stores report keys, running sum and sequence number, or
nothing.

Leaves out: batching and retries (`committer`), and everything that must survive the store
(`database`).
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Final, NamedTuple, Protocol

from dandelion.descriptor import Descriptor
from dandelion.params import COMMIT_REPORTS_MAX, KEY_BYTES

CHECK_BYTES: Final = 4
SECRET_BYTES: Final = 16
# Small hashes are stored as one block of bytes as long as they have few entries.
BUCKET_REPORTS: Final = 100
# A bucket of 100 on average exceeds this with a probability below 1e-20.
BUCKET_REPORTS_MAX: Final = 256
# A round this small does not gain from several partitions.
PARTITION_REPORTS_MIN: Final = 1_000


class StoreUnavailable(Exception):
    """The store did not answer, or refused before doing anything; whether it acted is unknown.

    `kind` is a word for logs and metrics, never a message that could carry a key.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class StoreLost(Exception):
    """The store has forgotten something it had confirmed: the round is damaged (section 9)."""


class LanePhase(StrEnum):
    """Phase of a lane. `gone` is a lane that the store does not hold."""

    OPEN = "open"
    CLOSING = "closing"
    SEALED = "sealed"
    DAMAGED = "damaged"
    GONE = "gone"


# What a lane may become; everything else leaves it as it is.
LANE_STEPS: Final = {
    LanePhase.CLOSING: frozenset({LanePhase.OPEN}),
    LanePhase.SEALED: frozenset({LanePhase.OPEN, LanePhase.CLOSING}),
    LanePhase.DAMAGED: frozenset({LanePhase.OPEN, LanePhase.CLOSING, LanePhase.SEALED}),
}
LANE_COMMITTING: Final = frozenset({LanePhase.OPEN, LanePhase.CLOSING})


@dataclass(frozen=True)
class Lane:
    """Where reports of one release shard and storage partition are added up."""

    round_id: bytes
    shard: int
    partition: int

    @property
    def name(self) -> str:
        """Text form, unique within the round."""
        return f"{self.shard}.{self.partition}"


@dataclass(frozen=True)
class Layout:
    """How a round is spread over lanes, and a lane over buckets of report keys.

    Partition and bucket follow from a hash under `secret` (16 bytes), so nobody outside can aim
    at one.
    """

    round_id: bytes
    shards: int
    partitions: int
    capacity: int  # reports in one lane, at most
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, descriptor: Descriptor, partitions: int, secret: bytes) -> "Layout":
        """The layout of a round; small rounds use fewer partitions than asked for."""
        partitions = max(1, min(partitions, descriptor.cohort_max // PARTITION_REPORTS_MIN))
        capacity = descriptor.cohort_max // partitions
        return cls(descriptor.round_id, descriptor.shards, partitions, capacity, secret)

    @cached_property
    def buckets(self) -> int:
        """Buckets of one lane: about `BUCKET_REPORTS` keys in each when the lane is full."""
        return -(-self.capacity // BUCKET_REPORTS)

    @cached_property
    def lanes(self) -> tuple[Lane, ...]:
        """All lanes, by shard and then partition."""
        return tuple(
            Lane(self.round_id, shard, partition)
            for shard in range(self.shards)
            for partition in range(self.partitions)
        )

    def place(self, epk: bytes, shard: int) -> tuple[Lane, int]:
        """Lane and bucket of a report key (32 bytes) that belongs to a release shard."""
        mark = hashlib.blake2b(epk, digest_size=16, key=self.secret).digest()
        partition = int.from_bytes(mark[:8], "big") % self.partitions
        bucket = int.from_bytes(mark[8:], "big") % self.buckets
        return self.lanes[shard * self.partitions + partition], bucket


@dataclass(frozen=True)
class Epoch:
    """One incarnation of a collector process in one lane.

    `who` (16 random bytes) tells two incarnations apart if the store should ever hand out a
    number twice.
    """

    number: int
    who: bytes


class Entry(NamedTuple):
    """A report as the store sees it: key (32 bytes), check of its payload (4 bytes), bucket."""

    epk: bytes
    check: bytes
    bucket: int


class Code(StrEnum):
    """How a commit ended."""

    OK = "OK"
    ALREADY = "ALREADY"  # this sequence number was committed before
    DUP = "DUP"  # nothing written: keys at `positions` are taken
    FULL = "FULL"  # nothing written: the lane takes `room` more reports
    SEALED = "SEALED"  # nothing written: the lane takes no more reports


@dataclass(frozen=True)
class CommitResult:
    """`positions` holds (index of the entry, whether the same payload was committed) for DUP."""

    code: Code
    positions: tuple[tuple[int, bool], ...] = ()
    room: int = 0


@dataclass(frozen=True)
class LaneStatus:
    """Phase, number of reports, and the number of the newest epoch."""

    phase: LanePhase
    count: int = 0
    epochs: int = 0


@dataclass(frozen=True)
class EpochMeta:
    """What an epoch has committed: last sequence number and number of reports."""

    epoch: Epoch
    seq: int
    n: int


class RoundStore(Protocol):
    """Every method raises `StoreUnavailable`; those that name an epoch or lane also `StoreLost`."""

    async def open_lane(self, layout: Layout, lane: Lane) -> None:
        """Creates a lane in phase `open`; one that exists is left alone."""

    async def status(self, lane: Lane) -> LaneStatus:
        """Where the lane stands."""

    async def step(self, lane: Lane, to: LanePhase) -> LaneStatus:
        """Moves the lane as far as `LANE_STEPS` allows and says where it stands then."""

    async def new_epoch(self, lane: Lane, who: bytes) -> Epoch | None:
        """A number no incarnation has had; None if the lane takes no more reports."""

    async def commit(
        self, lane: Lane, epoch: Epoch, seq: int, entries: Sequence[Entry], total: bytes
    ) -> CommitResult:
        """Stores the entries, the epoch's running sum and its `seq`, or nothing.

        The result depends on what was stored under `seq` alone: calling again is harmless.
        """

    async def lookup(self, lane: Lane, bucket: int, epk: bytes) -> bytes | None:
        """Check of a committed report."""

    async def metas(self, lane: Lane) -> tuple[EpochMeta, ...]:
        """What each epoch of the lane has committed, by epoch number."""

    async def keys(self, layout: Layout, lane: Lane) -> list[bytes]:
        """All report keys of a lane, in no order."""

    async def sums(self, lane: Lane) -> list[bytes]:
        """Running sums of those epochs that committed anything."""

    async def expire_at(self, layout: Layout, at: int) -> None:
        """Lets the store forget the round at `at`, Unix seconds, by itself."""

    async def purge(self, layout: Layout) -> None:
        """Deletes all lanes of the round."""

    async def compact(self) -> None:
        """Begins to remove deleted and overwritten values from the store's files.

        `StoreUnavailable` if it cannot begin now, for example because it is at it already.
        """

    async def publish(self, round_id: bytes, record: bytes) -> None:
        """Puts a round into the list that ingest processes follow."""

    async def withdraw(self, round_id: bytes) -> None:
        """Takes a round off the list."""

    async def version(self) -> int:
        """Changes whenever the list does."""

    async def published(self) -> dict[bytes, bytes]:
        """The list: record by round id."""

    async def ping(self) -> None:
        """Returns if the store is there and ready."""

    async def close(self) -> None:
        """Lets go of connections."""


def check_of(payload: bytes | memoryview) -> bytes:
    """What the store keeps of a payload, to notice another one under the same key later."""
    return hashlib.sha256(payload).digest()[:CHECK_BYTES]


@dataclass
class _EpochState:
    who: bytes
    seq: int = 0
    n: int = 0
    total: bytes | None = None


@dataclass
class _LaneState:
    capacity: int
    phase: LanePhase = LanePhase.OPEN
    seen: dict[bytes, bytes] = field(default_factory=dict)
    epochs: dict[int, _EpochState] = field(default_factory=dict)


class MemoryStore:
    """A `RoundStore` in this process: the model, and the store of simulations."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, _LaneState] = {}
        self._published: dict[bytes, bytes] = {}
        self._version = 0

    async def open_lane(self, layout: Layout, lane: Lane) -> None:
        self._lanes.setdefault(lane, _LaneState(layout.capacity))

    async def status(self, lane: Lane) -> LaneStatus:
        state = self._lanes.get(lane)
        if state is None:
            return LaneStatus(LanePhase.GONE)
        return LaneStatus(state.phase, len(state.seen), len(state.epochs))

    async def step(self, lane: Lane, to: LanePhase) -> LaneStatus:
        state = self._lanes.get(lane)
        if state is not None and state.phase in LANE_STEPS[to]:
            state.phase = to
        return await self.status(lane)

    async def new_epoch(self, lane: Lane, who: bytes) -> Epoch | None:
        state = self._held(lane)
        if state.phase not in LANE_COMMITTING:
            return None
        number = len(state.epochs) + 1
        state.epochs[number] = _EpochState(who)
        return Epoch(number, who)

    async def commit(
        self, lane: Lane, epoch: Epoch, seq: int, entries: Sequence[Entry], total: bytes
    ) -> CommitResult:
        if not 1 <= len(entries) <= COMMIT_REPORTS_MAX:
            raise ValueError("a commit holds 1 to COMMIT_REPORTS_MAX reports")
        # Others get their turn, as they do while a real store is asked.
        await asyncio.sleep(0)
        lane_state = self._held(lane)
        state = lane_state.epochs.get(epoch.number)
        if state is None or state.who != epoch.who:
            raise StoreLost("epoch")
        if seq <= state.seq:
            return CommitResult(Code.ALREADY)
        if lane_state.phase not in LANE_COMMITTING:
            return CommitResult(Code.SEALED)
        if seq != state.seq + 1:
            raise StoreLost("gap")
        fresh: dict[bytes, bytes] = {}
        taken = []
        for position, entry in enumerate(entries):
            stored = fresh.get(entry.epk, lane_state.seen.get(entry.epk))
            if stored is None:
                fresh[entry.epk] = entry.check
            else:
                taken.append((position, stored == entry.check))
        if taken:
            return CommitResult(Code.DUP, tuple(taken))
        room = lane_state.capacity - len(lane_state.seen)
        if len(entries) > room:
            return CommitResult(Code.FULL, room=room)
        lane_state.seen |= fresh
        state.seq, state.n, state.total = seq, state.n + len(entries), total
        return CommitResult(Code.OK)

    async def lookup(self, lane: Lane, bucket: int, epk: bytes) -> bytes | None:
        state = self._lanes.get(lane)
        return None if state is None else state.seen.get(epk)

    async def metas(self, lane: Lane) -> tuple[EpochMeta, ...]:
        return tuple(
            EpochMeta(Epoch(number, state.who), state.seq, state.n)
            for number, state in sorted(self._held(lane).epochs.items())
        )

    async def keys(self, layout: Layout, lane: Lane) -> list[bytes]:
        return list(self._held(lane).seen)

    async def sums(self, lane: Lane) -> list[bytes]:
        states = self._held(lane).epochs.values()
        return [state.total for state in states if state.total is not None]

    async def expire_at(self, layout: Layout, at: int) -> None:
        """Does nothing: this store has no clock, and its rounds are purged by hand."""

    async def purge(self, layout: Layout) -> None:
        for lane in layout.lanes:
            self._lanes.pop(lane, None)

    async def compact(self) -> None:
        """Does nothing: there are no files."""

    async def publish(self, round_id: bytes, record: bytes) -> None:
        self._published[round_id] = record
        self._version += 1

    async def withdraw(self, round_id: bytes) -> None:
        self._published.pop(round_id, None)
        self._version += 1

    async def version(self) -> int:
        return self._version

    async def published(self) -> dict[bytes, bytes]:
        return dict(self._published)

    async def ping(self) -> None:
        """Returns: this store is always there."""

    async def close(self) -> None:
        """Does nothing: there are no connections."""

    def _held(self, lane: Lane) -> _LaneState:
        state = self._lanes.get(lane)
        if state is None or state.phase is LanePhase.DAMAGED:
            raise StoreLost("lane")
        return state


assert KEY_BYTES == 32  # noqa: S101 - scripts/commit.lua cuts the packed keys at this length
