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

/// The values of u below p whose point has an order dividing 8, on the curve or on its twist,
/// little-endian: 0, 1, p - 1 and the two of order 8.
const SMALL_ORDER: [Key; 5] = [
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
    // One pass over all bytes: the time does not tell where a non-zero byte stands.
    let any = dh.iter().fold(0, |any, byte| any | byte);
    (any != 0).then_some(dh)
}

/// Whether `key` encodes a value below p = 2^255 - 19 with the top bit clear and not of small order.
pub fn key_is_acceptable(key: &Key) -> bool {
    let [low, second, third, top] = limbs(key);
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

fn limbs(key: &Key) -> [u64; 4] {
    let (bytes, _) = key.as_chunks::<8>();
    std::array::from_fn(|index| u64::from_le_bytes(bytes[index]))
}
