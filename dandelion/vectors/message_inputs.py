"""Inputs of the vectors about messages: envelope, mask, report, ask, answer, release."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from dandelion.descriptor import Descriptor, Envelope, sign_descriptor
from dandelion.encoding import u16, u32
from dandelion.messages import Answer, Ask, Release, Report, ShardRelease
from dandelion.schemes import oneshot
from dandelion.vectors.inputs import (
    COLLECTOR,
    PLAN,
    SMALL_ORDER,
    Named,
    descriptors,
    flip,
    helpers,
    known_answer_descriptor,
    patched,
    seed,
    swap,
)


def _envelope_of(descriptor: Descriptor, helpers: list[tuple[bytes, bytes]]) -> Envelope:
    seeds = [COLLECTOR, *(identity for identity, _ in helpers)]
    return Envelope(descriptor, tuple(sign_descriptor(descriptor, s) for s in seeds))


def _envelope() -> Named:
    data = _envelope_of(known_answer_descriptor(), helpers(2)).encode()
    three = _envelope_of(descriptors()["three helpers"], helpers(3)).encode()
    cases = {
        "two helpers": data,
        "three helpers": three,
        "a flipped bit in the collector's signature": flip(data, 4 + 248),
        "a flipped bit in the first helper's signature": flip(data, 4 + 248 + 64 + 5),
        "a flipped bit in the last signature": flip(data, len(data) - 40),
        "signatures out of order": data[: -2 * 64] + data[-64:] + data[-128:-64],
        "one signature missing": data[:-64],
        "a trailing byte": data + b"\x00",
        "another descriptor under the same signatures": _patched_in_envelope(data),
        "a length beyond the input": b"\xff\xff\xff\xff" + data[4:],
        "a length that cuts the descriptor": u32(247) + data[4:],
        "nothing": b"",
    }
    for name, envelope in cases.items():
        yield name, {"envelope": envelope.hex()}


def _patched_in_envelope(data: bytes) -> bytes:
    return data[:4] + patched(data[4:252], "noise_var", 25) + data[252:]


def _values(descriptor: Descriptor, client: int) -> list[int]:
    rows = {1: [1, 2, 3, -5], 2: [10, 0, 0, 7]}
    return rows.get(client, [client % 100, -(client % 7), 0, 1])[: descriptor.slots]


def _secret(client: int) -> bytes:
    return seed(f"kat client {client}")


def _reports(descriptor: Descriptor, clients: range) -> list[Report]:
    reports = []
    for client in clients:
        values = np.array(_values(descriptor, client), dtype=np.int64)
        reports.append(oneshot.mask(descriptor, values, oneshot.EphemeralKey(_secret(client))))
    return sorted(reports, key=lambda report: report.epk)


def _mask() -> Named:
    for name, descriptor in descriptors().items():
        yield (
            name,
            {
                "descriptor": descriptor.encode().hex(),
                "ephemeral_secret": _secret(1).hex(),
                "values": _values(descriptor, 1),
            },
        )


def _report() -> Named:
    for name, descriptor in descriptors().items():
        body = _reports(descriptor, range(1, 2))[0].encode()
        yield name, {"descriptor": descriptor.encode().hex(), "report": body.hex()}
    descriptor = known_answer_descriptor()
    body = _reports(descriptor, range(1, 2))[0].encode()
    bad = {
        "one byte short": body[:-1],
        "one byte long": body + b"\x00",
        "nothing": b"",
        "the header alone": body[:49],
        "version 2": b"\x02" + body[1:],
        "another round": flip(body, 1),
        "a key with the top bit set": swap(body, 48, bytes([body[48] | 0x80])),
    } | {
        f"small-order key {i}": swap(body, 17, value.to_bytes(32, "little"))
        for i, value in enumerate(SMALL_ORDER)
    }
    for name, data in bad.items():
        yield name, {"descriptor": descriptor.encode().hex(), "report": data.hex()}


def _ask_of(descriptor: Descriptor, reports: list[Report], shard: int = 0) -> Ask:
    y = oneshot.fold(descriptor, oneshot.zero(descriptor), [r.encode() for r in reports])
    keys = b"".join(report.epk for report in reports)
    return Ask.create(descriptor.ctx, shard, keys, y, COLLECTOR)


def _ask() -> Named:
    descriptor = known_answer_descriptor()
    reports = _reports(descriptor, range(1, 3))
    many = _reports(descriptor, range(1, 12))
    good = _ask_of(descriptor, reports)
    data = good.encode()
    keys_at = 1 + 32 + 2 + 4 + 32 + 64
    sharded = descriptors()["sixteen shards"]
    other = _reports(sharded, range(1, 30))
    first = [r for r in other if sharded.shard_of(r.epk) == sharded.shard_of(other[0].epk)][:2]
    shard = sharded.shard_of(first[0].epk)
    tight = replace(descriptor, cohort_max=10)
    cases = {
        "two reports": (descriptor, data),
        "eleven reports": (descriptor, _ask_of(descriptor, many).encode()),
        "a shard of sixteen": (sharded, _ask_of(sharded, first, shard).encode()),
        "too few": (descriptor, _ask_of(descriptor, reports[:1]).encode()),
        "too many": (tight, _ask_of(tight, _reports(tight, range(1, 12))).encode()),
        "descending keys": (descriptor, _ask_of(descriptor, reports[::-1]).encode()),
        "a key twice": (descriptor, _ask_of(descriptor, [reports[0]] * 2).encode()),
        "a small-order key": (descriptor, swap(data, keys_at, bytes(32))),
        "a shard that does not exist": (descriptor, _ask_of(descriptor, reports, 1).encode()),
        "keys of another shard": (sharded, _ask_of(sharded, first, shard ^ 1).encode()),
        "another round": (descriptor, flip(data, 1)),
        "version 2": (descriptor, b"\x02" + data[1:]),
        "another sum": (descriptor, flip(data, 39)),
        "a flipped bit in the signature": (descriptor, flip(data, 71)),
        "one key missing": (descriptor, data[:-32]),
        "a trailing byte": (descriptor, data + b"\x00"),
    }
    for name, (of, ask) in cases.items():
        yield name, {"descriptor": of.encode().hex(), "ask": ask.hex()}


def _answer() -> Named:
    for name, descriptor in descriptors().items():
        if descriptor.shard_bits:
            continue
        ask = _ask_of(descriptor, _reports(descriptor, range(1, 3)))
        for party, (identity, root) in enumerate(helpers(descriptor.m), start=1):
            yield (
                f"{name}, helper {party}",
                {
                    "descriptor": descriptor.encode().hex(),
                    "ask": ask.encode().hex(),
                    "party": party,
                    "root": root.hex(),
                    "identity_seed": identity.hex(),
                },
            )


def _answers(descriptor: Descriptor, ask: Ask) -> list[Answer]:
    return [
        Answer.create(
            ask,
            party,
            oneshot.answer_vector(descriptor, party, root, ask.shard, ask.set_digest, ask.keys),
            identity,
        )
        for party, (identity, root) in enumerate(helpers(descriptor.m), start=1)
    ]


def _answer_check() -> Named:
    descriptor = known_answer_descriptor()
    ask = _ask_of(descriptor, _reports(descriptor, range(1, 3)))
    first, second = (answer.encode() for answer in _answers(descriptor, ask))
    cases = {
        "good": first,
        "the other helper's": second,
        "another set": flip(first, 1 + 32 + 1 + 2 + 4),
        "another sum": flip(first, 1 + 32 + 1 + 2 + 4 + 32),
        "another count": flip(first, 1 + 32 + 1 + 2 + 3),
        "a flipped bit in R": flip(first, 104),
        "a flipped bit in the signature": flip(first, len(first) - 50),
        "version 2": b"\x02" + first[1:],
        "one byte short": first[:-1],
        "a trailing byte": first + b"\x00",
    }
    for name, answer in cases.items():
        yield (
            name,
            {
                "descriptor": descriptor.encode().hex(),
                "ask": ask.encode().hex(),
                "party": 1,
                "answer": answer.hex(),
            },
        )


def release_of(descriptor: Descriptor, clients: range, *, signer: bytes = COLLECTOR) -> Release:
    """The release of a round to which these clients contributed."""
    reports = _reports(descriptor, clients)
    shards = []
    for number in sorted({descriptor.shard_of(report.epk) for report in reports}):
        mine = [report for report in reports if descriptor.shard_of(report.epk) == number]
        ask = _ask_of(descriptor, mine, number)
        y = oneshot.fold(descriptor, oneshot.zero(descriptor), [r.encode() for r in mine])
        answers = tuple((a.r, a.signature) for a in _answers(descriptor, ask))
        shards.append(ShardRelease(number, ask.n, ask.set_digest, y, answers))
    envelope = _envelope_of(descriptor, helpers(descriptor.m))
    return Release.create(descriptor, envelope.signatures, tuple(shards), signer)


def _sharded(descriptor: Descriptor) -> Iterator[tuple[str, bytes]]:
    """Releases of a round with two shards."""
    release = release_of(replace(descriptor, shard_bits=1), range(1, 12))
    first, second = release.shards
    cases = {
        "two shards": (first, second),
        "one shard of two": (second,),
        "shards out of order": (second, first),
        "a shard twice": (first, first),
        "a shard that does not exist": (first, replace(second, shard=2)),
        "a shard under the number of the other one": (replace(second, shard=0),),
    }
    for name, shards in cases.items():
        made = Release.create(release.descriptor, release.signatures, shards, COLLECTOR)
        yield name, made.encode()


def _resigned(release: Release) -> Iterator[tuple[str, bytes]]:
    """Releases that the collector changed and signed again: only the helpers' statements tell."""
    (shard,) = release.shards
    first, second = shard.answers
    changed = {
        "Y": replace(shard, y=flip(shard.y, 0)),
        "the set": replace(shard, set_digest=flip(shard.set_digest, 0)),
        "n": replace(shard, n=shard.n + 1),
        "R of helper 1": replace(shard, answers=((flip(first[0], 0), first[1]), second)),
        "the answer of helper 1": replace(shard, answers=((first[0], flip(first[1], 0)), second)),
        "the answer of helper 2": replace(shard, answers=(first, (second[0], flip(second[1], 0)))),
        "the order of answers": replace(shard, answers=(second, first)),
    }
    for what, other in changed.items():
        made = Release.create(release.descriptor, release.signatures, (other,), COLLECTOR)
        yield f"{what} changed, signed again", made.encode()
    for index, who in enumerate(("the collector", "helper 1", "helper 2")):
        signatures = list(release.signatures)
        signatures[index] = flip(signatures[index], 0)
        made = Release.create(release.descriptor, tuple(signatures), release.shards, COLLECTOR)
        yield f"the descriptor signature of {who} changed, signed again", made.encode()


def _release() -> Named:
    # A plan that states its promise, and bounds and noise that keep it.
    descriptor = replace(known_answer_descriptor(), plan=PLAN, linf=10, l2sq=150, noise_var=500)
    data = release_of(descriptor, range(1, 6)).encode()
    envelope = 4 + len(descriptor.encode()) + 3 * 64
    shard_at = 1 + envelope + 2
    small = replace(descriptor, cohort_min=6)
    certain = replace(descriptor, plan=PLAN.replace(b'"1e-8"', b'"1"'))
    wordy = replace(descriptor, plan=PLAN.replace(b'"epsilon":"8"', b'"epsilon":"lots"'))
    weak = replace(descriptor, noise_var=1)
    silent = replace(descriptor, plan=b"{}")
    cases = {
        "five reports": data,
        "a flipped bit in Y": flip(data, shard_at + 2 + 4 + 32),
        "a flipped bit in R": flip(data, shard_at + 2 + 4 + 32 + 16),
        "a flipped bit in the set": flip(data, shard_at + 6),
        "a flipped bit in the last signature": flip(data, len(data) - 1),
        "a flipped bit in a descriptor signature": flip(data, 1 + 4 + len(descriptor.encode())),
        "another noise in the descriptor": data[:5] + patched(data[5:], "noise_var", 501),
        "no shards": data[: shard_at - 2] + u16(0) + data[-64:],
        "two shards where there is one": data[: shard_at - 2] + u16(2) + data[shard_at:],
        "fewer reports than cohort_min": release_of(small, range(1, 6)).encode(),
        "less noise than the plan states": release_of(weak, range(1, 6)).encode(),
        "a plan that states nothing": release_of(silent, range(1, 6)).encode(),
        "a delta of 1": release_of(certain, range(1, 6)).encode(),
        "an epsilon that is no number": release_of(wordy, range(1, 6)).encode(),
        "values beyond their bounds": release_of(descriptor, range(91, 100)).encode(),
        "signed by another collector": release_of(
            descriptor, range(1, 6), signer=seed("other")
        ).encode(),
        "more reports than cohort_max": release_of(
            replace(descriptor, cohort_max=4), range(1, 6)
        ).encode(),
        "AES-256-CTR": release_of(replace(descriptor, suite=2), range(1, 6)).encode(),
        "width 16": release_of(replace(descriptor, width=16, cohort_max=300), range(1, 6)).encode(),
        "width 64": release_of(replace(descriptor, width=64), range(1, 6)).encode(),
        "three helpers": release_of(
            replace(descriptors()["three helpers"], plan=PLAN, linf=10, l2sq=150, noise_var=500),
            range(1, 6),
        ).encode(),
        "one byte short": data[:-1],
        "a trailing byte": data + b"\x00",
        "version 2": b"\x02" + data[1:],
    }
    cases |= dict(_resigned(release_of(descriptor, range(1, 6)))) | dict(_sharded(descriptor))
    for name, release in cases.items():
        yield name, {"release": release.hex()}


MESSAGE_INPUTS: Final[Mapping[str, Callable[[], Named]]] = {
    "envelope": _envelope,
    "mask": _mask,
    "report": _report,
    "ask": _ask,
    "answer": _answer,
    "answer_check": _answer_check,
    "release": _release,
}
