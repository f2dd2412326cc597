//! X25519 (RFC 7748) and the rule which public keys are acceptable (docs/protocol.md section
//! 4.2).
//!
//! Ingest and ask refuse the same keys by the same rule, so that two parties never disagree on a
//! list. A key that passes has a Diffie-Hellman result other than zero with every clamped scalar.

#![forbid(unsafe_code)]

use curve25519_dalek::montgomery::MontgomeryPoint;
use zeroize::Zeroizing;

/// Bytes of a key, scalar or shared point.
pub const KEY_BYTES: usize = 32;

pub type Key = [u8; KEY_BYTES];

/// The encoding of the base point, u = 9.
pub(crate) const BASE_POINT: Key = {
    let mut key = [0; KEY_BYTES];
    key[0] = 9;
    key
};

/// The values of u below p whose point has an order dividing 8, on the curve or on its twist,
/// little-endian: 0, 1, p - 1 and the two of order 8.
pub(crate) const SMALL_ORDER: [Key; 5] = [
    [0; 32],
    [
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0,
    ],
    [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0x7f,
    ],
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
];

/// The function X25519 of RFC 7748 section 5: the scalar is clamped, the top bit of the point is
/// ignored, and an all-zero result is returned as it is.
pub fn x25519(scalar: &Key, point: &Key) -> Key {
    MontgomeryPoint(*point).mul_clamped(*scalar).to_bytes()
}

/// The public key of `scalar`: X25519(scalar, 9).
pub fn x25519_public(scalar: &Key) -> Key {
    MontgomeryPoint::mul_base_clamped(*scalar).to_bytes()
}

/// X25519, or None where the result is all zero (RFC 7748 section 6.1; RFC 9180 section 7.1.4).
pub fn diffie_hellman(scalar: &Key, peer: &Key) -> Option<Zeroizing<Key>> {
    let dh = Zeroizing::new(x25519(scalar, peer));
    (!is_all_zero(&dh)).then_some(dh)
}

/// One pass over all bytes: the time does not tell where a non-zero byte stands.
pub fn is_all_zero(key: &Key) -> bool {
    key.iter().fold(0, |any, byte| any | byte) == 0
}

/// Whether `key` encodes a value below p = 2^255 - 19 with the top bit clear and not of small order.
pub fn key_is_acceptable(key: &Key) -> bool {
    let [low, second, third, top] = words(key);
    // p and everything above it, the top bit included: 7f ff .. ff ed and up.
    let canonical = top < 0x7fff_ffff_ffff_ffff
        || (top == 0x7fff_ffff_ffff_ffff
            && !(low >= u64::MAX - 18 && second == u64::MAX && third == u64::MAX));
    canonical && !SMALL_ORDER.contains(key)
}

/// Index of the first unacceptable key.
pub fn first_unacceptable(keys: &[Key]) -> Option<usize> {
    keys.iter().position(|key| !key_is_acceptable(key))
}

/// Index of the first key that is not greater, byte by byte, than the one before it.
pub fn first_not_ascending(keys: &[Key]) -> Option<usize> {
    keys.windows(2).position(|pair| pair[0] >= pair[1]).map(|index| index + 1)
}

/// The four little-endian words of a key.
pub(crate) fn words(key: &Key) -> [u64; 4] {
    let (bytes, _) = key.as_chunks::<8>();
    std::array::from_fn(|index| u64::from_le_bytes(bytes[index]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    // RFC 7748 section 5.2.
    #[test]
    fn single_multiplications_of_rfc_7748() {
        let scalar = hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
        let point = hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
        let output = hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
        assert_eq!(x25519(&scalar, &point), output);
        let scalar = hex("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d");
        let point = hex("e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493");
        let output = hex("95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957");
        assert_eq!(x25519(&scalar, &point), output);
    }

    // RFC 7748 section 5.2.
    #[test]
    fn thousand_iterations_of_rfc_7748() {
        let mut scalar = hex("0900000000000000000000000000000000000000000000000000000000000000");
        let mut point = scalar;
        for iteration in 1..=1000 {
            (scalar, point) = (x25519(&scalar, &point), scalar);
            if iteration == 1 {
                let once = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
                assert_eq!(scalar, hex(once));
            }
        }
        let thousand = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
        assert_eq!(scalar, hex(thousand));
    }

    // RFC 7748 section 6.1.
    #[test]
    fn key_agreement_of_rfc_7748() {
        let alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let alice_public = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let bob_public = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(x25519_public(&alice), alice_public);
        assert_eq!(x25519_public(&bob), bob_public);
        assert_eq!(*diffie_hellman(&alice, &bob_public).unwrap(), shared);
        assert_eq!(*diffie_hellman(&bob, &alice_public).unwrap(), shared);
    }

    #[test]
    fn small_order_keys_are_refused_and_give_zero() {
        for key in SMALL_ORDER {
            assert!(!key_is_acceptable(&key));
            assert!(diffie_hellman(&[0x55; 32], &key).is_none());
            let mut top_bit = key;
            top_bit[31] |= 0x80;
            assert!(!key_is_acceptable(&top_bit));
        }
    }

    #[test]
    fn only_values_below_p_are_acceptable() {
        let mut key = [0xff; 32];
        key[31] = 0x7f;
        for (low, acceptable) in [(0xeb, true), (0xec, false), (0xed, false), (0xff, false)] {
            key[0] = low;
            assert_eq!(key_is_acceptable(&key), acceptable, "{low:#x}");
        }
        // Any limb below that of p makes the value smaller than p.
        for index in [8, 16, 24, 31] {
            let mut key = [0xff; 32];
            key[31] = 0x7f;
            key[index] = 0x7e;
            assert!(key_is_acceptable(&key), "{index}");
        }
        assert!(key_is_acceptable(&hex(
            "0200000000000000000000000000000000000000000000000000000000000000"
        )));
    }

    #[test]
    fn the_first_offender_of_a_list_is_found() {
        let keys: Vec<Key> =
            (2..9).map(|low| std::array::from_fn(|i| low * (i == 0) as u8)).collect();
        assert_eq!(first_unacceptable(&keys), None);
        assert_eq!(first_not_ascending(&keys), None);
        let mut bad = keys.clone();
        bad[3] = [0; 32];
        bad[5] = [0; 32];
        assert_eq!(first_unacceptable(&bad), Some(3));
        assert_eq!(first_not_ascending(&bad), Some(3));
        let mut repeated = keys.clone();
        repeated[4] = repeated[3];
        assert_eq!(first_not_ascending(&repeated), Some(4));
        // Byte by byte from the front, which is not the order of the little-endian values.
        let mut last_byte = keys;
        last_byte[0][31] = 1;
        assert_eq!(first_not_ascending(&last_byte), None);
    }
}
