//! Four elements of GF(2^255 - 19) side by side, one to each 64-bit lane of a register.
//!
//! An element is ten limbs, value = sum of limb i times 2^ceil(25.5 i): even limbs stand for 26 bits,
//! odd ones for 25. A register holds the same limb of all four, and one instruction works on four.
//! Nothing here branches on a limb or uses one as an index.
//!
//! Limbs come in two sizes, and every function says which it takes and gives:
//!
//! - *tight*: even limbs below 2^26 + 2^13, odd ones below 2^25 + 2^17. Products are.
//! - *loose*: even limbs 2^27 above that, odd ones 2^26. The sum of two tight elements is, and so is
//!   their difference with 2p added; factors may be.
//!
//! Loose even limbs and twice the odd ones are below 1.51 * 2^27. 19 times that is below
//! 29 * 2^27 < 2^32, the 32 bits that the multiplier reads. So no product of limbs is above
//! 1.51 * 2^27 * 29 * 2^27 < 44 * 2^54, and a sum of ten of them is below 2^63.

#![forbid(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm256_add_epi64, _mm256_and_si256, _mm256_andnot_si256, _mm256_blendv_epi8,
    _mm256_cmpeq_epi64, _mm256_cmpgt_epi64, _mm256_extract_epi64, _mm256_movemask_epi8,
    _mm256_mul_epu32, _mm256_or_si256, _mm256_set1_epi64x, _mm256_set_epi64x, _mm256_setzero_si256,
    _mm256_slli_epi64, _mm256_srli_epi64, _mm256_sub_epi64,
};

use zeroize::Zeroize;

use super::machine::{products, squares};
use crate::curve::{words, Key};

#[cfg(test)]
mod tests;

pub const LANES: usize = 4;
pub const LIMBS: usize = 10;

const LOW_26: i64 = (1 << 26) - 1;
const LOW_25: i64 = (1 << 25) - 1;
const TIGHT: [i64; 2] = [(1 << 26) + (1 << 13), (1 << 25) + (1 << 17)];
const LOOSE: [i64; 2] = [TIGHT[0] + (1 << 27), TIGHT[1] + (1 << 26)];
/// The limbs of 2p = 2 (2^255 - 1) - 36, none below that of a tight element.
const TWO_P: [i64; LIMBS] = {
    let (even, odd) = (2 * LOW_26, 2 * LOW_25);
    [even - 36, odd, even, odd, even, odd, even, odd, even, odd]
};

/// Four elements. A copy is as secret as the original: whoever keeps one wipes it.
#[derive(Clone, Copy)]
pub struct Four([__m256i; LIMBS]);

/// Four strings of 32 bytes: the first 8 bytes of each in one register, then the second, and so on.
pub type Strings = [__m256i; 4];

#[inline]
#[target_feature(enable = "avx2")]
pub fn side_by_side(strings: [&Key; LANES]) -> Strings {
    let [a, b, c, d] = strings.map(words);
    let mut registers = [_mm256_setzero_si256(); 4];
    for (i, register) in registers.iter_mut().enumerate() {
        *register = _mm256_set_epi64x(d[i] as i64, c[i] as i64, b[i] as i64, a[i] as i64);
    }
    registers
}

impl Four {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn zero() -> Self {
        Self([_mm256_setzero_si256(); LIMBS])
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn one() -> Self {
        let mut one = Self::zero();
        one.0[0] = _mm256_set1_epi64x(1);
        one
    }

    /// The values of four keys, tight. Top bits are ignored, and a value need not be below p.
    #[target_feature(enable = "avx2")]
    pub fn decode(keys: [&Key; LANES]) -> Self {
        let [w0, w1, w2, w3] = side_by_side(keys);
        let across = |low, high| {
            _mm256_or_si256(_mm256_srli_epi64::<51>(low), _mm256_slli_epi64::<13>(high))
        };
        let mut limbs = [
            w0,
            _mm256_srli_epi64::<26>(w0),
            across(w0, w1),
            _mm256_srli_epi64::<13>(w1),
            _mm256_srli_epi64::<38>(w1),
            w2,
            _mm256_srli_epi64::<25>(w2),
            across(w2, w3),
            _mm256_srli_epi64::<12>(w3),
            _mm256_srli_epi64::<38>(w3),
        ];
        for (index, limb) in limbs.iter_mut().enumerate() {
            *limb = low_bits(index, *limb);
        }
        Self(limbs)
    }

    /// The canonical encodings of four tight elements.
    #[target_feature(enable = "avx2")]
    pub fn encode(&self) -> [Key; LANES] {
        let l = self.canonical();
        let words = [
            either(l[0], _mm256_slli_epi64::<26>(l[1]), _mm256_slli_epi64::<51>(l[2])),
            either(
                _mm256_srli_epi64::<13>(l[2]),
                _mm256_slli_epi64::<13>(l[3]),
                _mm256_slli_epi64::<38>(l[4]),
            ),
            either(l[5], _mm256_slli_epi64::<25>(l[6]), _mm256_slli_epi64::<51>(l[7])),
            either(
                _mm256_srli_epi64::<13>(l[7]),
                _mm256_slli_epi64::<12>(l[8]),
                _mm256_slli_epi64::<38>(l[9]),
            ),
        ];
        let mut keys = [[0; 32]; LANES];
        for (at, word) in (0..).step_by(8).zip(words) {
            for (key, lane) in keys.iter_mut().zip(lanes(word)) {
                key[at..at + 8].copy_from_slice(&lane.to_le_bytes());
            }
        }
        keys
    }

    /// All ones in the lanes where the tight element is zero modulo p.
    #[target_feature(enable = "avx2")]
    pub fn is_zero(&self) -> __m256i {
        let mut any = _mm256_setzero_si256();
        for limb in self.canonical() {
            any = _mm256_or_si256(any, limb);
        }
        _mm256_cmpeq_epi64(any, _mm256_setzero_si256())
    }

    /// Zero in the lanes of `mask`, the element elsewhere.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn clear(&mut self, mask: __m256i) {
        for limb in &mut self.0 {
            *limb = _mm256_andnot_si256(mask, *limb);
        }
    }

    /// := `b` in the lanes where `mask` is all ones, `a` where it is zero.
    // Neither this nor the next two are inlined: together the compiler would hold more values than
    // there are registers, and move them about for longer than a call takes.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub fn set_selected(&mut self, a: &Self, b: &Self, mask: __m256i) {
        for ((limb, a), b) in self.0.iter_mut().zip(&a.0).zip(&b.0) {
            *limb = _mm256_blendv_epi8(*a, *b, mask);
        }
    }

    /// sum := a + b and difference := a - b, loose, from tight elements.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub fn set_sum_and_difference(sum: &mut Self, difference: &mut Self, a: &Self, b: &Self) {
        debug_assert!(a.is_within(TIGHT) && b.is_within(TIGHT));
        for (i, two_p) in TWO_P.into_iter().enumerate() {
            let (a, b) = (a.0[i], b.0[i]);
            let a_and_2p = _mm256_add_epi64(a, _mm256_set1_epi64x(two_p));
            sum.0[i] = _mm256_add_epi64(a, b);
            difference.0[i] = _mm256_sub_epi64(a_and_2p, b);
        }
    }

    /// difference := a - b, loose, and multiple := a + factor * (a - b), tight, from tight elements;
    /// `factor` is below 2^18.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub fn set_difference_and_multiple(
        difference: &mut Self,
        multiple: &mut Self,
        a: &Self,
        b: &Self,
        factor: i64,
    ) {
        debug_assert!(a.is_within(TIGHT) && b.is_within(TIGHT) && factor < 1 << 18);
        let factor = _mm256_set1_epi64x(factor);
        let mut sums = [_mm256_setzero_si256(); LIMBS];
        for (i, two_p) in TWO_P.into_iter().enumerate() {
            let (a, b) = (a.0[i], b.0[i]);
            let loose = _mm256_sub_epi64(_mm256_add_epi64(a, _mm256_set1_epi64x(two_p)), b);
            difference.0[i] = loose;
            sums[i] = _mm256_add_epi64(a, _mm256_mul_epu32(loose, factor));
        }
        multiple.0 = carry(sums);
    }

    /// := f * g, tight, from loose elements.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub fn set_product(&mut self, f: &Self, g: &Self) {
        debug_assert!(f.is_within(LOOSE) && g.is_within(LOOSE));
        self.0 = carry(products(&f.0, &g.0));
    }

    /// := f * f, tight, from a loose element.
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    pub fn set_square(&mut self, f: &Self) {
        debug_assert!(f.is_within(LOOSE));
        self.0 = carry(squares(&f.0));
    }

    /// The product, tight, of loose elements.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn times(&self, other: &Self) -> Self {
        let mut product = Self::zero();
        product.set_product(self, other);
        product
    }

    /// The element squared `times` times, at least once; tight, from a loose element.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn squared(&self, times: usize) -> Self {
        let (mut power, mut next) = (Self::zero(), Self::zero());
        power.set_square(self);
        for _ in 1..times {
            next.set_square(&power);
            power = next;
        }
        power
    }

    /// The inverse, tight, of a loose element; that of zero is zero. It is the power p - 2.
    #[target_feature(enable = "avx2")]
    pub fn invert(&self) -> Self {
        let to_2 = self.squared(1);
        let to_9 = to_2.squared(2).times(self);
        let to_11 = to_9.times(&to_2);
        // ones_n is the power 2^n - 1, and p - 2 = 2^255 - 21 = 2^5 (2^250 - 1) + 11.
        let ones_5 = to_11.squared(1).times(&to_9);
        let ones_10 = ones_5.squared(5).times(&ones_5);
        let ones_20 = ones_10.squared(10).times(&ones_10);
        let ones_40 = ones_20.squared(20).times(&ones_20);
        let ones_50 = ones_40.squared(10).times(&ones_10);
        let ones_100 = ones_50.squared(50).times(&ones_50);
        let ones_200 = ones_100.squared(100).times(&ones_100);
        let ones_250 = ones_200.squared(50).times(&ones_50);
        ones_250.squared(5).times(&to_11)
    }

    /// The limbs of the representative below p, each within its bits; from a tight element.
    #[target_feature(enable = "avx2")]
    fn canonical(&self) -> [__m256i; LIMBS] {
        debug_assert!(self.is_within(TIGHT));
        let nineteen = _mm256_set1_epi64x(19);
        let mut limbs = self.0;
        // The first pass leaves limbs 1 to 9 within their bits and limb 0 at most 38 above. The
        // second can carry out of limb 9 only if it carried out of limb 0, which is then below 38.
        for _ in 0..2 {
            let above = pass(&mut limbs);
            limbs[0] = _mm256_add_epi64(limbs[0], _mm256_mul_epu32(above, nineteen));
        }
        // The value is below 2^255, and p or more if 19 more carries out of limb 9. Then value - p
        // is these 19 more, without what was carried out.
        let mut more = limbs;
        more[0] = _mm256_add_epi64(more[0], nineteen);
        let above = pass(&mut more);
        let is_below = _mm256_cmpeq_epi64(above, _mm256_setzero_si256());
        for (limb, more) in limbs.iter_mut().zip(more) {
            *limb = _mm256_blendv_epi8(more, *limb, is_below);
        }
        limbs
    }

    /// Whether even limbs are below the first bound and odd ones below the second. For assertions.
    #[target_feature(enable = "avx2")]
    fn is_within(&self, bounds: [i64; 2]) -> bool {
        let mut outside = _mm256_setzero_si256();
        for (index, limb) in self.0.iter().enumerate() {
            let highest = _mm256_set1_epi64x(bounds[index % 2] - 1);
            // The comparison is signed: what is above 2^63 counts as negative.
            let wrong = _mm256_or_si256(
                _mm256_cmpgt_epi64(*limb, highest),
                _mm256_cmpgt_epi64(_mm256_setzero_si256(), *limb),
            );
            outside = _mm256_or_si256(outside, wrong);
        }
        _mm256_movemask_epi8(outside) == 0
    }
}

impl Zeroize for Four {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

/// The 64-bit lanes of a register.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes(register: __m256i) -> [u64; LANES] {
    [
        _mm256_extract_epi64::<0>(register) as u64,
        _mm256_extract_epi64::<1>(register) as u64,
        _mm256_extract_epi64::<2>(register) as u64,
        _mm256_extract_epi64::<3>(register) as u64,
    ]
}

/// Tight limbs of the same value modulo p, from limbs below 2^63.
///
/// Two chains run side by side, from 0 to 5 and from 5 to 0, so that half as many steps wait for
/// each other. What is carried is at most 2^38 + 2^12. So limb 5, carried from once more, ends within
/// its bits and gives limb 6 less than 2^13 on top of 26 bits; limb 0 gets less than 2^43,
/// carries once more, and gives limb 1 less than 2^17 on top of 25 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn carry(mut limbs: [__m256i; LIMBS]) -> [__m256i; LIMBS] {
    for from in [0, 5, 1, 6, 2, 7, 3, 8, 4] {
        let carried = take_high(&mut limbs, from);
        limbs[from + 1] = _mm256_add_epi64(limbs[from + 1], carried);
    }
    // 19 times, by shifts: this may have more than the 32 bits that the multiplier reads.
    let carried = take_high(&mut limbs, 9);
    let twice = _mm256_add_epi64(carried, carried);
    let thrice = _mm256_add_epi64(twice, carried);
    let nineteen_times = _mm256_add_epi64(_mm256_slli_epi64::<4>(carried), thrice);
    limbs[0] = _mm256_add_epi64(limbs[0], nineteen_times);
    for from in [5, 0] {
        let carried = take_high(&mut limbs, from);
        limbs[from + 1] = _mm256_add_epi64(limbs[from + 1], carried);
    }
    limbs
}

/// Carries from limb 0 to limb 9, one after the other, and gives what is carried out of that.
#[inline]
#[target_feature(enable = "avx2")]
fn pass(limbs: &mut [__m256i; LIMBS]) -> __m256i {
    for from in 0..LIMBS - 1 {
        let carried = take_high(limbs, from);
        limbs[from + 1] = _mm256_add_epi64(limbs[from + 1], carried);
    }
    take_high(limbs, LIMBS - 1)
}

/// Leaves a limb its bits and gives what it has above.
#[inline]
#[target_feature(enable = "avx2")]
fn take_high(limbs: &mut [__m256i; LIMBS], index: usize) -> __m256i {
    let limb = limbs[index];
    limbs[index] = low_bits(index, limb);
    if index.is_multiple_of(2) {
        _mm256_srli_epi64::<26>(limb)
    } else {
        _mm256_srli_epi64::<25>(limb)
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn low_bits(index: usize, limb: __m256i) -> __m256i {
    _mm256_and_si256(
        limb,
        _mm256_set1_epi64x(if index.is_multiple_of(2) { LOW_26 } else { LOW_25 }),
    )
}

#[inline]
#[target_feature(enable = "avx2")]
fn either(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_or_si256(a, b), c)
}
