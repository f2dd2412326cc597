//! All unsafe code of the four-way ladder: the door to it, and the products of limbs.
//!
//! The products are written as instructions because the compiler, which takes the multiplication
//! intrinsic for an ordinary product of 64-bit numbers, replaces some by three multiplications and
//! keeps the ten sums in memory instead of registers: that took twice as long. They are straight
//! lines: no jump, and no address that depends on data.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{__m256i, _mm256_set1_epi64x};
use std::mem::MaybeUninit;

use super::field::LIMBS;
use super::{four_way, Pair};
use crate::curve::Key;

type Limbs = [__m256i; LIMBS];

/// Whether this processor has what `multiply` needs. The answer is remembered after the first time.
pub fn is_able() -> bool {
    is_x86_feature_detected!("avx2")
}

/// X25519 of each pair, four at a time; false, with nothing done, on another processor.
pub fn multiply(pairs: &[Pair], products: &mut [Key]) -> bool {
    if !is_able() {
        return false;
    }
    // SAFETY: all that makes the function unsafe to call is that it uses AVX2, which is there.
    unsafe { four_way::multiply(pairs, products) };
    true
}

/// Calls a test of `field`.
#[cfg(test)]
pub fn run(test: unsafe fn()) {
    assert!(is_able());
    // SAFETY: as above.
    unsafe { test() };
}

/// `a` := limb i of f. The names in braces are registers; an element is 32 bytes apart from the next.
macro_rules! load_once {
    ($i:literal) => {
        concat!("vmovdqa {a}, [{f} + 32*", $i, "]\n")
    };
}

/// `a` := limb i of f, `b` := twice that.
macro_rules! load_twice {
    ($i:literal) => {
        concat!(load_once!($i), "vpaddq {b}, {a}, {a}\n")
    };
}

/// `a` := limb i of f, `b` := twice that, `c` := four times that.
macro_rules! load_four_times {
    ($i:literal) => {
        concat!(load_twice!($i), "vpaddq {c}, {b}, {b}\n")
    };
}

/// Limb j of w := `factor` times limb j of `from`.
macro_rules! wrap {
    ($($factor:ident $from:ident $j:literal),+) => {
        concat!($(
            "vpmuludq {t}, {", stringify!($factor), "}, [{", stringify!($from), "} + 32*", $j, "]\n",
            "vmovdqa [{w} + 32*", $j, "], {t}\n",
        )+)
    };
}

/// A sum := `factor` times limb j of `from`, for each sum named.
macro_rules! first {
    ($($sum:ident $factor:ident $from:ident $j:literal),+) => {
        concat!($(
            "vpmuludq {", stringify!($sum), "}, {", stringify!($factor), "}, [{",
            stringify!($from), "} + 32*", $j, "]\n",
        )+)
    };
}

/// A sum += `factor` times limb j of `from`, for each sum named.
macro_rules! more {
    ($($sum:ident $factor:ident $from:ident $j:literal),+) => {
        concat!($(
            "vpmuludq {t}, {", stringify!($factor), "}, [{", stringify!($from), "} + 32*", $j, "]\n",
            "vpaddq {", stringify!($sum), "}, {", stringify!($sum), "}, {t}\n",
        )+)
    };
}

/// The ten sums of products of a product of f and g; `field` has the bounds.
///
/// Limbs i and j meet in sum i + j. Beyond 9 they meet in sum i + j - 10, 19 times: w has the limbs
/// of g 19 times. If both are odd they count twice, because ceil(25.5 i) + ceil(25.5 j) is then one
/// more than ceil(25.5 (i + j)).
#[inline]
#[target_feature(enable = "avx2")]
pub fn products(f: &Limbs, g: &Limbs) -> Limbs {
    let mut w = MaybeUninit::<Limbs>::uninit();
    let (s0, s1, s2, s3, s4);
    let (s5, s6, s7, s8, s9);
    // SAFETY: every address is one of the ten limbs of f, g or w, aligned as its type demands; f and
    // g are read, w is written and is this function's own, and limbs of w are read only after they
    // were written. The registers are those that the block names, and AVX2 is enabled here.
    unsafe {
        asm!(
            wrap!(
                n g 1, n g 2, n g 3, n g 4, n g 5, n g 6, n g 7, n g 8, n g 9
            ),
            load_once!(0),
            first!(
                s0 a g 0, s1 a g 1, s2 a g 2, s3 a g 3, s4 a g 4, s5 a g 5, s6 a g 6, s7 a g 7,
                s8 a g 8, s9 a g 9
            ),
            load_twice!(1),
            more!(
                s0 b w 9, s1 a g 0, s2 b g 1, s3 a g 2, s4 b g 3, s5 a g 4, s6 b g 5, s7 a g 6,
                s8 b g 7, s9 a g 8
            ),
            load_once!(2),
            more!(
                s0 a w 8, s1 a w 9, s2 a g 0, s3 a g 1, s4 a g 2, s5 a g 3, s6 a g 4, s7 a g 5,
                s8 a g 6, s9 a g 7
            ),
            load_twice!(3),
            more!(
                s0 b w 7, s1 a w 8, s2 b w 9, s3 a g 0, s4 b g 1, s5 a g 2, s6 b g 3, s7 a g 4,
                s8 b g 5, s9 a g 6
            ),
            load_once!(4),
            more!(
                s0 a w 6, s1 a w 7, s2 a w 8, s3 a w 9, s4 a g 0, s5 a g 1, s6 a g 2, s7 a g 3,
                s8 a g 4, s9 a g 5
            ),
            load_twice!(5),
            more!(
                s0 b w 5, s1 a w 6, s2 b w 7, s3 a w 8, s4 b w 9, s5 a g 0, s6 b g 1, s7 a g 2,
                s8 b g 3, s9 a g 4
            ),
            load_once!(6),
            more!(
                s0 a w 4, s1 a w 5, s2 a w 6, s3 a w 7, s4 a w 8, s5 a w 9, s6 a g 0, s7 a g 1,
                s8 a g 2, s9 a g 3
            ),
            load_twice!(7),
            more!(
                s0 b w 3, s1 a w 4, s2 b w 5, s3 a w 6, s4 b w 7, s5 a w 8, s6 b w 9, s7 a g 0,
                s8 b g 1, s9 a g 2
            ),
            load_once!(8),
            more!(
                s0 a w 2, s1 a w 3, s2 a w 4, s3 a w 5, s4 a w 6, s5 a w 7, s6 a w 8, s7 a w 9,
                s8 a g 0, s9 a g 1
            ),
            load_twice!(9),
            more!(
                s0 b w 1, s1 a w 2, s2 b w 3, s3 a w 4, s4 b w 5, s5 a w 6, s6 b w 7, s7 a w 8,
                s8 b w 9, s9 a g 0
            ),
            f = in(reg) f,
            g = in(reg) g,
            w = in(reg) w.as_mut_ptr(),
            n = in(ymm_reg) _mm256_set1_epi64x(19),
            a = out(ymm_reg) _,
            b = out(ymm_reg) _,
            t = out(ymm_reg) _,
            s0 = out(ymm_reg) s0,
            s1 = out(ymm_reg) s1,
            s2 = out(ymm_reg) s2,
            s3 = out(ymm_reg) s3,
            s4 = out(ymm_reg) s4,
            s5 = out(ymm_reg) s5,
            s6 = out(ymm_reg) s6,
            s7 = out(ymm_reg) s7,
            s8 = out(ymm_reg) s8,
            s9 = out(ymm_reg) s9,
            options(nostack, preserves_flags)
        );
    }
    [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9]
}

/// The ten sums of products of the square of f: `products` with what occurs twice taken together.
///
/// Limbs i < j count twice, and twice more if both are odd. w has limbs 5 to 9 of f 19 times, odd
/// ones 38 times: an odd limb beyond sum 9 meets another limb, twice, or itself, an odd one.
#[inline]
#[target_feature(enable = "avx2")]
pub fn squares(f: &Limbs) -> Limbs {
    let mut w = MaybeUninit::<Limbs>::uninit();
    let (s0, s1, s2, s3, s4);
    let (s5, s6, s7, s8, s9);
    // SAFETY: as in `products`.
    unsafe {
        asm!(
            "vpaddq {c}, {n}, {n}",
            wrap!(c f 5, n f 6, c f 7, n f 8, c f 9),
            load_twice!(0),
            first!(
                s0 a f 0, s1 b f 1, s2 b f 2, s3 b f 3, s4 b f 4, s5 b f 5, s6 b f 6, s7 b f 7,
                s8 b f 8, s9 b f 9
            ),
            load_four_times!(1),
            more!(
                s2 b f 1, s3 b f 2, s4 c f 3, s5 b f 4, s6 c f 5, s7 b f 6, s8 c f 7, s9 b f 8,
                s0 b w 9
            ),
            load_twice!(2),
            more!(s4 a f 2, s5 b f 3, s6 b f 4, s7 b f 5, s8 b f 6, s9 b f 7, s0 b w 8, s1 a w 9),
            load_four_times!(3),
            more!(s6 b f 3, s7 b f 4, s8 c f 5, s9 b f 6, s0 b w 7, s1 b w 8, s2 b w 9),
            load_twice!(4),
            more!(s8 a f 4, s9 b f 5, s0 b w 6, s1 a w 7, s2 b w 8, s3 a w 9),
            load_twice!(5),
            more!(s0 a w 5, s1 b w 6, s2 b w 7, s3 b w 8, s4 b w 9),
            load_twice!(6),
            more!(s2 a w 6, s3 a w 7, s4 b w 8, s5 a w 9),
            load_twice!(7),
            more!(s4 a w 7, s5 b w 8, s6 b w 9),
            load_twice!(8),
            more!(s6 a w 8, s7 a w 9),
            load_once!(9),
            more!(s8 a w 9),
            f = in(reg) f,
            w = in(reg) w.as_mut_ptr(),
            n = in(ymm_reg) _mm256_set1_epi64x(19),
            a = out(ymm_reg) _,
            b = out(ymm_reg) _,
            c = out(ymm_reg) _,
            t = out(ymm_reg) _,
            s0 = out(ymm_reg) s0,
            s1 = out(ymm_reg) s1,
            s2 = out(ymm_reg) s2,
            s3 = out(ymm_reg) s3,
            s4 = out(ymm_reg) s4,
            s5 = out(ymm_reg) s5,
            s6 = out(ymm_reg) s6,
            s7 = out(ymm_reg) s7,
            s8 = out(ymm_reg) s8,
            s9 = out(ymm_reg) s9,
            options(nostack, preserves_flags)
        );
    }
    [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9]
}
