"""The signed descriptor: everything a client must know of a round (docs/protocol.md section 3).

A `Descriptor` that exists has passed every check of section 3.2, whether it was decoded or built.
Its SHA-256, `ctx`, enters every mask, so reports for two different descriptors can never be added
up.

Leaves out: what the plan means (`queries.plan`) and whether anyone should accept the round
(policies of client and helper).
"""

import hashlib
import itertools
import re
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

from dandelion import kernel
from dandelion.encoding import (
    Json,
    Reader,
    ceil_sqrt,
    digest,
    label,
    parse_canonical_json,
    sign,
    u16,
    u32,
    verify,
)
from dandelion.errors import WireError
from dandelion.params import (
    COHORT_MAX_MAX,
    DESCRIPTOR_BYTES_MAX,
    DESCRIPTOR_MAGIC,
    HASH_BYTES,
    HELPERS_MAX,
    HELPERS_MIN,
    INTEGER_END,
    KEY_BYTES,
    NOISE_TAIL,
    REPORT_HEADER_BYTES,
    RHO_UNITS_PER_RHO,
    ROUND_ID_BYTES,
    SCHEME_ONESHOT,
    SHARD_BITS_MAX,
    SIGNATURE_BYTES,
    SLOTS_MAX,
    SUITES,
    WIDTHS,
)

_SCOPE: Final = re.compile(r"[a-z0-9._-]{1,64}")
_U64_FIELDS: Final = ("opens", "closes", "expires", "linf", "l2sq", "noise_var")


@dataclass(frozen=True)
class HelperEntry:
    """One helper of a round: Ed25519 identity and X25519 mask key, 32 bytes each."""

    identity: bytes
    mask_key: bytes


@dataclass(frozen=True)
class Descriptor:
    """A round, as section 3.1 lays it out. Times in Unix seconds.

    Raises:
        WireError: constructing one that section 3.2 refuses, with that section's token.
    """

    suite: int
    opens: int
    closes: int
    expires: int
    slots: int
    width: int
    shard_bits: int
    cohort_min: int
    cohort_max: int
    linf: int
    l2sq: int
    noise_var: int
    scope: str
    collector: bytes
    helpers: tuple[HelperEntry, ...]
    plan: bytes
    issuer: bytes = b""
    scheme: int = SCHEME_ONESHOT
    details: bytes = b""

    def __post_init__(self) -> None:
        _judge(self)

    def encode(self) -> bytes:
        """The canonical bytes, section 3.1."""
        return b"".join(
            (
                DESCRIPTOR_MAGIC,
                struct.pack(
                    ">BBQQQIBBIIQQQ",
                    self.scheme,
                    self.suite,
                    self.opens,
                    self.closes,
                    self.expires,
                    self.slots,
                    self.width,
                    self.shard_bits,
                    self.cohort_min,
                    self.cohort_max,
                    self.linf,
                    self.l2sq,
                    self.noise_var,
                ),
                bytes([len(self.scope)]) + self.scope.encode("ascii"),
                bytes([len(self.issuer)]) + self.issuer,
                self.collector,
                bytes([len(self.helpers)]),
                *(helper.identity + helper.mask_key for helper in self.helpers),
                u16(len(self.details)) + self.details,
                u32(len(self.plan)) + self.plan,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The descriptor whose bytes are `data`.

        Raises:
            WireError: with a token of section 3.2.
        """
        if len(data) > DESCRIPTOR_BYTES_MAX:
            raise WireError("too_large")
        reader = Reader(data)
        if reader.take(len(DESCRIPTOR_MAGIC)) != DESCRIPTOR_MAGIC:
            raise WireError("bad_magic")
        scheme, suite = reader.u8(), reader.u8()
        opens, closes, expires = reader.u64(), reader.u64(), reader.u64()
        slots, width, shard_bits = reader.u32(), reader.u8(), reader.u8()
        cohort_min, cohort_max = reader.u32(), reader.u32()
        linf, l2sq, noise_var = reader.u64(), reader.u64(), reader.u64()
        scope, issuer, collector = reader.var(1), reader.var(1), reader.take(KEY_BYTES)
        helpers = tuple(
            HelperEntry(reader.take(KEY_BYTES), reader.take(KEY_BYTES)) for _ in range(reader.u8())
        )
        details, plan = reader.var(2), reader.var(4)
        reader.end()
        return cls(
            scheme=scheme,
            suite=suite,
            opens=opens,
            closes=closes,
            expires=expires,
            slots=slots,
            width=width,
            shard_bits=shard_bits,
            cohort_min=cohort_min,
            cohort_max=cohort_max,
            linf=linf,
            l2sq=l2sq,
            noise_var=noise_var,
            # A byte that is not ASCII becomes one that the scope's alphabet refuses.
            scope=scope.decode("ascii", errors="replace"),
            issuer=issuer,
            collector=collector,
            helpers=helpers,
            details=details,
            plan=plan,
        )

    @cached_property
    def ctx(self) -> bytes:
        """SHA-256 of the descriptor, 32 bytes: what every mask is bound to."""
        return hashlib.sha256(self.encode()).digest()

    @property
    def round_id(self) -> bytes:
        """The first 16 bytes of `ctx`."""
        return self.ctx[:ROUND_ID_BYTES]

    @property
    def payload_bytes(self) -> int:
        """Length of a packed vector."""
        return self.slots * (self.width // 8)

    @property
    def report_bytes(self) -> int:
        """Length of a report, section 5."""
        return REPORT_HEADER_BYTES + self.payload_bytes

    @property
    def m(self) -> int:
        """Number of helpers."""
        return len(self.helpers)

    @property
    def shards(self) -> int:
        """Number of release shards, a power of two."""
        return 1 << self.shard_bits

    @property
    def rho_units(self) -> int:
        """What a round costs, in units of 2^-40 rho rounded up (section 16)."""
        return -(-self.l2sq * RHO_UNITS_PER_RHO // (2 * self.noise_var))

    @property
    def noise_bound(self) -> int:
        """How far the noise of all helpers may carry a slot (3.2, 8)."""
        return NOISE_TAIL * ceil_sqrt(self.m * self.noise_var)

    def shard_of(self, epk: bytes) -> int:
        """Release shard of a report key (section 4.1)."""
        if self.shard_bits == 0:
            return 0
        return digest("shard", self.ctx, epk)[0] >> (8 - self.shard_bits)

    def all_of_shard(self, shard: int, keys: bytes) -> bool:
        """Whether every one of the report keys, n * 32 bytes, belongs to a release shard."""
        if self.shard_bits == 0:
            return shard == 0
        # As `shard_of`, a million times over: what all keys share is put together once.
        head, shift, sha256 = label("shard") + self.ctx, 8 - self.shard_bits, hashlib.sha256
        return all(
            sha256(head + keys[at : at + KEY_BYTES]).digest()[0] >> shift == shard
            for at in range(0, len(keys), KEY_BYTES)
        )

    def party_of(self, identity: bytes) -> int:
        """1-based index of a helper.

        Raises:
            WireError: `bad_helpers` if it is not listed.
        """
        for index, helper in enumerate(self.helpers, start=1):
            if helper.identity == identity:
                return index
        raise WireError("bad_helpers", "this helper is not listed")

    def plan_object(self) -> dict[str, Json]:
        """The parsed plan."""
        return parse_canonical_json(self.plan)


@dataclass(frozen=True)
class Envelope:
    """A descriptor with the signatures of the collector and then of every helper (section 3.4)."""

    descriptor: Descriptor
    signatures: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The bytes of section 3.4."""
        data = self.descriptor.encode()
        return u32(len(data)) + data + b"".join(self.signatures)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Reads an envelope and verifies every signature in it.

        Raises:
            WireError: a token of section 3.2, `trailing`, or `bad_signature` naming the signer.
        """
        reader = Reader(data)
        descriptor = read_descriptor(reader)
        signatures = tuple(reader.take(SIGNATURE_BYTES) for _ in range(1 + descriptor.m))
        reader.end()
        signers = (descriptor.collector, *(helper.identity for helper in descriptor.helpers))
        for index, (signer, signature) in enumerate(zip(signers, signatures, strict=True)):
            try:
                verify(signer, "descriptor", descriptor.ctx, signature)
            except WireError:
                name = f"helper {index}" if index else "the collector"
                raise WireError("bad_signature", f"descriptor signature of {name}") from None
        return cls(descriptor, signatures)


def read_descriptor(reader: Reader) -> Descriptor:
    """A length and a descriptor from the front of a message. Raises as `Descriptor.decode`."""
    return Descriptor.decode(reader.var(4))


def sign_descriptor(descriptor: Descriptor, seed: bytes) -> bytes:
    """Statement `descriptor` (section 2), 64 bytes, under a 32-byte identity seed."""
    return sign(seed, "descriptor", descriptor.ctx)


def partial_envelope(descriptor: Descriptor, collector_signature: bytes) -> bytes:
    """What a collector shows a helper to have it sign (section 11)."""
    return Envelope(descriptor, (collector_signature,)).encode()


def decode_partial_envelope(data: bytes) -> tuple[Descriptor, bytes]:
    """Descriptor and the collector's signature, verified against the collector the descriptor
    names.

    Raises:
        WireError: a token of section 3.2, `trailing` or `bad_signature`.
    """
    reader = Reader(data)
    descriptor = read_descriptor(reader)
    signature = reader.take(SIGNATURE_BYTES)
    reader.end()
    verify(descriptor.collector, "descriptor", descriptor.ctx, signature)
    return descriptor, signature


def _judge(d: Descriptor) -> None:
    """The checks of section 3.2 that follow the layout, in its order."""
    for name in _U64_FIELDS:
        if not 0 <= getattr(d, name) < INTEGER_END:
            raise WireError("bad_integer", name)
    if d.scheme != SCHEME_ONESHOT:
        raise WireError("bad_scheme")
    if d.suite not in SUITES:
        raise WireError("bad_suite")
    if not d.opens < d.closes <= d.expires:
        raise WireError("bad_time")
    if not 1 <= d.slots <= SLOTS_MAX:
        raise WireError("bad_slots")
    if d.width not in WIDTHS:
        raise WireError("bad_width")
    if not 0 <= d.shard_bits <= SHARD_BITS_MAX:
        raise WireError("bad_shards")
    if not 1 <= d.cohort_min <= d.cohort_max <= COHORT_MAX_MAX:
        raise WireError("bad_cohort")
    if d.linf == 0 or d.l2sq == 0 or not d.linf**2 <= d.l2sq <= d.slots * d.linf**2:
        raise WireError("bad_bounds")
    if d.noise_var == 0:
        raise WireError("bad_noise")
    if d.cohort_max * d.linf + d.noise_bound + 1 > 1 << (d.width - 1):
        raise WireError("overflow")
    if not _SCOPE.fullmatch(d.scope):
        raise WireError("bad_scope")
    if len(d.issuer) not in (0, HASH_BYTES):
        raise WireError("bad_issuer")
    _judge_helpers(d)
    if d.details:
        raise WireError("bad_details")
    parse_canonical_json(d.plan)
    if len(d.encode()) > DESCRIPTOR_BYTES_MAX:
        raise WireError("too_large")


def _judge_helpers(d: Descriptor) -> None:
    if not HELPERS_MIN <= d.m <= HELPERS_MAX:
        raise WireError("bad_helpers", "too few or too many")
    identities = [helper.identity for helper in d.helpers]
    if {len(key) for key in (d.collector, *identities)} != {KEY_BYTES}:
        raise WireError("bad_helpers", "an identity has not 32 bytes")
    if any(left >= right for left, right in itertools.pairwise(identities)):
        raise WireError("bad_helpers", "identities are not strictly ascending")
    if d.collector in identities:
        raise WireError("bad_helpers", "the collector is listed as a helper")
    # Two equal masks add up to an even number: the low bit of every report would lie open.
    if len({helper.mask_key for helper in d.helpers}) != d.m:
        raise WireError("bad_helpers", "two mask keys are equal")
    if not all(kernel.key_is_acceptable(helper.mask_key) for helper in d.helpers):
        raise WireError("bad_key", "a mask key")
