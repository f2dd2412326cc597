//! The Montgomery ladder of RFC 7748 section 5 on four pairs of scalar and point at a time.
//!
//! Every lane has a scalar of its own. The course of the computation is the same for all inputs: a
//! bit of a scalar is a mask that selects, and the index of a bit is counted.

#![forbid(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm256_and_si256, _mm256_andnot_si256, _mm256_or_si256, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_srl_epi64, _mm256_sub_epi64, _mm256_xor_si256, _mm_cvtsi32_si128,
};

use zeroize::Zeroize;

use super::field::{side_by_side, Four, Strings, LANES};
use super::Pair;
use crate::curve::Key;

/// Fours that share an inversion.
const GROUPS: usize = 16;
/// (A - 2) / 4 of the curve, RFC 7748 section 4.1.
const A24: i64 = 121_665;

/// X25519 of each pair.
#[target_feature(enable = "avx2")]
pub fn multiply(pairs: &[Pair], products: &mut [Key]) {
    let block = LANES * GROUPS;
    for (pairs, products) in pairs.chunks(block).zip(products.chunks_mut(block)) {
        multiply_block(pairs, products);
    }
}

#[target_feature(enable = "avx2")]
fn multiply_block(pairs: &[Pair], products: &mut [Key]) {
    let mut x = [Four::zero(); GROUPS];
    let mut z = [Four::one(); GROUPS];
    let mut groups = 0;
    for pairs in pairs.chunks(LANES) {
        // Lanes without a pair do the last one again.
        let lane = |index: usize| pairs[index.min(pairs.len() - 1)];
        let four = [lane(0), lane(1), lane(2), lane(3)];
        let mut scalars = clamped(side_by_side(four.map(|(scalar, _)| scalar)));
        let x1 = Four::decode(four.map(|(_, point)| point));
        ladder(&scalars, &x1, &mut x[groups], &mut z[groups]);
        scalars.zeroize();
        groups += 1;
    }
    divide(&mut x[..groups], &mut z[..groups]);
    for (x, products) in x.iter().zip(products.chunks_mut(LANES)) {
        let mut four = x.encode();
        products.copy_from_slice(&four[..products.len()]);
        four.zeroize();
    }
    x.zeroize();
    z.zeroize();
}

/// Numerators and denominators of the products, tight.
///
/// The state is kP = (x2 : z2) and (k + 1)P = (x3 : z3) if the last bit was 0, and the other way
/// round if it was 1: what was doubled, then what was added. Adding does not mind the order, so a
/// step selects only which of the two it doubles: the first if the bit is the last one again.
#[target_feature(enable = "avx2")]
fn ladder(scalars: &Strings, x1: &Four, x2: &mut Four, z2: &mut Four) {
    (*x2, *z2) = (Four::one(), Four::zero());
    let mut work = [Four::zero(); 13];
    let [x3, z3, a, b, c, d, e, f, g, da, cb, aa, bb] = &mut work;
    (*x3, *z3) = (*x1, Four::one());
    let mut last = _mm256_setzero_si256();
    // The names are those of RFC 7748. The order is one in which few steps wait for the one before.
    for t in (0..255).rev() {
        let bit = bit(scalars, t);
        let second = _mm256_xor_si256(bit, last);
        last = bit;
        Four::set_sum_and_difference(a, b, x2, z2);
        Four::set_sum_and_difference(c, d, x3, z3);
        e.set_selected(a, c, second);
        f.set_selected(b, d, second);
        da.set_product(d, a);
        cb.set_product(c, b);
        aa.set_square(e);
        bb.set_square(f);
        Four::set_sum_and_difference(a, b, da, cb);
        Four::set_difference_and_multiple(e, f, aa, bb, A24);
        g.set_square(b);
        x2.set_product(aa, bb);
        z2.set_product(f, e);
        z3.set_product(g, x1);
        x3.set_square(a);
    }
    // The last bit of a clamped scalar is 0: (x2 : z2) is the product.
    work.zeroize();
}

/// x := x / z, or 0 where z is 0; what is left in z is of no use. Tight, from tight elements.
///
/// Lane by lane one inversion serves all groups: the inverse of the product of all z, times the
/// product of all others, is the inverse of one.
#[target_feature(enable = "avx2")]
fn divide(x: &mut [Four], z: &mut [Four]) {
    let mut work = [Four::one(); GROUPS + 4];
    let [one, product, inverse, quotient, before @ ..] = &mut work;
    for ((x, z), before) in x.iter_mut().zip(z.iter_mut()).zip(before.iter_mut()) {
        let is_zero = z.is_zero();
        x.clear(is_zero);
        quotient.set_selected(z, one, is_zero);
        *z = *quotient;
        *before = *product;
        product.set_product(before, z);
    }
    *inverse = product.invert();
    for ((x, z), before) in x.iter_mut().zip(z.iter_mut()).zip(before.iter()).rev() {
        product.set_product(inverse, before);
        quotient.set_product(product, x);
        *x = *quotient;
        product.set_product(inverse, z);
        *inverse = *product;
    }
    work.zeroize();
}

/// All ones in the lanes whose scalar has bit t.
#[inline]
#[target_feature(enable = "avx2")]
fn bit(scalars: &Strings, t: usize) -> __m256i {
    let down = _mm256_srl_epi64(scalars[t / 64], _mm_cvtsi32_si128((t % 64) as i32));
    let bit = _mm256_and_si256(down, _mm256_set1_epi64x(1));
    _mm256_sub_epi64(_mm256_setzero_si256(), bit)
}

/// The scalars as RFC 7748 section 5 decodes them: bits 0, 1, 2 and 255 clear, bit 254 set.
#[inline]
#[target_feature(enable = "avx2")]
fn clamped([low, second, third, top]: Strings) -> Strings {
    let top = _mm256_andnot_si256(_mm256_set1_epi64x(i64::MIN), top);
    [
        _mm256_andnot_si256(_mm256_set1_epi64x(7), low),
        second,
        third,
        _mm256_or_si256(top, _mm256_set1_epi64x(1 << 62)),
    ]
}
