"""Known answers of a whole round of two clients and two helpers, and one that must not come out."""

import hashlib

import nacl.signing
import numpy as np
import pytest

from dandelion import kernel

SUITE = kernel.SUITE_X25519_CHACHA20
CTX = bytes.fromhex("8fbe850e56ba1603ee53eaca86e6f7c0f7ffbaacfb670a213a70be64a0949797")
SET = bytes.fromhex("d0ff910724a87eb75896d1a4045286b4a0c856d88c753c5bd4587c3e29bb420a")
SHARD = bytes(2)
VALUES = {1: np.array([1, 2, 3, -5]), 2: np.array([10, 0, 0, 7])}


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def roots() -> list[bytes]:
    """The round roots of the helpers, in ascending order of their identities."""
    identities = {
        bytes(nacl.signing.SigningKey(sha256(f"kat identity {i}")).verify_key): i for i in (1, 2)
    }
    return [sha256(f"kat root {identities[identity]}") for identity in sorted(identities)]


def secrets() -> list[bytes]:
    return [kernel.expand(root, "mask-key", b"", 32) for root in roots()]


def report(client: int) -> tuple[bytes, bytes]:
    mask_keys = b"".join(kernel.x25519_public(secret) for secret in secrets())
    return kernel.mask(SUITE, 32, CTX, sha256(f"kat client {client}"), mask_keys, VALUES[client])


def masked_sum() -> bytes:
    return kernel.add_payloads(bytes(16), [report(client)[1] for client in VALUES], 0, 32)


@pytest.mark.parametrize(
    "party, seed",
    [
        (1, "7caf964c9859c383c2678bcd73d07f1c41b17794fea134952b5d8f41b5ff46f0"),
        (2, "bd69f9a0e01af36c34cc75bd3b348a28cc0d3441806bb07215e54c104a275a0f"),
    ],
)
def test_mask_seeds(party: int, seed: str) -> None:
    """The seeds of client 1, as the client and as the helper derive them."""
    esk = sha256("kat client 1")
    sk = secrets()[party - 1]
    epk, pk = kernel.x25519_public(esk), kernel.x25519_public(sk)
    for scalar, peer in ((esk, pk), (sk, epk)):
        shared = kernel.shared_secret(scalar, peer, epk, pk)
        assert kernel.mask_seed(shared, CTX, party).hex() == seed


def test_report() -> None:
    """Version, round id, key and payload of client 1's report."""
    epk, payload = report(1)
    assert (b"\x01" + CTX[:16] + epk + payload).hex() == (
        "018fbe850e56ba1603ee53eaca86e6f7c0214ee0fff6e8b684e3569d4704f4d402e4b737452dc2f433bf"
        "3717626c3ff165aaab1b589c1e9a4837c248bead865d51"
    )


def test_set_digest() -> None:
    """The set of both clients, whose digest goes into the noise."""
    epks = b"".join(sorted(report(client)[0] for client in VALUES))
    count = len(VALUES).to_bytes(4, "big")
    assert hashlib.sha256(b"dandelion/v1/set\x00" + CTX + SHARD + count + epks).digest() == SET


def test_masked_sum() -> None:
    """The digest of the sum of both payloads."""
    digest = "5b123376134095ae11a7472628ea591030a542b0879b2b4bcfb14dae38c21a24"
    assert hashlib.sha256(masked_sum()).hexdigest() == digest


@pytest.mark.parametrize(
    "party, seed",
    [
        (1, "63d0c75840e89455a5179db393b18d07526c08680530b383fbaac7dd7a505616"),
        (2, "ead50e21e5f08be40f6040c53517049924f69c1c50809d863001d60c1f1116c0"),
    ],
)
def test_noise_seeds(party: int, seed: str) -> None:
    """The helpers' noise seeds for this set."""
    root = roots()[party - 1]
    assert kernel.expand(root, "noise", CTX + SHARD + SET, 32).hex() == seed


def test_sum_without_masks() -> None:
    """Masked sum minus both helpers' mask sums is the sum of the values."""
    epks = b"".join(sorted(report(client)[0] for client in VALUES))
    shares = [
        kernel.mask_sum(SUITE, 32, 4, CTX, party, secret, epks)
        for party, secret in enumerate(secrets(), start=1)
    ]
    total = kernel.unpack(kernel.sub_payloads(masked_sum(), shares, 0, 32), 32)
    assert np.frombuffer(total, "<i8").tolist() == [11, 2, 3, 2]


def test_the_seed_without_party_index_does_not_come_back() -> None:
    """A first draft left the party out of the seed; its value must be nobody's seed now.

    Without the index two equal mask keys give one mask twice, and the low bit of a report is clear.
    """
    ctx = sha256("dandelion kat round")
    esk, sk = sha256("kat client"), sha256("kat helper 1")
    epk, pk = kernel.x25519_public(esk), kernel.x25519_public(sk)
    shared = kernel.shared_secret(esk, pk, epk, pk)
    assert shared.hex() == "e87fedb1090847c7c145f97e7f160b2c7eb46c5292adf2f2605aed64260192b6"
    broken = kernel.hkdf_expand(shared, b"dandelion/b0/mask/v1" + bytes([SUITE]) + ctx, 32)
    assert broken.hex() == "c7616d6fc4247b621858e869d6073ee03f63e67e670a963096b32fd176dc756f"
    seeds = [kernel.mask_seed(shared, ctx, party) for party in range(1, 256)]
    assert broken not in seeds
    assert len(set(seeds)) == 255
