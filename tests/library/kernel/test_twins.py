"""Kernel and plain Python twin agree, whatever the arguments."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dandelion import kernel
from tests import oracle

keys = st.binary(min_size=32, max_size=32)
suites = st.sampled_from([kernel.SUITE_X25519_CHACHA20, kernel.SUITE_X25519_AES256CTR])
widths = st.sampled_from(kernel.WIDTHS)
parties = st.integers(1, 255)
int64s = st.integers(-(2**63), 2**63 - 1)
vectors = st.lists(int64s, max_size=40).map(lambda values: np.array(values, dtype=np.int64))
# Small variances, where rejections are many, and those whose fractions need all of 128 bits.
variances = st.one_of(st.integers(1, 2000), st.integers(2**40, 2**53 - 1), st.just(2**53 - 1))

# What decides whether a key is acceptable, with its neighbours and with the top bit set.
special_values = [
    value + step + top
    for value in (*sorted(oracle.SMALL_ORDER), oracle.P, oracle.P + 18)
    for step in (-1, 0, 1)
    for top in (0, 2**255)
    if 0 <= value + step < 2**255
]
special_keys = st.sampled_from(special_values).map(lambda value: value.to_bytes(32, "little"))

quick = settings(deadline=None, max_examples=50)


@quick
@given(scalar=keys, point=st.one_of(keys, special_keys))
def test_x25519(scalar: bytes, point: bytes) -> None:
    """The raw function, small-order points included, where the result is zero."""
    assert kernel.x25519(scalar, point) == oracle.x25519(scalar, point)
    assert kernel.x25519_public(scalar) == oracle.x25519_public(scalar)


@quick
@given(pairs=st.lists(st.tuples(keys, st.one_of(keys, special_keys)), max_size=9))
def test_x25519_many(pairs: list[tuple[bytes, bytes]]) -> None:
    """Lists of every length, multiples of the lanes or not, zero results among them."""
    scalars = b"".join(scalar for scalar, _ in pairs)
    points = b"".join(point for _, point in pairs)
    single = [oracle.x25519(scalar, point) for scalar, point in pairs]
    assert kernel.x25519_many(scalars, points) == b"".join(single)


@quick
@given(key=st.one_of(keys, special_keys, st.binary(max_size=33)))
def test_key_is_acceptable(key: bytes) -> None:
    """The rule of section 4.2."""
    assert kernel.key_is_acceptable(key) == oracle.key_is_acceptable(key)


@quick
@given(listed=st.lists(st.one_of(keys, special_keys), max_size=12), ascending=st.booleans())
def test_checks_of_lists(listed: list[bytes], ascending: bool) -> None:
    """The first unacceptable key, and the first that does not ascend."""
    joined = b"".join(sorted(listed) if ascending else listed)
    assert kernel.first_unacceptable(joined) == oracle.first_unacceptable(joined)
    assert kernel.first_not_ascending(joined) == oracle.first_not_ascending(joined)


@quick
@given(key=st.binary(max_size=100), info=st.binary(max_size=200), length=st.integers(0, 8160))
def test_hkdf(key: bytes, info: bytes, length: int) -> None:
    """Extract, expand and the labelled expand, for keys of any length."""
    assert kernel.hkdf_extract(key, info) == oracle.hkdf_extract(key, info)
    assert kernel.hkdf_expand(key, info, length) == oracle.hkdf_expand(key, info, length)
    assert kernel.expand(key, "noise", info, length) == oracle.expand(key, "noise", info, length)


@quick
@given(scalar=keys, peer_secret=keys, epk=keys, pk=keys, context=st.binary(max_size=100))
def test_dhkem(scalar: bytes, peer_secret: bytes, epk: bytes, pk: bytes, context: bytes) -> None:
    """ExtractAndExpand with any context, and the shared secret over any two keys."""
    peer = kernel.x25519_public(peer_secret)
    assert kernel.dhkem_extract_and_expand(peer, context) == oracle.dhkem_extract_and_expand(
        peer, context
    )
    assert kernel.shared_secret(scalar, peer, epk, pk) == oracle.shared_secret(
        scalar, peer, epk, pk
    )


@quick
@given(secret=keys, ctx=keys, party=parties)
def test_mask_seed(secret: bytes, ctx: bytes, party: int) -> None:
    """The seed of each party."""
    assert kernel.mask_seed(secret, ctx, party) == oracle.mask_seed(secret, ctx, party)


@quick
@given(suite=suites, seed=keys, length=st.integers(0, 5000))
def test_prg(suite: int, seed: bytes, length: int) -> None:
    """The streams, to the byte."""
    assert kernel.prg(suite, seed, length) == oracle.prg(suite, seed, length)


@quick
@given(values=vectors, width=widths)
def test_pack_and_unpack(values: oracle.Values, width: int) -> None:
    """Values wrap on the way out and are lifted on the way back."""
    payload = kernel.pack(values, width)
    assert payload == oracle.pack(values, width)
    assert kernel.unpack(payload, width) == oracle.unpack(payload, width)


@quick
@given(data=st.data(), width=widths, slots=st.integers(0, 20), offset=st.integers(0, 60))
def test_sums_of_payloads(data: st.DataObject, width: int, slots: int, offset: int) -> None:
    """Sum and difference of the payloads inside bodies that are longer."""
    size = slots * width // 8
    total = data.draw(st.binary(min_size=size, max_size=size))
    body = st.binary(min_size=offset + size, max_size=offset + size + 5)
    bodies = data.draw(st.lists(body, max_size=5))
    added = kernel.add_payloads(total, bodies, offset, width)
    assert added == oracle.add_payloads(total, bodies, offset, width)
    subtracted = kernel.sub_payloads(total, bodies, offset, width)
    assert subtracted == oracle.sub_payloads(total, bodies, offset, width)


@quick
@given(
    suite=suites,
    width=widths,
    ctx=keys,
    secret=keys,
    helpers=st.lists(keys, min_size=1, max_size=4),
    values=vectors,
)
def test_mask(
    suite: int, width: int, ctx: bytes, secret: bytes, helpers: list[bytes], values: oracle.Values
) -> None:
    """The client's key and masked payload."""
    mask_keys = b"".join(kernel.x25519_public(helper) for helper in helpers)
    masked = kernel.mask(suite, width, ctx, secret, mask_keys, values)
    assert masked == oracle.mask(suite, width, ctx, secret, mask_keys, values)


@quick
@given(
    suite=suites,
    width=widths,
    ctx=keys,
    secrets=st.lists(keys, max_size=6),
    helpers=st.lists(keys, min_size=1, max_size=4),
    values=vectors,
    head=st.binary(max_size=20),
    threads=st.integers(0, 3),
)
def test_mask_many(
    suite: int,
    width: int,
    ctx: bytes,
    secrets: list[bytes],
    helpers: list[bytes],
    values: oracle.Values,
    head: bytes,
    threads: int,
) -> None:
    """The reports of many clients, with one vector for all and with one for each."""
    mask_keys = b"".join(kernel.x25519_public(helper) for helper in helpers)
    each = np.array([np.roll(values, client) for client in range(len(secrets))], dtype=np.int64)
    for given_values in (values, each.reshape(len(secrets), len(values))):
        many = kernel.mask_many(
            suite, width, ctx, b"".join(secrets), mask_keys, given_values, head, threads
        )
        vectors_masked = np.broadcast_to(given_values, (len(secrets), len(values)))
        assert many == [
            head + b"".join(oracle.mask(suite, width, ctx, secret, mask_keys, vector))
            for secret, vector in zip(secrets, vectors_masked, strict=True)
        ]


@quick
@given(
    suite=suites,
    width=widths,
    slots=st.integers(0, 40),
    ctx=keys,
    party=parties,
    secret=keys,
    clients=st.lists(keys, max_size=5),
)
def test_mask_sum(
    suite: int,
    width: int,
    slots: int,
    ctx: bytes,
    party: int,
    secret: bytes,
    clients: list[bytes],
) -> None:
    """The helper's sum over a list of report keys."""
    epks = b"".join(kernel.x25519_public(client) for client in clients)
    summed = kernel.mask_sum(suite, width, slots, ctx, party, secret, epks)
    assert summed == oracle.mask_sum(suite, width, slots, ctx, party, secret, epks)


@settings(deadline=None, max_examples=100)
@given(suite=suites, seed=keys, variance=variances, count=st.integers(0, 60))
def test_discrete_gaussian(suite: int, seed: bytes, variance: int, count: int) -> None:
    """Every draw, hence every byte read, in the order of section 7."""
    drawn = kernel.discrete_gaussian(suite, seed, variance, count)
    assert drawn == oracle.discrete_gaussian(suite, seed, variance, count)


def test_streams_longer_than_the_pieces_they_are_made_in() -> None:
    """Vectors and draws that need many pieces of a stream are the twin's, too."""
    secret, ctx = bytes(range(32)), bytes(32)
    epks = kernel.x25519_public(bytes([1]) * 32) + kernel.x25519_public(bytes([2]) * 32)
    for suite in (kernel.SUITE_X25519_CHACHA20, kernel.SUITE_X25519_AES256CTR):
        for width in kernel.WIDTHS:
            summed = kernel.mask_sum(suite, width, 5003, ctx, 1, secret, epks)
            assert summed == oracle.mask_sum(suite, width, 5003, ctx, 1, secret, epks)
        drawn = kernel.discrete_gaussian(suite, secret, 27, 3000)
        assert drawn == oracle.discrete_gaussian(suite, secret, 27, 3000)
