//! What the unit tests of several modules need.

use sha2::{Digest, Sha256};

/// The bytes that `text` writes in hexadecimal.
pub fn hex<const N: usize>(text: &str) -> [u8; N] {
    let bytes = hex_bytes(text);
    bytes.try_into().expect("the text has another length")
}

pub fn hex_bytes(text: &str) -> Vec<u8> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty());
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("not hexadecimal") as u8;
    pairs.iter().map(|&[high, low]| 16 * digit(high) + digit(low)).collect()
}

/// `count` different keys from a seed: SHA-256 of a counter.
pub fn random_keys(seed: u64, count: u64) -> Vec<[u8; 32]> {
    let key =
        |index: u64| Sha256::digest([seed.to_le_bytes(), index.to_le_bytes()].concat()).into();
    (0..count).map(key).collect()
}
