"""The plain Python twin of every function of ``dandelion.kernel`` (docs/protocol.md 1, 4 and 7).

Readable, slow and independent: libsodium (through PyNaCl), hashlib, ``cryptography`` and numpy do
the work that the kernel's own crates do. Nothing here imports the library; the tests compare the
two. Arguments are assumed to be right: what wrong ones do is the kernel's to say.
"""

import hashlib
import hmac
import math
from collections.abc import Iterator, Sequence

import nacl.bindings
import nacl.exceptions
import nacl.utils
import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SUITE_X25519_CHACHA20 = 1
SUITE_X25519_AES256CTR = 2
WIDTHS = (16, 24, 32, 64)

KEY_BYTES = 32
P = 2**255 - 19
SMALL_ORDER = {
    0,
    1,
    P - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
}

Values = npt.NDArray[np.int64]


# Keys: RFC 7748 and section 4.2.


def x25519(scalar: bytes, point: bytes) -> bytes:
    try:
        return nacl.bindings.crypto_scalarmult(scalar, point)
    except nacl.exceptions.RuntimeError:
        # libsodium refuses an all-zero result, the function of RFC 7748 returns it.
        return bytes(KEY_BYTES)


def x25519_public(scalar: bytes) -> bytes:
    return nacl.bindings.crypto_scalarmult_base(scalar)


def key_is_acceptable(key: bytes) -> bool:
    if len(key) != KEY_BYTES:
        return False
    # The top bit is part of the number, and above P.
    value = int.from_bytes(key, "little")
    return value < P and value not in SMALL_ORDER


def split_keys(keys: bytes) -> list[bytes]:
    return [keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES)]


def first_unacceptable(keys: bytes) -> int | None:
    return next((i for i, key in enumerate(split_keys(keys)) if not key_is_acceptable(key)), None)


def first_not_ascending(keys: bytes) -> int | None:
    listed = split_keys(keys)
    return next((i for i in range(1, len(listed)) if listed[i] <= listed[i - 1]), None)


# Key derivation: RFC 5869, RFC 9180 and sections 1 and 4.1.


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def hkdf_extract(salt: bytes, ikm: bytes) -> bytes:
    return hmac_sha256(salt, ikm)


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    output = block = b""
    for counter in range(1, math.ceil(length / 32) + 1):
        block = hmac_sha256(key, block + info + bytes([counter]))
        output += block
    return output[:length]


def expand(key: bytes, label: str, info: bytes, length: int) -> bytes:
    return hkdf_expand(key, b"dandelion/v1/" + label.encode() + b"\x00" + info, length)


def dhkem_extract_and_expand(dh: bytes, kem_context: bytes) -> bytes:
    suite_id = b"KEM" + (0x0020).to_bytes(2, "big")
    eae_prk = hkdf_extract(b"", b"HPKE-v1" + suite_id + b"eae_prk" + dh)
    labeled_info = (32).to_bytes(2, "big") + b"HPKE-v1" + suite_id + b"shared_secret" + kem_context
    return hkdf_expand(eae_prk, labeled_info, 32)


def shared_secret(scalar: bytes, peer: bytes, epk: bytes, pk: bytes) -> bytes:
    return dhkem_extract_and_expand(x25519(scalar, peer), epk + pk)


def mask_seed(secret: bytes, ctx: bytes, party: int) -> bytes:
    return expand(secret, "mask", ctx + bytes([party]), 32)


# Streams: section 1.


def prg(suite: int, seed: bytes, length: int) -> bytes:
    if suite == SUITE_X25519_CHACHA20:
        return nacl.utils.randombytes_deterministic(length, seed) if length else b""
    encryptor = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    return encryptor.update(bytes(length)) + encryptor.finalize()


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """The block function of RFC 8439 section 2.3, from its text."""

    def quarter_round(a: int, b: int, c: int, d: int) -> None:
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) % 2**32
            mixed = state[z] ^ state[x]
            state[z] = (mixed << turn | mixed >> (32 - turn)) % 2**32

    words = b"expand 32-byte k" + key + counter.to_bytes(4, "little") + nonce
    start = [int(word) for word in np.frombuffer(words, "<u4")]
    state = list(start)
    for _ in range(10):
        for column in range(4):
            quarter_round(column, column + 4, column + 8, column + 12)
        for diagonal in range(4):
            quarter_round(
                diagonal,
                4 + (diagonal + 1) % 4,
                8 + (diagonal + 2) % 4,
                12 + (diagonal + 3) % 4,
            )
    sums = [(mixed + first) % 2**32 for mixed, first in zip(state, start, strict=True)]
    return b"".join(word.to_bytes(4, "little") for word in sums)


# Vectors: section 1. Arithmetic is that of Python's integers, modulo 2^width at the end.


def pack(values: Sequence[int] | Values, width: int) -> bytes:
    return b"".join((int(value) % 2**width).to_bytes(width // 8, "little") for value in values)


def words(payload: bytes, width: int) -> list[int]:
    """The words of a payload in [0, 2^width)."""
    step = width // 8
    return [
        int.from_bytes(payload[start : start + step], "little")
        for start in range(0, len(payload), step)
    ]


def unpack(payload: bytes, width: int) -> bytes:
    half = 2 ** (width - 1)
    lifted = [(word + half) % 2**width - half for word in words(payload, width)]
    return b"".join(value.to_bytes(8, "little", signed=True) for value in lifted)


def fold(sign: int, total: bytes, bodies: Sequence[bytes], offset: int, width: int) -> bytes:
    sums = words(total, width)
    for body in bodies:
        addends = words(body[offset : offset + len(total)], width)
        sums = [a + sign * b for a, b in zip(sums, addends, strict=True)]
    return pack(sums, width)


def add_payloads(total: bytes, bodies: Sequence[bytes], offset: int, width: int) -> bytes:
    return fold(1, total, bodies, offset, width)


def sub_payloads(total: bytes, bodies: Sequence[bytes], offset: int, width: int) -> bytes:
    return fold(-1, total, bodies, offset, width)


# Masks: section 4.3.


def mask_words(suite: int, width: int, seed: bytes, slots: int) -> list[int]:
    word_bits = 64 if width == 64 else 32
    stream = prg(suite, seed, slots * word_bits // 8)
    return [word % 2**width for word in words(stream, word_bits)]


def mask(
    suite: int,
    width: int,
    ctx: bytes,
    ephemeral_secret: bytes,
    mask_keys: bytes,
    values: Sequence[int] | Values,
) -> tuple[bytes, bytes]:
    epk = x25519_public(ephemeral_secret)
    sums = [int(value) for value in values]
    for party, pk in enumerate(split_keys(mask_keys), start=1):
        seed = mask_seed(shared_secret(ephemeral_secret, pk, epk, pk), ctx, party)
        added = mask_words(suite, width, seed, len(sums))
        sums = [a + b for a, b in zip(sums, added, strict=True)]
    return epk, pack(sums, width)


def mask_sum(
    suite: int,
    width: int,
    slots: int,
    ctx: bytes,
    party: int,
    secret: bytes,
    ephemeral_keys: bytes,
    threads: int = 0,
) -> bytes:
    del threads  # the sum is the same
    pk = x25519_public(secret)
    sums = [0] * slots
    for epk in split_keys(ephemeral_keys):
        seed = mask_seed(shared_secret(secret, epk, epk, pk), ctx, party)
        added = mask_words(suite, width, seed, slots)
        sums = [a + b for a, b in zip(sums, added, strict=True)]
    return pack(sums, width)


# Noise: section 7, line by line.


def discrete_gaussian(suite: int, seed: bytes, variance: int, count: int) -> bytes:
    sampler = Sampler(suite, seed)
    draws = [sampler.gaussian(variance) for _ in range(count)]
    return b"".join(draw.to_bytes(8, "little", signed=True) for draw in draws)


class Sampler:
    """The functions of section 7 over one stream; ``bytes_read`` says how far they have come."""

    def __init__(self, suite: int, seed: bytes) -> None:
        self.stream = self.bytes_of(suite, seed)
        self.bytes_read = 0

    @staticmethod
    def bytes_of(suite: int, seed: bytes) -> Iterator[int]:
        start, end = 0, 1 << 12
        while True:
            yield from prg(suite, seed, end)[start:]
            start, end = end, 4 * end

    def uniform(self, m: int) -> int:
        if m == 1:
            return 0
        k = (m - 1).bit_length()
        length = (k + 7) // 8
        while True:
            read = bytes(next(self.stream) for _ in range(length))
            self.bytes_read += length
            candidate = int.from_bytes(read, "little") % (1 << k)
            if candidate < m:
                return candidate

    def bernoulli(self, n: int, d: int) -> bool:
        return self.uniform(d) < n

    def bernoulli_exp(self, n: int, d: int) -> bool:
        if n <= d:
            k = 1
            while self.bernoulli(n, d * k):
                k += 1
            return k % 2 == 1
        for _ in range(n // d):
            if not self.bernoulli_exp(1, 1):
                return False
        return self.bernoulli_exp(n % d, d)

    def laplace(self, t: int) -> int:
        while True:
            u = self.uniform(t)
            if not self.bernoulli_exp(u, t):
                continue
            v = 0
            while self.bernoulli_exp(1, 1):
                v += 1
            x = u + t * v
            s = self.uniform(2)
            if s == 1 and x == 0:
                continue
            return -x if s == 1 else x

    def gaussian(self, v: int) -> int:
        t = math.isqrt(v) + 1
        while True:
            y = self.laplace(t)
            if self.bernoulli_exp((abs(y) * t - v) ** 2, 2 * v * t**2):
                return y
