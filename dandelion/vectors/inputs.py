"""Inputs of the published vectors: shortest, longest, one past each limit, a flipped bit.

Everything is derived from fixed names, so the same inputs come out on every machine. Invalid
messages are made from valid ones by changing bytes, since the classes refuse to hold them.
`message_inputs` has those of whole messages.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from dandelion.descriptor import Descriptor, HelperEntry
from dandelion.encoding import identity_of, sign, u32
from dandelion.schemes import oneshot

Named = Iterator[tuple[str, dict[str, Any]]]

P: Final = 2**255 - 19
SMALL_ORDER: Final = (
    0,
    1,
    P - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
ED25519_ORDER: Final = 2**252 + 27742317777372353535851937790883648493

PLAN: Final = (
    b'{"delta":"1e-8","epsilon":"8","event":"page","kind":"aggregate",'
    b'"measures":[{"op":"count","scale":3},{"centre":2,"column":"load","hi":5,"lo":-1,"op":"sum",'
    b'"scale":1}],"outputs":[{"measure":0,"name":"COUNT(*)","op":"count"}],"query":"kat",'
    b'"rows_max":1,"sql":"SELECT COUNT(*) FROM page"}'
)


def seed(name: str) -> bytes:
    """32 fixed bytes for each name."""
    return hashlib.sha256(name.encode()).digest()


COLLECTOR: Final = seed("kat collector")


def helpers(count: int) -> list[tuple[bytes, bytes]]:
    """(identity seed, round root) of each helper, in descriptor order."""
    pairs = [(seed(f"kat identity {i}"), seed(f"kat root {i}")) for i in range(1, count + 1)]
    return sorted(pairs, key=lambda pair: identity_of(pair[0]))


def _entries(count: int) -> tuple[HelperEntry, ...]:
    return tuple(
        HelperEntry(identity_of(identity), oneshot.round_keys(root)[1])
        for identity, root in helpers(count)
    )


def known_answer_descriptor() -> Descriptor:
    """A descriptor of 248 bytes, the subject of most vectors."""
    return Descriptor(
        suite=1,
        opens=1_800_000_000,
        closes=1_800_003_600,
        expires=1_800_090_000,
        slots=4,
        width=32,
        shard_bits=0,
        cohort_min=2,
        cohort_max=1000,
        linf=100,
        l2sq=10_000,
        noise_var=26,
        scope="kat",
        collector=identity_of(COLLECTOR),
        helpers=_entries(2),
        plan=b"{}",
    )


def _tight(base: Descriptor) -> Descriptor:
    """cohort_max * linf + 12 * ceil(sqrt(2 * 26)) + 1 is exactly 2^31."""
    return replace(base, cohort_max=32_063, linf=66_977, l2sq=66_977**2)


def descriptors() -> dict[str, Descriptor]:
    """Valid descriptors, one for each choice there is."""
    base = known_answer_descriptor()
    return {
        "known answer": base,
        "AES-256-CTR": replace(base, suite=2),
        "width 16": replace(base, width=16, cohort_max=300),
        "width 24": replace(base, width=24),
        "width 64": replace(base, width=64, linf=2**20, l2sq=2**41, noise_var=2**40),
        "sixteen shards": replace(base, shard_bits=4),
        "one slot": replace(base, slots=1, plan=PLAN),
        "three helpers": replace(base, helpers=_entries(3)),
        "an issuer": replace(base, issuer=seed("issuer")),
        "the longest scope": replace(base, scope="s" * 64),
        "a large sum": replace(base, cohort_max=3_000_000, linf=715, l2sq=715**2),
        "the largest sum that fits": _tight(base),
        "closes at expires, one cohort size": replace(
            base, expires=base.closes, cohort_min=1000, shard_bits=8
        ),
    }


# Where the fixed fields of section 3.1 lie.
_AT: Final = {
    "magic": 0,
    "scheme": 10,
    "suite": 11,
    "opens": 12,
    "closes": 20,
    "expires": 28,
    "slots": 36,
    "width": 40,
    "shard_bits": 41,
    "cohort_min": 42,
    "cohort_max": 46,
    "linf": 50,
    "l2sq": 58,
    "noise_var": 66,
    "scope": 74,
}
_COLLECTOR_AT: Final = 79  # after scope "kat" and the empty issuer
_HELPERS_AT: Final = _COLLECTOR_AT + 32


def patched(data: bytes, field: str, value: int) -> bytes:
    """A descriptor's bytes with one fixed field replaced."""
    at = _AT[field]
    size = dict(pairwise(_AT.values()))[at] - at
    return data[:at] + value.to_bytes(size, "big") + data[at + size :]


def swap(data: bytes, at: int, new: bytes) -> bytes:
    """`data` with the bytes from `at` on replaced by `new`."""
    return data[:at] + new + data[at + len(new) :]


def flip(data: bytes, at: int) -> bytes:
    """`data` with the lowest bit of one byte flipped."""
    return swap(data, at, bytes([data[at] ^ 1]))


def _bad_descriptors() -> Iterator[tuple[str, bytes]]:
    data = known_answer_descriptor().encode()
    fields = [
        ("scheme 2", "scheme", 2),
        ("suite 3", "suite", 3),
        ("opens 2^53", "opens", 2**53),
        ("closes before opens", "closes", 1_799_999_999),
        ("expires before closes", "expires", 1_800_003_599),
        ("no slots", "slots", 0),
        ("too many slots", "slots", 2**20 + 1),
        ("width 8", "width", 8),
        ("nine shard bits", "shard_bits", 9),
        ("cohort_min 0", "cohort_min", 0),
        ("cohort_min above cohort_max", "cohort_min", 1001),
        ("cohort_max above the limit", "cohort_max", 2**22 + 1),
        ("linf 0", "linf", 0),
        ("l2sq above slots * linf^2", "l2sq", 40_001),
        ("l2sq below linf^2", "l2sq", 9_999),
        ("no noise", "noise_var", 0),
        ("sums that overflow", "cohort_max", 2**22),
    ]
    for name, field, value in fields:
        changed = patched(data, field, value)
        if name == "sums that overflow":
            changed = patched(patched(changed, "linf", 1000), "l2sq", 10**6)
        yield name, changed
    tight = _tight(known_answer_descriptor()).encode()
    yield "one standard deviation too many", patched(tight, "noise_var", 33)
    for field in ("closes", "expires", "linf", "l2sq", "noise_var"):
        yield f"{field} 2^53", patched(data, field, 2**53)
    yield "scheme 0", patched(data, "scheme", 0)
    yield "scheme 3", patched(data, "scheme", 3)
    yield "suite 0", patched(data, "suite", 0)
    yield "width 48", patched(data, "width", 48)
    yield "opens at closes", patched(data, "opens", 1_800_003_600)
    yield "l2sq 0", patched(data, "l2sq", 0)
    yield "two faults, scheme and suite", patched(patched(data, "scheme", 2), "suite", 3)
    yield "two faults, width and noise", patched(patched(data, "noise_var", 0), "width", 8)
    yield "two faults, slots and a trailing byte", patched(data, "slots", 0) + b"\x00"
    yield "another magic", flip(data, 9)
    yield "an upper-case scope", swap(data, _AT["scope"] + 1, b"KAT")
    yield "a short issuer", data[: _COLLECTOR_AT - 1] + b"\x01x" + data[_COLLECTOR_AT:]
    one, two = data[_HELPERS_AT + 1 : _HELPERS_AT + 65], data[_HELPERS_AT + 65 : _HELPERS_AT + 129]
    yield "helpers out of order", swap(data, _HELPERS_AT + 1, two + one)
    yield "an identity twice", swap(data, _HELPERS_AT + 65, one[:32])
    yield "one helper", data[:_HELPERS_AT] + b"\x01" + one + data[_HELPERS_AT + 129 :]
    rest = data[_HELPERS_AT + 129 :]
    yield "no helpers", data[:_HELPERS_AT] + b"\x00" + rest
    many = b"".join(entry.identity + entry.mask_key for entry in _entries(17))
    yield "seventeen helpers", data[:_HELPERS_AT] + b"\x11" + many + rest
    yield "a copied mask key", swap(data, _HELPERS_AT + 97, one[32:])
    yield (
        "a small-order mask key",
        swap(data, _HELPERS_AT + 33, SMALL_ORDER[3].to_bytes(32, "little")),
    )
    yield "a mask key with the top bit set", swap(data, _HELPERS_AT + 64, b"\xff")
    yield "the collector among the helpers", swap(data, _COLLECTOR_AT, two[:32])
    details_at = _HELPERS_AT + 129
    yield "details", data[:details_at] + b"\x00\x01x" + data[details_at + 2 :]
    yield "a plan with a space", data[:-6] + u32(3) + b"{ }"
    yield "a trailing byte", data + b"\x00"
    yield "a missing byte", data[:-1]
    yield "nothing", b""
    yield "too large", data + bytes(131_072)


def _descriptor() -> Named:
    for name, descriptor in descriptors().items():
        yield name, {"descriptor": descriptor.encode().hex()}
    for name, data in _bad_descriptors():
        yield name, {"descriptor": data.hex()}


def _prg() -> Named:
    for suite in (1, 2):
        for length in (1, 64, 100):
            yield (
                f"suite {suite}, {length} bytes",
                {
                    "suite": suite,
                    "seed": bytes(range(32)).hex(),
                    "length": length,
                },
            )


def _keys() -> Named:
    for value in (9, 2, P - 2):
        yield f"u = {value}", {"key": value.to_bytes(32, "little").hex()}
    for value in SMALL_ORDER:
        yield f"small order, u = {value}", {"key": value.to_bytes(32, "little").hex()}
    for value in (P, P + 1, P + 9, 2**255 - 1, 2**255 + 9):
        yield f"not canonical, u = {value}", {"key": value.to_bytes(32, "little").hex()}


_MIXED: Final = "f27cb81402e6860c926ff81f393d14340e41a70bc0b0195cf64a90b348cb2fc4"
_OF_SMALL_KEYS: Final = (
    "b862409fb5c4c4123df2abf7462b88f041ad36dd6864ce872fd5472be363c5b1" + "07" + 31 * "00"
)
_WEAK: Final = (
    ("satisfied, the identity as key", "01" + 31 * "00", _OF_SMALL_KEYS),
    ("satisfied, the identity as key, not canonical", "ee" + 30 * "ff" + "7f", _OF_SMALL_KEYS),
    ("satisfied, the identity as key, sign set", "01" + 30 * "00" + "80", _OF_SMALL_KEYS),
    (
        "satisfied, the identity as R",
        _MIXED,
        "01" + 31 * "00" + "2cfe80e5daa6707f7080d609a6123f7deab5c0eda68a83dc763b046997606e02",
    ),
    (
        "satisfied with the cofactor, R with a part of order 8",
        _MIXED,
        "fb15ddd1cd7684fa60e25fe9df39afdc2b12d6908402179723b4d66311f8694a"
        "15bebba1b5b76c86a2847ed220183b746fb34f01b593529e7b79faa67ae80f07",
    ),
)


def _signatures() -> Named:
    body = b"body"
    good = sign(COLLECTOR, "ask", body)
    identity = identity_of(COLLECTOR)
    scalar = int.from_bytes(good[32:], "little")
    cases = {
        "good": (identity, "ask", body, good),
        "another label": (identity, "answer", body, good),
        "another body": (identity, "ask", b"bodY", good),
        "another identity": (identity_of(seed("other")), "ask", body, good),
        "S plus the group order": (
            identity,
            "ask",
            body,
            good[:32] + (scalar + ED25519_ORDER).to_bytes(32, "little"),
        ),
        "a key of small order": ((1).to_bytes(32, "little"), "ask", body, good),
        "R of small order": (identity, "ask", body, (1).to_bytes(32, "little") + good[32:]),
        "a key that is not canonical": ((P + 1).to_bytes(32, "little"), "ask", body, good),
        # Valid for a verifier that does not ask for the prime-order subgroup.
        "a key with a part of order 8": (
            bytes.fromhex("4a49fde829ce9ba79da219ec2ba2bb1bd1d4d9b105cbbf67078c49f9df3ad41d"),
            "ask",
            body,
            bytes.fromhex(
                "ce55aa91dfa1b52bcc0a726bb8ce8556bd198f98bd3ae744157f9637ed9af5b8"
                "3717ce6d4fd3569bac928b4257836b858d0b41b76f61109c6e050a10c7b32602"
            ),
        ),
        "63 bytes": (identity, "ask", body, good[:63]),
    } | {
        # Each of these satisfies the equation; only the rule about its points refuses it.
        name: (bytes.fromhex(key), "ask", body, bytes.fromhex(signature))
        for name, key, signature in _WEAK
    }
    for name, (key, label, text, signature) in cases.items():
        yield (
            name,
            {
                "identity": key.hex(),
                "label": label,
                "body": text.hex(),
                "signature": signature.hex(),
            },
        )


def _plan_bytes() -> Named:
    nested = b'{"a":' * 7 + b"{}" + b"}" * 7
    texts = {
        "empty object": b"{}",
        "a plan": PLAN,
        "escapes": '{"a":"\\"\\\\\\b\\t\\n\\f\\r\\u0001\x7f\u00e9\U0001f33c"}'.encode(),
        "integers": b'{"a":[0,-1,9007199254740991,-9007199254740991]}',
        "eight levels": nested,
        "nine levels": b'{"a":' + nested + b"}",
        "white space": b'{"a": 1}',
        "keys out of order": b'{"b":1,"a":1}',
        "a key twice": b'{"a":1,"a":1}',
        "an upper-case key": b'{"A":1}',
        "2^53": b'{"a":9007199254740992}',
        "minus zero": b'{"a":-0}',
        "a fraction": b'{"a":1.5}',
        "an exponent": b'{"a":1e3}',
        "true": b'{"a":true}',
        "null": b'{"a":null}',
        "NaN": b'{"a":NaN}',
        "infinity": b'{"a":1e999}',
        "a leading zero": b'{"a":01}',
        "a key that objects of some languages have": b'{"__proto__":1}',
        "such a key twice": b'{"__proto__":1,"__proto__":1}',
        "an array outside": b"[]",
        "an escape that is not needed": b'{"a":"\\u0041"}',
        "an upper-case escape": b'{"a":"\\u001F"}',
        "an escaped slash": b'{"a":"\\/"}',
        "a lone surrogate": b'{"a":"\\ud800"}',
        "not UTF-8": b'{"a":"\xff"}',
        "a byte-order mark": b"\xef\xbb\xbf{}",
        "two values": b"{}{}",
        "nothing": b"",
        "the longest": b'{"a":"' + b"x" * (65_536 - 8) + b'"}',
        "one byte too long": b'{"a":"' + b"x" * (65_536 - 7) + b'"}',
    }
    for name, text in texts.items():
        yield name, {"bytes": text.hex()}


def _noise() -> Named:
    for suite in (1, 2):
        for variance in (1, 2, 27, 1000, 2**40, 2**53 - 1):
            yield (
                f"suite {suite}, variance {variance}",
                {
                    "suite": suite,
                    "seed": seed("noise").hex(),
                    "noise_var": variance,
                    "slots": 16,
                },
            )


def _accounting() -> Named:
    for l2sq, variance in ((1, 1), (1, 27), (3, 81), (97_200, 2_624_400), (2**52, 2**40)):
        for delta in ("1e-6", "1e-8"):
            yield (
                f"l2sq {l2sq}, noise_var {variance}, delta {delta}",
                {
                    "l2sq": l2sq,
                    "noise_var": variance,
                    "delta": delta,
                },
            )


INPUTS: Final[Mapping[str, Callable[[], Named]]] = {
    "prg": _prg,
    "keys": _keys,
    "signatures": _signatures,
    "plan_bytes": _plan_bytes,
    "descriptor": _descriptor,
    "noise": _noise,
    "accounting": _accounting,
}
