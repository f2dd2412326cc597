"""The compiled kernel: curve, key derivation, masks, words on the wire and exact noise.

Sections 1, 4 and 7 of docs/protocol.md. Bytes go in and bytes come out; vectors go in as numpy
arrays of int64. The kernel keeps no state, draws no
randomness and checks no signature: secrets and seeds are arguments, and what a descriptor, a set
or an ask must look like is decided above it.

The functions are documented in ``dandelion/_kernel.pyi``; their plain Python twins, which the
tests compare them with, are in ``tests/oracle.py``.
"""

from dandelion._kernel import (
    KERNEL_VERSION,
    SUITE_X25519_AES256CTR,
    SUITE_X25519_CHACHA20,
    WIDTHS,
    X25519_LANES,
    add_payloads,
    dhkem_extract_and_expand,
    discrete_gaussian,
    expand,
    first_not_ascending,
    first_unacceptable,
    hkdf_expand,
    hkdf_extract,
    key_is_acceptable,
    mask,
    mask_many,
    mask_seed,
    mask_sum,
    pack,
    prg,
    shared_secret,
    sub_payloads,
    unpack,
    x25519,
    x25519_many,
    x25519_public,
)

__all__ = [
    "KERNEL_VERSION",
    "SUITE_X25519_AES256CTR",
    "SUITE_X25519_CHACHA20",
    "WIDTHS",
    "X25519_LANES",
    "add_payloads",
    "dhkem_extract_and_expand",
    "discrete_gaussian",
    "expand",
    "first_not_ascending",
    "first_unacceptable",
    "hkdf_expand",
    "hkdf_extract",
    "key_is_acceptable",
    "mask",
    "mask_many",
    "mask_seed",
    "mask_sum",
    "pack",
    "prg",
    "shared_secret",
    "sub_payloads",
    "unpack",
    "x25519",
    "x25519_many",
    "x25519_public",
]
