"""Sealing a round: from lanes in the store to one fixed set and one sum per release shard.

docs/protocol.md sections 6 and 9. Every step can be repeated: a sealed lane takes no more commits,
so what is read afterwards is always the same. Three counts must agree (the keys, what each epoch
says it committed, the lane's own), and no process may have acknowledged more than the store holds.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np

from collector.anchors import Anchor, losses
from collector.registry import Seal
from collector.scheme import Scheme
from collector.store import (
    LANE_COMMITTING,
    Lane,
    LanePhase,
    Layout,
    RoundStore,
    StoreLost,
    StoreUnavailable,
)
from dandelion.descriptor import Descriptor
from dandelion.errors import DandelionError, WireError
from dandelion.messages import set_digest
from dandelion.params import KEY_BYTES


class Damaged(Exception):
    """The store no longer holds what was acknowledged. `reason` is for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def seal_round(
    store: RoundStore,
    scheme: Scheme,
    descriptor: Descriptor,
    layout: Layout,
    anchors: Sequence[Anchor],
) -> list[Seal]:
    """Seals every lane and returns the shards that reach cohort_min, by number.

    Raises:
        Damaged: something that was acknowledged is missing.
        StoreUnavailable: try again.
    """
    try:
        for lane in layout.lanes:
            status = await store.step(lane, LanePhase.SEALED)
            if status.phase is not LanePhase.SEALED:
                raise Damaged(f"lane {lane.name} is {status.phase}")
        found = []
        for shard in range(descriptor.shards):
            lanes = [lane for lane in layout.lanes if lane.shard == shard]
            keys, sums = await _read(store, layout, lanes, anchors)
            if len(keys) >= descriptor.cohort_min * KEY_BYTES:
                fix = partial(_fix, scheme, descriptor, shard, keys, sums)
                found.append(await asyncio.to_thread(fix))
    except StoreLost as error:
        raise Damaged(f"the store lost a {error}") from None
    return found


async def check_seals(store: RoundStore, layout: Layout, seals: Sequence[Seal]) -> None:
    """Sees to it, before a release, that no report was acknowledged after its set was fixed.

    A failover may have forgotten the seal, so that a commit that came late was taken.

    Raises:
        Damaged: the store holds a report that its shard's set does not have.
        StoreUnavailable: try again.
    """
    try:
        for seal in seals:
            for lane in (lane for lane in layout.lanes if lane.shard == seal.shard):
                if (await store.status(lane)).phase not in LANE_COMMITTING:
                    continue
                await store.step(lane, LanePhase.SEALED)
                at = range(0, len(seal.keys), KEY_BYTES)
                fixed = {seal.keys[start : start + KEY_BYTES] for start in at}
                if not fixed.issuperset(await store.keys(layout, lane)):
                    raise Damaged(f"lane {lane.name} took reports after the seal")
    except StoreLost as error:
        raise Damaged(f"the store lost a {error}") from None


async def _read(
    store: RoundStore, layout: Layout, lanes: Sequence[Lane], anchors: Sequence[Anchor]
) -> tuple[bytes, list[bytes]]:
    """Keys, in no order, and running sums of one shard, after their counts have been compared."""
    keys: list[bytes] = []
    sums: list[bytes] = []
    for lane in lanes:
        metas = await store.metas(lane)
        if losses(anchors, lane, metas):
            raise Damaged(f"lane {lane.name} is behind what was acknowledged")
        lane_keys = await store.keys(layout, lane)
        lane_sums = await store.sums(lane)
        status = await store.status(lane)
        if status.phase in LANE_COMMITTING:
            # A failover has forgotten the seal: commits may have come between these reads.
            raise StoreUnavailable("Unsealed")
        counts = {len(lane_keys), sum(meta.n for meta in metas), status.count}
        if len(counts) != 1:
            raise Damaged(f"keys and sums of lane {lane.name} disagree")
        # One block of bytes for each lane: a million objects would take three times the memory.
        keys.append(await asyncio.to_thread(b"".join, lane_keys))
        sums += lane_sums
    return b"".join(keys), sums


def _fix(
    scheme: Scheme, descriptor: Descriptor, shard: int, keys: bytes, sums: list[bytes]
) -> Seal:
    if any(len(total) != descriptor.payload_bytes for total in sums):
        raise Damaged(f"a sum of shard {shard} has the wrong length")
    try:
        keys = ascending(keys)
        # What a helper would refuse would be an ask wasted on a set that cannot be mended. A key
        # that two buckets hold is refused as well: the counts cannot tell it from two keys.
        scheme.check_keys(descriptor, shard, keys)
    except DandelionError as error:
        raise Damaged(f"the keys of shard {shard} are refused: {error.token}") from None
    digest = set_digest(descriptor.ctx, shard, keys)
    n = len(keys) // KEY_BYTES
    return Seal(shard, n, digest, scheme.add_sums(descriptor, sums), keys)


def ascending(keys: bytes) -> bytes:
    """The same keys, n * 32 bytes, in order.

    Raises:
        WireError: `truncated` if they are not whole keys.
    """
    if len(keys) % KEY_BYTES:
        raise WireError("truncated")
    # Sorting a list would hold the interpreter, and with it every answer to a client, for the best
    # part of a second. Arrays of bytes are compared as bytes, and without the interpreter.
    return np.sort(np.frombuffer(keys, dtype=f"S{KEY_BYTES}")).tobytes()
