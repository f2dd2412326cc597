"""Report, ask, answer and release: one frozen dataclass per message (docs/protocol.md sections 5,
6, 8).

`decode` raises `WireError` or returns what encodes to the same bytes. `create` signs, `verify`
and `check` hold a message against what it must agree with.

Leaves out: masks and sums (`schemes`), and when a message is welcome (`round`, and the services).
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from dandelion import kernel
from dandelion.descriptor import Descriptor, read_descriptor
from dandelion.encoding import Reader, digest, sign, u16, u32, verify
from dandelion.errors import WireError
from dandelion.params import (
    HASH_BYTES,
    KEY_BYTES,
    MESSAGE_VERSION,
    REPORT_HEADER_BYTES,
    ROUND_ID_BYTES,
    SIGNATURE_BYTES,
)

_VERSION = bytes([MESSAGE_VERSION])


@dataclass(frozen=True)
class Report:
    """What a client sends, section 5. `payload` is the packed masked vector."""

    round_id: bytes
    epk: bytes
    payload: bytes

    def encode(self) -> bytes:
        """The body of the one POST."""
        return _VERSION + self.round_id + self.epk + self.payload

    @classmethod
    def decode(cls, body: bytes, round_id: bytes, report_bytes: int) -> Self:
        """Reads a report for one round, whose reports have `report_bytes` bytes.

        Raises:
            WireError: `bad_length`, `bad_version`, `wrong_round`, `bad_key`, in this order.
        """
        epk = cls.read_key(body, round_id, report_bytes)
        return cls(round_id, epk, body[REPORT_HEADER_BYTES:])

    @staticmethod
    def read_key(body: bytes, round_id: bytes, report_bytes: int) -> bytes:
        """Judges a report as `decode` does and returns its key alone."""
        if len(body) != report_bytes:
            raise WireError("bad_length")
        if body[:1] != _VERSION:
            raise WireError("bad_version")
        epk_at = 1 + ROUND_ID_BYTES
        if body[1:epk_at] != round_id:
            raise WireError("wrong_round")
        epk = body[epk_at:REPORT_HEADER_BYTES]
        if not kernel.key_is_acceptable(epk):
            raise WireError("bad_key")
        return epk


@dataclass(frozen=True)
class Ask:
    """A collector's request for the mask sum of one set, section 6.

    `sum` is SHA-256 of Y; `keys` is the concatenation of n ephemeral keys of 32 bytes, strictly
    ascending.
    """

    ctx: bytes
    shard: int
    sum: bytes
    keys: bytes
    signature: bytes

    @property
    def n(self) -> int:
        """Number of keys: counted, never taken from the message."""
        return len(self.keys) // KEY_BYTES

    @cached_property
    def set_digest(self) -> bytes:
        """`set` of section 6, 32 bytes."""
        return set_digest(self.ctx, self.shard, self.keys)

    def _body(self) -> bytes:
        return self.ctx + u16(self.shard) + u32(self.n) + self.set_digest + self.sum

    def encode(self) -> bytes:
        """The bytes of section 6."""
        head = _VERSION + self.ctx + u16(self.shard) + u32(self.n) + self.sum
        return head + self.signature + self.keys

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Reads the layout only; keys and signature are judged by the helper's rules.

        Raises:
            WireError: `bad_version`, `truncated`, `trailing`.
        """
        reader = Reader(body)
        _version(reader)
        ctx, shard, n = reader.take(HASH_BYTES), reader.u16(), reader.u32()
        total, signature = reader.take(HASH_BYTES), reader.take(SIGNATURE_BYTES)
        keys = reader.take(n * KEY_BYTES)
        reader.end()
        return cls(ctx, shard, total, keys, signature)

    @classmethod
    def create(cls, ctx: bytes, shard: int, keys: bytes, y: bytes, seed: bytes) -> Self:
        """Signs the ask for `keys` (n * 32 bytes, ascending) whose packed sum is `y`."""
        unsigned = cls(ctx, shard, hashlib.sha256(y).digest(), keys, b"")
        return cls(ctx, shard, unsigned.sum, keys, sign(seed, "ask", unsigned._body()))

    def verify(self, collector: bytes) -> None:
        """Checks the signature. Raises `WireError("bad_signature")`."""
        verify(collector, "ask", self._body(), self.signature)


@dataclass(frozen=True)
class Answer:
    """A helper's mask sum with its noise inside, section 6. `r` is packed like a payload."""

    ctx: bytes
    party: int
    shard: int
    n: int
    set_digest: bytes
    sum: bytes
    r: bytes
    signature: bytes

    def _head(self) -> bytes:
        party = bytes([self.party])
        return self.ctx + party + u16(self.shard) + u32(self.n) + self.set_digest + self.sum

    def encode(self) -> bytes:
        """The bytes of section 6."""
        return _VERSION + self._head() + self.r + self.signature

    @classmethod
    def decode(cls, body: bytes, payload_bytes: int) -> Self:
        """Reads an answer whose R has `payload_bytes` bytes.

        Raises:
            WireError: `bad_version`, `truncated`, `trailing`.
        """
        reader = Reader(body)
        _version(reader)
        ctx, party = reader.take(HASH_BYTES), reader.u8()
        shard, n = reader.u16(), reader.u32()
        set_, total = reader.take(HASH_BYTES), reader.take(HASH_BYTES)
        r, signature = reader.take(payload_bytes), reader.take(SIGNATURE_BYTES)
        reader.end()
        return cls(ctx, party, shard, n, set_, total, r, signature)

    @classmethod
    def create(cls, ask: Ask, party: int, r: bytes, seed: bytes) -> Self:
        """Answers `ask` as helper `party` (from 1) and signs."""
        unsigned = cls(ask.ctx, party, ask.shard, ask.n, ask.set_digest, ask.sum, r, b"")
        signature = sign(seed, "answer", unsigned._statement())
        return cls(ask.ctx, party, ask.shard, ask.n, ask.set_digest, ask.sum, r, signature)

    def _statement(self) -> bytes:
        return self._head() + hashlib.sha256(self.r).digest()

    def verify(self, identity: bytes) -> None:
        """Checks the signature. Raises `WireError("bad_signature")`."""
        verify(identity, "answer", self._statement(), self.signature)

    def check(self, ask: Ask, party: int, identity: bytes) -> None:
        """Holds the answer against the ask it must belong to.

        Raises:
            WireError: `bad_answer` if a field differs, `bad_signature`.
        """
        expected = (ask.ctx, party, ask.shard, ask.n, ask.set_digest, ask.sum)
        if (self.ctx, self.party, self.shard, self.n, self.set_digest, self.sum) != expected:
            raise WireError("bad_answer")
        self.verify(identity)


@dataclass(frozen=True)
class ShardRelease:
    """One release shard of a release: what was summed and what each helper answered."""

    shard: int
    n: int
    set_digest: bytes
    y: bytes
    answers: tuple[tuple[bytes, bytes], ...]  # (R, signature) of each helper, in descriptor order

    def encode(self) -> bytes:
        """The bytes of section 8."""
        head = u16(self.shard) + u32(self.n) + self.set_digest + self.y
        return head + b"".join(r + signature for r, signature in self.answers)

    def answer_of(self, ctx: bytes, party: int) -> Answer:
        """The statement that helper `party` signed."""
        r, signature = self.answers[party - 1]
        total = hashlib.sha256(self.y).digest()
        return Answer(ctx, party, self.shard, self.n, self.set_digest, total, r, signature)


@dataclass(frozen=True)
class Release:
    """The published artefact of a round, section 8."""

    descriptor: Descriptor
    signatures: tuple[bytes, ...]  # of the envelope: collector, then helpers
    shards: tuple[ShardRelease, ...]
    signature: bytes

    @property
    def envelope(self) -> bytes:
        """The envelope's bytes."""
        data = self.descriptor.encode()
        return u32(len(data)) + data + b"".join(self.signatures)

    def _unsigned(self) -> bytes:
        shards = b"".join(shard.encode() for shard in self.shards)
        return _VERSION + self.envelope + u16(len(self.shards)) + shards

    def encode(self) -> bytes:
        """The bytes of section 8."""
        return self._unsigned() + self.signature

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Reads the layout; signatures are checked by `verify.verify_release`, which can name each.

        Raises:
            WireError: `bad_version`, `truncated`, `trailing`, a token of section 3.2,
                `bad_release`.
        """
        reader = Reader(data)
        _version(reader)
        descriptor = read_descriptor(reader)
        signatures = tuple(reader.take(SIGNATURE_BYTES) for _ in range(1 + descriptor.m))
        count = reader.u16()
        if not 1 <= count <= descriptor.shards:
            raise WireError("bad_release", "number of shards")
        shards = tuple(_read_shard(reader, descriptor) for _ in range(count))
        signature = reader.take(SIGNATURE_BYTES)
        reader.end()
        numbers = [shard.shard for shard in shards]
        if numbers != sorted(set(numbers)) or numbers[-1] >= descriptor.shards:
            raise WireError("bad_release", "shards are not strictly ascending")
        return cls(descriptor, signatures, shards, signature)

    @classmethod
    def create(
        cls,
        descriptor: Descriptor,
        signatures: tuple[bytes, ...],
        shards: tuple[ShardRelease, ...],
        seed: bytes,
    ) -> Self:
        """Signs the artefact as the collector."""
        unsigned = cls(descriptor, signatures, shards, b"")._unsigned()
        signature = sign(seed, "release", hashlib.sha256(unsigned).digest())
        return cls(descriptor, signatures, shards, signature)

    def verify(self, collector: bytes) -> None:
        """Checks the collector's statement `release`. Raises `WireError("bad_signature")`."""
        verify(collector, "release", hashlib.sha256(self._unsigned()).digest(), self.signature)


def set_digest(ctx: bytes, shard: int, keys: bytes) -> bytes:
    """`set` of section 6 over n * 32 bytes of ascending keys."""
    return digest("set", ctx, u16(shard), u32(len(keys) // KEY_BYTES), keys)


def _version(reader: Reader) -> None:
    if reader.u8() != MESSAGE_VERSION:
        raise WireError("bad_version")


def _read_shard(reader: Reader, descriptor: Descriptor) -> ShardRelease:
    shard, n, set_ = reader.u16(), reader.u32(), reader.take(HASH_BYTES)
    y = reader.take(descriptor.payload_bytes)
    answers = tuple(
        (reader.take(descriptor.payload_bytes), reader.take(SIGNATURE_BYTES))
        for _ in range(descriptor.m)
    )
    return ShardRelease(shard, n, set_, y, answers)
