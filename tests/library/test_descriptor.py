"""The descriptor: one byte string, one meaning (docs/protocol.md section 3)."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dandelion.descriptor import (
    Descriptor,
    Envelope,
    decode_partial_envelope,
    partial_envelope,
    sign_descriptor,
)
from dandelion.encoding import canonical_json, parse_canonical_json
from dandelion.errors import WireError
from dandelion.vectors.inputs import COLLECTOR, descriptors, known_answer_descriptor

KNOWN = known_answer_descriptor()


def test_known_answer() -> None:
    """Length and ctx are the published ones."""
    assert len(KNOWN.encode()) == 248
    assert KNOWN.ctx.hex() == "8fbe850e56ba1603ee53eaca86e6f7c0f7ffbaacfb670a213a70be64a0949797"


def test_every_single_byte_change_is_refused_or_is_another_descriptor() -> None:
    """Whatever one byte becomes, the result fails to decode or is another round altogether."""
    data = KNOWN.encode()
    decoded = 0
    for at in range(len(data)):
        for value in range(256):
            if value == data[at]:
                continue
            changed = data[:at] + bytes([value]) + data[at + 1 :]
            try:
                other = Descriptor.decode(changed)
            except WireError:
                continue
            decoded += 1
            assert other.encode() == changed
            assert other.ctx != KNOWN.ctx
            assert other != KNOWN
    assert decoded > 0


def test_every_truncation_and_a_trailing_byte_fail() -> None:
    """A descriptor has exactly one length."""
    data = KNOWN.encode()
    for size in range(len(data)):
        with pytest.raises(WireError):
            Descriptor.decode(data[:size])
    with pytest.raises(WireError, match="trailing"):
        Descriptor.decode(data + b"\x00")


@pytest.mark.parametrize("name", descriptors())
def test_decode_undoes_encode(name: str) -> None:
    """Every choice there is survives a round trip."""
    descriptor = descriptors()[name]
    assert Descriptor.decode(descriptor.encode()) == descriptor


@given(st.binary(max_size=400))
def test_decode_raises_wire_error_or_returns_what_encodes_to_the_same_bytes(data: bytes) -> None:
    """No input makes the decoder fail in another way."""
    try:
        descriptor = Descriptor.decode(data)
    except WireError:
        return
    assert descriptor.encode() == data


@given(st.data())
def test_mutations_never_fail_in_another_way(data: st.DataObject) -> None:
    """As above, close to a valid descriptor, where the interesting paths are."""
    mutable = bytearray(KNOWN.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutable) - 1))
        mutable[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(mutable)))
    raw = bytes(mutable[:cut]) + data.draw(st.binary(max_size=4))
    with contextlib.suppress(WireError):
        assert Descriptor.decode(raw).encode() == raw


def test_overflow_bound_is_exact() -> None:
    """The largest cohort that fits is accepted, one more is not, for any size of noise."""
    room = 2**31 - 1 - KNOWN.noise_bound
    assert KNOWN.noise_bound == 12 * 8  # ceil(sqrt(52)) = 8
    fits = replace(KNOWN, cohort_max=4_000_000, linf=500, l2sq=250_000)
    assert fits.cohort_max * fits.linf <= room
    linf = room // 1000
    replace(KNOWN, cohort_max=1000, linf=linf, l2sq=linf**2)
    with pytest.raises(WireError, match="overflow"):
        replace(KNOWN, cohort_max=1000, linf=linf + 1, l2sq=(linf + 1) ** 2)


def test_round_id_names_the_descriptor() -> None:
    """One id, one descriptor: it is a hash, so a second descriptor has a second id."""
    assert KNOWN.round_id == KNOWN.ctx[:16]
    assert replace(KNOWN, noise_var=27).round_id != KNOWN.round_id


def test_partial_envelope_round_trip() -> None:
    """What the collector shows a helper comes back, verified."""
    signature = sign_descriptor(KNOWN, COLLECTOR)
    assert decode_partial_envelope(partial_envelope(KNOWN, signature)) == (KNOWN, signature)
    with pytest.raises(WireError, match="bad_signature"):
        decode_partial_envelope(partial_envelope(KNOWN, bytes(64)))


def test_envelope_names_the_signer_that_fails() -> None:
    """A reader of the error knows whose signature is wrong."""
    forged = Envelope(KNOWN, (sign_descriptor(KNOWN, COLLECTOR), bytes(64), bytes(64)))
    with pytest.raises(WireError, match="helper 1"):
        Envelope.decode(forged.encode())


KEYS = st.sampled_from(["a", "b", "_", "ab", "z_z"])
LEAVES = st.text(max_size=8) | st.integers(-(2**53) + 1, 2**53 - 1)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, JSON, max_size=3))
def test_canonical_json_round_trip(value: dict[str, object]) -> None:
    """Writing and reading give the value back, or the writer refuses it."""
    try:
        data = canonical_json(value)  # type: ignore[arg-type]
    except WireError:
        return
    assert parse_canonical_json(data) == value
