"""The kernel and its twin against the published vectors of the primitives."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dandelion import kernel
from tests import oracle

PUBLISHED = Path(__file__).resolve().parents[2] / "vectors" / "published"

both = pytest.mark.parametrize("one", [kernel, oracle], ids=["kernel", "oracle"])


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


@both
@pytest.mark.parametrize(
    "scalar, point, output",
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        # The point has its top bit set: it is ignored.
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_x25519_of_rfc_7748_section_5_2(
    one: ModuleType, scalar: str, point: str, output: str
) -> None:
    """One multiplication gives the RFC's output."""
    assert one.x25519(unhex(scalar), unhex(point)).hex() == output


@both
@pytest.mark.parametrize(
    "iterations, output",
    [
        (1, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"),
        (1000, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"),
    ],
)
def test_x25519_iterated_as_in_rfc_7748(one: ModuleType, iterations: int, output: str) -> None:
    """Scalar and point fed back into each other end where the RFC says."""
    scalar = point = bytes([9]) + bytes(31)
    for _ in range(iterations):
        scalar, point = one.x25519(scalar, point), scalar
    assert scalar.hex() == output


@both
def test_key_agreement_of_rfc_7748_section_6_1(one: ModuleType) -> None:
    """Alice's and Bob's public keys and their common secret are the RFC's."""
    alice = unhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice_public = one.x25519_public(alice)
    bob_public = one.x25519_public(bob)
    assert alice_public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob_public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    secret = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert one.x25519(alice, bob_public).hex() == secret
    assert one.x25519(bob, alice_public).hex() == secret


@both
@pytest.mark.parametrize(
    "ikm, salt, info, prk, okm",
    [
        (
            bytes([0x0B]) * 22,
            bytes(range(0x0D)),
            bytes(range(0xF0, 0xFA)),
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)),
            bytes(range(0x60, 0xB0)),
            bytes(range(0xB0, 0x100)),
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb"
            "41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            bytes([0x0B]) * 22,
            b"",
            b"",
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
    ids=["A.1", "A.2", "A.3"],
)
def test_hkdf_of_rfc_5869(
    one: ModuleType, ikm: bytes, salt: bytes, info: bytes, prk: str, okm: str
) -> None:
    """Extract and expand give the values of the RFC's three cases with SHA-256."""
    extracted = one.hkdf_extract(salt, ikm)
    assert extracted.hex() == prk
    assert one.hkdf_expand(extracted, info, len(okm) // 2).hex() == okm


def test_the_twin_has_the_chacha20_block_of_rfc_8439() -> None:
    """The block function written from the RFC gives the block of its section 2.3.2."""
    nonce = unhex("000000090000004a00000000")
    assert oracle.chacha20_block(bytes(range(32)), 1, nonce).hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


@both
def test_suite_1_is_chacha20_of_rfc_8439(one: ModuleType) -> None:
    """The stream is the RFC's blocks under the nonce "LibsodiumDRG", counted from 0."""
    seed = bytes(range(32))
    blocks = [oracle.chacha20_block(seed, counter, b"LibsodiumDRG") for counter in range(20)]
    assert one.prg(kernel.SUITE_X25519_CHACHA20, seed, 20 * 64) == b"".join(blocks)


def test_the_block_cipher_has_the_vector_of_fips_197() -> None:
    """AES-256 as the next test uses it gives the ciphertext of FIPS 197 appendix C.3."""
    block = encrypt_block(bytes(range(32)), unhex("00112233445566778899aabbccddeeff"))
    assert block.hex() == "8ea2b7ca516745bfeafc49904b496089"


@both
def test_suite_2_is_counter_mode_of_sp_800_38a(one: ModuleType) -> None:
    """Block i of the stream is the encryption of i as a 128-bit big-endian number."""
    seed = bytes(range(32))
    # Past 256 blocks the counter carries into its second byte.
    blocks = [encrypt_block(seed, counter.to_bytes(16, "big")) for counter in range(260)]
    assert one.prg(kernel.SUITE_X25519_AES256CTR, seed, 260 * 16) == b"".join(blocks)


def encrypt_block(key: bytes, block: bytes) -> bytes:
    # One block at a time is what the vectors are about, not a mode for messages.
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


class Hpke:
    """The published case, and the receiver's side of RFC 9180 section 5.1 in base mode."""

    def __init__(self) -> None:
        path = PUBLISHED / "hpke" / "rfc9180_base_x25519_sha256_aes128gcm.json"
        (case,) = json.loads(path.read_text())
        self.enc = unhex(case["enc"])
        self.pk = unhex(case["pkRm"])
        self.sk = unhex(case["skRm"])
        self.info = unhex(case["info"])
        self.base_nonce = case["base_nonce"]
        (message,) = case["encryptions"]
        self.aad, self.ct, self.pt = (unhex(message[name]) for name in ("aad", "ct", "pt"))

    def key_and_nonce(self, one: ModuleType, secret: bytes) -> tuple[bytes, bytes]:
        suite_id = b"HPKE" + unhex("002000010001")

        def labeled_extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
            extracted: bytes = one.hkdf_extract(salt, b"HPKE-v1" + suite_id + label + ikm)
            return extracted

        def labeled_expand(prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
            labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info
            expanded: bytes = one.hkdf_expand(prk, labeled, length)
            return expanded

        psk_id_hash = labeled_extract(b"", b"psk_id_hash", b"")
        info_hash = labeled_extract(b"", b"info_hash", self.info)
        context = b"\x00" + psk_id_hash + info_hash
        prk = labeled_extract(secret, b"secret", b"")
        return (
            labeled_expand(prk, b"key", context, 16),
            labeled_expand(prk, b"base_nonce", context, 12),
        )


@both
def test_dhkem_of_rfc_9180_a_1_1(one: ModuleType) -> None:
    """The shared secret is the RFC's."""
    hpke = Hpke()
    secret = one.shared_secret(hpke.sk, hpke.enc, hpke.enc, hpke.pk)
    assert secret.hex() == "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc"


@both
def test_the_published_hpke_ciphertext_opens(one: ModuleType) -> None:
    """With the kernel's shared secret the key schedule opens the published ciphertext."""
    hpke = Hpke()
    secret = one.shared_secret(hpke.sk, hpke.enc, hpke.enc, hpke.pk)
    key, nonce = hpke.key_and_nonce(one, secret)
    assert nonce.hex() == hpke.base_nonce
    assert AESGCM(key).decrypt(nonce, hpke.ct, hpke.aad) == hpke.pt


def test_a_swapped_kem_context_does_not_open_it() -> None:
    """The control: with the two keys of the context in the other order the tag is wrong."""
    hpke = Hpke()
    secret = kernel.shared_secret(hpke.sk, hpke.enc, hpke.pk, hpke.enc)
    key, nonce = hpke.key_and_nonce(kernel, secret)
    with pytest.raises(InvalidTag):
        AESGCM(key).decrypt(nonce, hpke.ct, hpke.aad)
