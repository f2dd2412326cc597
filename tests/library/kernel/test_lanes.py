"""Multiplication in lanes is X25519: against ``cryptography``, which shares no code with it.

Scalars and points differ in every lane. Seeds are fixed: what fails here fails again.
"""

import random

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from dandelion import kernel
from tests.oracle import KEY_BYTES, SMALL_ORDER, P

ONES = 2**255 - 1
# What a limb of 25 or 26 bits is full of, or begins and ends with.
LIMB_EDGES = [2 ** -(-51 * limb // 2) + step for limb in range(1, 10) for step in (-1, 0, 1)]
EDGES = [*range(20), *range(P - 20, ONES + 1), *SMALL_ORDER, *LIMB_EDGES]


def shared(scalar: bytes, point: bytes) -> bytes:
    try:
        return X25519PrivateKey.from_private_bytes(scalar).exchange(
            X25519PublicKey.from_public_bytes(point)
        )
    except ValueError:
        # It refuses an all-zero result, the function of RFC 7748 returns it.
        return bytes(KEY_BYTES)


def check(pairs: list[tuple[bytes, bytes]]) -> None:
    products = kernel.x25519_many(
        b"".join(scalar for scalar, _ in pairs), b"".join(point for _, point in pairs)
    )
    for index, (scalar, point) in enumerate(pairs):
        product = products[KEY_BYTES * index : KEY_BYTES * (index + 1)]
        assert product == shared(scalar, point), (index, scalar.hex(), point.hex())


def test_random_pairs() -> None:
    """Three thousand pairs in one list."""
    drawn = random.Random(1)
    check([(drawn.randbytes(32), drawn.randbytes(32)) for _ in range(3000)])


@pytest.mark.parametrize("lane", range(4))
def test_edges_of_the_field(lane: int) -> None:
    """Points around 0, p and 2^255, of small order, and with full limbs, with and without the bit
    that is ignored, in every lane.
    """
    drawn = random.Random(lane)
    values = [value + top for value in EDGES for top in (0, 2**255)]
    other = (drawn.randbytes(32), drawn.randbytes(32))
    points = [value.to_bytes(KEY_BYTES, "little") for value in values]
    check([other] * lane + [(drawn.randbytes(32), point) for point in points])


@pytest.mark.parametrize("length", [*range(10), 63, 64, 65, 129])
def test_lists_of_every_length(length: int) -> None:
    """Lists that fill no group of lanes, and none at all."""
    drawn = random.Random(length)
    check([(drawn.randbytes(32), drawn.randbytes(32)) for _ in range(length)])


def test_scalars_with_few_bits() -> None:
    """Scalars that clamping changes much: none, all, and single bits."""
    point = random.Random(2).randbytes(32)
    scalars = [0, 2**256 - 1, *(2**bit for bit in range(256))]
    check([(scalar.to_bytes(KEY_BYTES, "little"), point) for scalar in scalars])


def test_a_thousand_iterations_of_rfc_7748_in_all_lanes_together() -> None:
    """Every lane goes its own way from another start; one of them is that of the RFC."""
    drawn = random.Random(3)
    base = bytes([9]) + bytes(31)
    starts = [base, *(drawn.randbytes(32) for _ in range(4))]
    scalars = points = b"".join(starts)
    for _ in range(1000):
        scalars, points = kernel.x25519_many(scalars, points), scalars
    end = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"
    assert scalars[:KEY_BYTES].hex() == end
    for lane, start in enumerate(starts[1:], start=1):
        scalar = point = start
        for _ in range(1000):
            scalar, point = shared(scalar, point), scalar
        assert scalars[KEY_BYTES * lane : KEY_BYTES * (lane + 1)] == scalar


def test_what_the_oracle_says_of_small_order() -> None:
    """The control: the other implementation agrees that these give zero, and others do not."""
    scalar = random.Random(4).randbytes(32)
    for value in SMALL_ORDER:
        assert shared(scalar, value.to_bytes(KEY_BYTES, "little")) == bytes(KEY_BYTES)
    assert shared(scalar, (2).to_bytes(KEY_BYTES, "little")) != bytes(KEY_BYTES)
