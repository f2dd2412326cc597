"""The compiled kernel (sources in dandelion/kernel/src/); import it as ``dandelion.kernel``.

Common to all functions:

- Section numbers are those of docs/protocol.md.
- A key, scalar, seed, shared secret or ctx has 32 bytes. A list of keys is their concatenation.
- A payload is a vector as it travels: ``width // 8`` bytes per slot, two's complement, low byte
  first. Values are int64, one-dimensional and contiguous, in the byte order of the machine.
- A vector has at most 2^20 slots (section 13).
- ``ValueError`` names an argument whose value breaks its contract; ``TypeError`` names one of
  another type. Byte strings must be ``bytes``.
- Nothing here is random or remembered. Copies of secrets that the kernel makes are erased; the
  caller's ``bytes`` cannot be.
- Work in proportion to keys or slots runs without the interpreter lock.
"""

from collections.abc import Sequence
from typing import Final, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

# Before Python 3.12 the types of numpy do not say that an array is a buffer.
_Values: TypeAlias = npt.NDArray[np.int64] | Buffer

KERNEL_VERSION: Final[str]
"""Version of the Rust crate."""

SUITE_X25519_CHACHA20: Final[int]
"""1: DHKEM(X25519, HKDF-SHA256) and ChaCha20."""

SUITE_X25519_AES256CTR: Final[int]
"""2: the same with AES-256-CTR."""

WIDTHS: Final[tuple[int, int, int, int]]
"""Bits a word can have: 16, 24, 32, 64."""

X25519_LANES: Final[int]
"""Points that this processor multiplies at a time: 4 with AVX2, else 1. No result depends on it."""

def x25519(scalar: bytes, point: bytes) -> bytes:
    """The function X25519 of RFC 7748 section 5, 32 bytes.

    It clamps the scalar, ignores the top bit of the point and returns an all-zero result as it is.
    """

def x25519_many(scalars: bytes, points: bytes) -> bytes:
    """``x25519`` of each scalar and the point in the same place, n * 32 bytes each.

    Several at a time where the processor can (``X25519_LANES``); the time does not depend on a
    scalar. Raises ValueError if a length is not a multiple of 32 or the two lists differ in it.
    """

def x25519_public(scalar: bytes) -> bytes:
    """The public key of a scalar, X25519(scalar, 9), 32 bytes."""

def key_is_acceptable(key: bytes) -> bool:
    """Whether ``key`` passes the rule of section 4.2.

    It has 32 bytes, its top bit is clear, its value is below 2^255 - 19 and is not one of the five
    of small order. Another length is not an error but unacceptable.
    """

def first_unacceptable(keys: bytes) -> int | None:
    """Index of the first key of a list that ``key_is_acceptable`` refuses, else None.

    Raises ValueError if the length is not a multiple of 32.
    """

def first_not_ascending(keys: bytes) -> int | None:
    """Index of the first key of a list that is not greater, byte by byte, than the one before it.

    None means strictly ascending, hence without repetition. Raises ValueError if the length is not
    a multiple of 32.
    """

def hkdf_extract(salt: bytes, ikm: bytes) -> bytes:
    """HKDF-Extract with SHA-256 (RFC 5869 section 2.2), 32 bytes."""

def hkdf_expand(key: bytes, info: bytes, length: SupportsIndex) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869 section 2.3), ``length`` bytes, at most 8160.

    The key may have any length, as HMAC allows.
    """

def expand(key: bytes, label: str, info: bytes, length: SupportsIndex) -> bytes:
    """HKDF-Expand-SHA256(key, L(label) || info, length), section 1; at most 8160 bytes.

    L(s) = ``dandelion/v1/`` || s || 00. Raises ValueError if the label is empty or has anything
    but printable ASCII without spaces in it.
    """

def dhkem_extract_and_expand(dh: bytes, kem_context: bytes) -> bytes:
    """ExtractAndExpand of DHKEM(X25519, HKDF-SHA256), RFC 9180 section 4.1, 32 bytes."""

def shared_secret(scalar: bytes, peer: bytes, epk: bytes, pk: bytes) -> bytes:
    """The secret that report key and mask key share, section 4.1, 32 bytes.

    ``dhkem_extract_and_expand(x25519(scalar, peer), epk + pk)``: a client passes its ephemeral
    scalar and ``peer = pk``, a helper its mask scalar and ``peer = epk``. Raises ValueError if the
    Diffie-Hellman result is all zero.
    """

def prg(suite: SupportsIndex, seed: bytes, length: SupportsIndex) -> bytes:
    """The first ``length`` bytes of the stream PRG(seed), section 1; at most 2^38.

    Suite 1 is RFC 8439 ChaCha20 with nonce ``LibsodiumDRG`` and counter 0, suite 2 AES-256-CTR with
    a 128-bit big-endian counter from 0.
    """

def mask_seed(shared_secret: bytes, ctx: bytes, party: SupportsIndex) -> bytes:
    """expand(shared_secret, "mask", ctx || party, 32), section 4.1; ``party`` from 1 to 255."""

def mask(
    suite: SupportsIndex,
    width: SupportsIndex,
    ctx: bytes,
    ephemeral_secret: bytes,
    mask_keys: bytes,
    values: _Values,
) -> tuple[bytes, bytes]:
    """The client's half of section 4.3: ``(epk, payload)``.

    ``mask_keys`` are the mask keys of the helpers 1, 2, ... in descriptor order, 1 to 255 of them.
    The payload is ``values`` plus one mask per key, modulo 2^width. Values outside the width wrap;
    bounds are the caller's to check. An ephemeral secret is used for one call: two vectors under
    one secret reveal their difference. Raises ValueError if a mask key gives an all-zero
    Diffie-Hellman result, naming its index.
    """

def mask_many(
    suite: SupportsIndex,
    width: SupportsIndex,
    ctx: bytes,
    ephemeral_secrets: bytes,
    mask_keys: bytes,
    values: _Values,
    head: bytes = b"",
    threads: SupportsIndex = 0,
) -> list[bytes]:
    """``mask`` for many clients: ``head + epk + payload`` for each secret, in their order.

    ``values`` is a matrix of shape (secrets, slots), or one vector that every client masks. With
    the version and the round's id for ``head`` what comes back are encoded reports (section 5).
    For load generators and simulations: a client has one vector, and ``mask`` for it. ``threads``
    is 0 for all cores, at most 256. Raises ValueError as ``mask`` does, and if the shape of
    ``values`` is neither of the two.
    """

def mask_sum(
    suite: SupportsIndex,
    width: SupportsIndex,
    slots: SupportsIndex,
    ctx: bytes,
    party: SupportsIndex,
    secret: bytes,
    ephemeral_keys: bytes,
    threads: SupportsIndex = 0,
) -> bytes:
    """The helper's half of section 4.3: the sum of its masks over a list of report keys, packed.

    ``secret`` is the mask scalar of helper number ``party`` (1 to 255). ``threads`` is 0 for all
    cores, at most 256; the result does not depend on it. The keys are taken as they come: that they
    are acceptable and ascending is for the caller to see first. Raises ValueError if a key gives an
    all-zero Diffie-Hellman result, naming the smallest index; section 4.2 makes that a bug.
    """

def pack(values: _Values, width: SupportsIndex) -> bytes:
    """The values modulo 2^width as a payload."""

def unpack(payload: bytes, width: SupportsIndex) -> bytes:
    """The words of a payload lifted to [-2^(width-1), 2^(width-1)), as little-endian int64 bytes.

    ``np.frombuffer(unpack(payload, width), "<i8")`` is the vector. Raises ValueError if the payload
    is not a whole number of words.
    """

def add_payloads(
    total: bytes, bodies: Sequence[bytes], offset: SupportsIndex, width: SupportsIndex
) -> bytes:
    """``total`` plus, modulo 2^width, the payload at ``offset`` of every body; a new payload.

    The payload of a body is ``body[offset:offset + len(total)]``; what follows it is ignored.
    Raises ValueError if ``total`` is not a whole number of words or a body is too short, naming its
    index.
    """

def sub_payloads(
    total: bytes, bodies: Sequence[bytes], offset: SupportsIndex, width: SupportsIndex
) -> bytes:
    """``add_payloads`` with minus."""

def discrete_gaussian(
    suite: SupportsIndex, seed: bytes, variance: SupportsIndex, count: SupportsIndex
) -> bytes:
    """``count`` draws of the exact discrete Gaussian of section 7, as little-endian int64 bytes.

    ``variance`` is the parameter sigma^2, an integer from 1 to 2^53 - 1. The same seed gives the
    same draws everywhere: the order in which PRG(seed) is read is normative. The time it takes
    depends on the draws. Source: Canonne, Kamath, Steinke, arXiv 2004.00010, algorithms 1 to 3.
    """
