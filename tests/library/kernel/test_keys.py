"""Which X25519 keys are acceptable (section 4.2), at the edges and for lists of a whole round."""

import pytest

from dandelion import kernel
from tests.oracle import SMALL_ORDER, P

BASE_POINT = (9).to_bytes(32, "little")
TOP_BIT = 2**255


def encoded(value: int) -> bytes:
    return value.to_bytes(32, "little")


@pytest.mark.parametrize("value", sorted(SMALL_ORDER))
def test_small_order_is_refused_and_would_give_zero(value: int) -> None:
    """Each of the five is refused; let in, it would make the shared point zero for any scalar."""
    assert not kernel.key_is_acceptable(encoded(value))
    for scalar in (bytes([1]) * 32, bytes([0xFF]) * 32):
        assert kernel.x25519(scalar, encoded(value)) == bytes(32)


@pytest.mark.parametrize("value", sorted(SMALL_ORDER))
def test_neighbours_of_small_order_are_acceptable(value: int) -> None:
    """One more and one less is an ordinary key, unless it is small itself or not below p."""
    for neighbour in (value - 1, value + 1):
        if 0 <= neighbour < P and neighbour not in SMALL_ORDER:
            assert kernel.key_is_acceptable(encoded(neighbour))


@pytest.mark.parametrize("value", [P, P + 1, P + 9, 2**255 - 1])
def test_values_from_p_on_are_refused(value: int) -> None:
    """A second spelling of a key is no key: the list would name one client twice."""
    assert not kernel.key_is_acceptable(encoded(value))


def test_a_second_spelling_would_be_the_same_key() -> None:
    """The control: the curve itself takes p + 9 and 2^255 + 9 for the base point."""
    scalar = bytes([5]) * 32
    for spelling in (P + 9, TOP_BIT + 9):
        assert kernel.x25519(scalar, encoded(spelling)) == kernel.x25519_public(scalar)


@pytest.mark.parametrize("value", [9, *sorted(SMALL_ORDER), P - 2])
def test_the_top_bit_is_refused(value: int) -> None:
    """No key has the bit that X25519 ignores."""
    assert not kernel.key_is_acceptable(encoded(value + TOP_BIT))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_other_lengths_are_unacceptable(length: int) -> None:
    """A key has 32 bytes."""
    assert not kernel.key_is_acceptable(BASE_POINT.ljust(64, b"\x01")[:length])


@pytest.mark.parametrize("index", [0, 1, 500_000, 999_999])
def test_one_bad_key_in_a_million_is_found(index: int) -> None:
    """The first offender of a long list is named by its index, for both rules."""
    keys = bytearray(b"".join(i.to_bytes(4, "big") + bytes(28) for i in range(2, 1_000_002)))
    assert kernel.first_unacceptable(bytes(keys)) is None
    assert kernel.first_not_ascending(bytes(keys)) is None
    keys[32 * index : 32 * index + 32] = encoded(0)
    assert kernel.first_unacceptable(bytes(keys)) == index
    # Zero in the first place is below all others; anywhere else it is below the one before it.
    assert kernel.first_not_ascending(bytes(keys)) == (index or None)


def test_a_repeated_key_does_not_ascend() -> None:
    """Strictly ascending means that no key is there twice."""
    assert kernel.first_not_ascending(BASE_POINT * 2) == 1


def test_order_is_that_of_bytes_not_of_numbers() -> None:
    """The first byte counts most, although it is the lowest of the number."""
    low_number, high_number = encoded(0x0200), encoded(0x0101)
    assert kernel.first_not_ascending(low_number + high_number) is None
    assert kernel.first_not_ascending(high_number + low_number) == 1


def test_empty_lists_have_no_offender() -> None:
    """Nothing is in order."""
    assert kernel.first_unacceptable(b"") is None
    assert kernel.first_not_ascending(b"") is None
