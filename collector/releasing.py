"""From a sealed round to its one release: asks, answers, artefact (docs/protocol.md 6 and 8).

The ask is a function of what the seal stored, so a collector that restarts asks for the same set
with the same sum. An answer is verified before it is kept. The artefact is verified as a stranger
would verify it before it is stored, and stored before anybody reads it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from collector.registry import RoundRow, Seal
from collector.scheme import scheme_of
from dandelion.descriptor import Descriptor, Envelope
from dandelion.errors import WireError
from dandelion.messages import Answer, Ask, Release, ShardRelease
from dandelion.params import HASH_BYTES, SIGNATURE_BYTES
from dandelion.queries.decode import decode
from dandelion.queries.plan import Plan
from dandelion.verify import verify_release

# Version, ctx, party, shard, n, set, sum: what stands before R in an answer (section 6).
_ANSWER_HEAD_BYTES = 1 + HASH_BYTES + 1 + 2 + 4 + HASH_BYTES + HASH_BYTES


def make_ask(descriptor: Descriptor, seal: Seal, seed: bytes) -> Ask:
    """The ask for a sealed set."""
    return Ask.create(descriptor.ctx, seal.shard, seal.keys, seal.y, seed)


def answer_bytes(descriptor: Descriptor) -> int:
    """Length of an answer."""
    return _ANSWER_HEAD_BYTES + descriptor.payload_bytes + SIGNATURE_BYTES


def read_answer(descriptor: Descriptor, ask: Ask, party: int, body: bytes) -> Answer:
    """A helper's answer, verified against the ask.

    Raises:
        WireError: its layout, `bad_answer`, `bad_signature`.
    """
    answer = Answer.decode(body, descriptor.payload_bytes)
    answer.check(ask, party, descriptor.helpers[party - 1].identity)
    return answer


def make_release(
    row: RoundRow,
    seals: Sequence[Seal],
    answers: Mapping[tuple[int, int], tuple[bytes, bytes]],
    seed: bytes,
) -> tuple[bytes, dict[str, Any]]:
    """The artefact of a round whose answers are all there, and its table.

    Args:
        row: the round.
        seals: its sets, by shard.
        answers: (R, signature) by (shard, party).
        seed: the collector's identity seed.

    Raises:
        WireError: `implausible` or another token of section 8: set, sum and answers disagree.
    """
    d = row.descriptor
    parties = range(1, d.m + 1)
    shards = []
    for seal in seals:
        given = tuple(answers[seal.shard, party] for party in parties)
        # Judged first: what is implausible is not even signed.
        scheme_of(d).unmask(d, seal.y, [r for r, _ in given], seal.n)
        shards.append(ShardRelease(seal.shard, seal.n, seal.set_digest, seal.y, given))
    envelope = Envelope.decode(row.round.envelope)
    artefact = Release.create(d, envelope.signatures, tuple(shards), seed).encode()
    return artefact, summarise(row.round.query, artefact)


def summarise(query: str, artefact: bytes) -> dict[str, Any]:
    """The table of an artefact (section 15.4), with what it promises and where it comes from.

    Raises:
        WireError: the artefact does not verify.
    """
    verified = verify_release(artefact)
    d = verified.release.descriptor
    plan = Plan.parse(d.plan)
    if plan.query != query:
        raise WireError("bad_release", "another query")
    count = len(verified.release.shards)
    table = decode(plan, verified.sums, verified.n, count * d.m * d.noise_var)
    return table.to_object() | {
        "round": d.round_id.hex(),
        "sql": plan.sql,
        "epsilon": verified.epsilon,
        "delta": verified.delta,
        "shards": count,
        "opens": d.opens,
        "closes": d.closes,
        "sha256": hashlib.sha256(artefact).hexdigest(),
    }
