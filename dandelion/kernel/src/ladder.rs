//! X25519 of many pairs of scalar and point: four at a time on processors with AVX2, one by one
//! elsewhere. The products are the same (docs/decisions/0013-four-way-ladder.md).
//!
//! `machine` has what is unsafe, `field` the arithmetic and `four_way` the ladder.

#![deny(unsafe_code)]

use zeroize::Zeroizing;

use crate::curve::{x25519, x25519_public, Key, BASE_POINT};

#[cfg(target_arch = "x86_64")]
mod field;
#[cfg(target_arch = "x86_64")]
mod four_way;
#[cfg(target_arch = "x86_64")]
mod machine;

#[cfg(test)]
mod tests;

/// A scalar, which is clamped, and a point, whose top bit is ignored: the arguments of `x25519`.
pub type Pair<'a> = (&'a Key, &'a Key);

/// Pairs that this processor multiplies at a time.
pub fn lanes() -> usize {
    #[cfg(target_arch = "x86_64")]
    if machine::is_able() {
        return field::LANES;
    }
    1
}

/// X25519 of each pair, all-zero results as they are.
pub fn x25519_many(pairs: &[Pair]) -> Zeroizing<Vec<Key>> {
    let mut products = Zeroizing::new(vec![[0; 32]; pairs.len()]);
    // A single pair is done sooner by a ladder with one lane.
    #[cfg(target_arch = "x86_64")]
    if pairs.len() > 1 && machine::multiply(pairs, &mut products) {
        return products;
    }
    multiply_one_by_one(pairs, &mut products);
    products
}

fn multiply_one_by_one(pairs: &[Pair], products: &mut [Key]) {
    for (product, (scalar, point)) in products.iter_mut().zip(pairs) {
        // Points are public, and for this one there is a table.
        *product =
            if **point == BASE_POINT { x25519_public(scalar) } else { x25519(scalar, point) };
    }
}
