//! The arithmetic of four lanes against plain numbers modulo p, at the largest limbs it may meet.

use super::*;
use crate::ladder::machine;
use crate::testing::random_keys;

/// A number below 2^256, low word first. The plain arithmetic is slow, and obviously right.
type Number = [u64; 4];

const P: Number = [u64::MAX - 18, u64::MAX, u64::MAX, u64::MAX >> 1];

fn is_below(a: Number, b: Number) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

fn subtract(a: Number, b: Number) -> Number {
    let mut borrow = false;
    std::array::from_fn(|i| {
        let (difference, first) = a[i].overflowing_sub(b[i]);
        let (difference, second) = difference.overflowing_sub(u64::from(borrow));
        borrow = first || second;
        difference
    })
}

fn reduce(mut a: Number) -> Number {
    while !is_below(a, P) {
        a = subtract(a, P);
    }
    a
}

/// Of numbers below p, so that the sum is below 2^256.
fn add(a: Number, b: Number) -> Number {
    let mut carry = false;
    reduce(std::array::from_fn(|i| {
        let (sum, first) = a[i].overflowing_add(b[i]);
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        carry = first || second;
        sum
    }))
}

fn multiply(a: Number, b: Number) -> Number {
    let mut product = [0; 4];
    for bit in (0..256).rev() {
        product = add(product, product);
        if b[bit / 64] >> (bit % 64) & 1 == 1 {
            product = add(product, a);
        }
    }
    product
}

fn number(key: &Key) -> Number {
    reduce(words(key))
}

/// The value of ten limbs.
fn value(limbs: [u64; LIMBS]) -> Number {
    let mut value = [0; 4];
    for (index, limb) in limbs.into_iter().enumerate() {
        let mut shifted = reduce([limb, 0, 0, 0]);
        for _ in 0..(51 * index).div_ceil(2) {
            shifted = add(shifted, shifted);
        }
        value = add(value, shifted);
    }
    value
}

/// An element with these limbs in each lane.
#[target_feature(enable = "avx2")]
fn four(limbs: [[u64; LIMBS]; LANES]) -> Four {
    let mut element = Four::zero();
    for (index, register) in element.0.iter_mut().enumerate() {
        let [a, b, c, d] = limbs.map(|limbs| limbs[index] as i64);
        *register = _mm256_set_epi64x(d, c, b, a);
    }
    element
}

/// All limbs just below their bounds, none, and every second or a single one of them.
fn patterns(bounds: [i64; 2]) -> Vec<[u64; LIMBS]> {
    let highest = |index: usize| bounds[index % 2] as u64 - 1;
    let mut patterns = vec![std::array::from_fn(highest), [0; LIMBS]];
    for odd in 0..2 {
        let some = |i| if i % 2 == odd { highest(i) } else { 0 };
        patterns.push(std::array::from_fn(some));
    }
    for only in 0..LIMBS {
        patterns.push(std::array::from_fn(|i| if i == only { highest(i) } else { 0 }));
        patterns.push(std::array::from_fn(|i| if i == only { 0 } else { highest(i) }));
    }
    patterns
}

/// Runs `test` where there is AVX2; elsewhere this arithmetic is never used.
fn with_avx2(test: unsafe fn()) {
    if machine::is_able() {
        machine::run(test);
    }
}

#[test]
fn products_of_the_largest_limbs_are_right() {
    with_avx2(products_at_the_bounds);
}

#[target_feature(enable = "avx2")]
fn products_at_the_bounds() {
    let patterns = patterns(LOOSE);
    for (turn, &f) in patterns.iter().enumerate() {
        for &g in &patterns {
            // Each lane has another pair.
            let fs = [f, g, patterns[turn / 2], f];
            let gs = [g, g, f, patterns[0]];
            let mut product = Four::zero();
            product.set_product(&four(fs), &four(gs));
            assert!(product.is_within(TIGHT));
            let mut square = Four::zero();
            square.set_square(&four(fs));
            assert!(square.is_within(TIGHT));
            let keys = product.encode();
            let squares = square.encode();
            for lane in 0..LANES {
                let (f, g) = (value(fs[lane]), value(gs[lane]));
                assert_eq!(words(&keys[lane]), multiply(f, g));
                assert_eq!(words(&squares[lane]), multiply(f, f));
            }
        }
    }
}

#[test]
fn sums_and_differences_of_the_largest_limbs_are_right_and_loose() {
    with_avx2(sums_at_the_bounds);
}

#[target_feature(enable = "avx2")]
fn sums_at_the_bounds() {
    let patterns = patterns(TIGHT);
    let factor = (1 << 18) - 1;
    for &a in &patterns {
        for &b in &patterns {
            let (one, other) = (four([a, b, a, b]), four([b, a, a, b]));
            let [mut sum, mut difference, mut again, mut multiple] = [Four::zero(); 4];
            Four::set_sum_and_difference(&mut sum, &mut difference, &one, &other);
            Four::set_difference_and_multiple(&mut again, &mut multiple, &one, &other, factor);
            assert!(sum.is_within(LOOSE) && difference.is_within(LOOSE));
            assert!(again.is_within(LOOSE) && multiple.is_within(TIGHT));
            // A product with one makes them tight.
            let [sums, differences, agains] =
                [sum, difference, again].map(|loose| loose.times(&Four::one()).encode());
            assert_eq!(agains, differences);
            for (lane, (a, b)) in [(a, b), (b, a), (a, a), (b, b)].into_iter().enumerate() {
                let (a, b) = (value(a), value(b));
                let minus = add(a, subtract(P, b));
                assert_eq!(words(&sums[lane]), add(a, b));
                assert_eq!(words(&differences[lane]), minus);
                let scaled = add(a, multiply(minus, [factor as u64, 0, 0, 0]));
                assert_eq!(words(&multiple.encode()[lane]), scaled);
            }
        }
    }
}

#[test]
fn the_largest_sums_of_products_are_carried_to_tight_limbs() {
    with_avx2(carries_at_the_bounds);
}

#[target_feature(enable = "avx2")]
fn carries_at_the_bounds() {
    // No limb may be 2^63 or more, so every limb just below that is the worst there is.
    for pattern in patterns([i64::MAX, i64::MAX]) {
        let carried = Four(carry(four([pattern; LANES]).0));
        assert!(carried.is_within(TIGHT));
        assert_eq!(words(&carried.encode()[3]), value(pattern));
    }
}

#[test]
fn encodings_are_canonical() {
    with_avx2(encodings);
}

#[target_feature(enable = "avx2")]
fn encodings() {
    // 0 to 2^255 - 1 in spellings with the bits of each limb full, and tight limbs above them.
    for below in 0..=40 {
        let mut key = [0xff; 32];
        (key[0], key[31]) = (0xff - below, 0x7f);
        let low = std::array::from_fn(|i| if i == 0 { below } else { 0 });
        let keys = [&key, &low, &key, &low];
        let encoded = Four::decode(keys).encode();
        for (key, encoded) in keys.into_iter().zip(encoded) {
            assert_eq!(words(&encoded), number(key));
        }
        let zero = lanes(Four::decode(keys).is_zero());
        assert_eq!(zero.map(|lane| lane != 0), keys.map(|key| number(key) == [0; 4]));
    }
    for pattern in patterns(TIGHT) {
        assert_eq!(words(&four([pattern; LANES]).encode()[1]), value(pattern));
    }
    for mut key in random_keys(1, 1000) {
        let encoded = Four::decode([&key; LANES]).encode();
        key[31] &= 0x7f;
        assert_eq!(words(&encoded[2]), number(&key));
    }
}

#[test]
fn inverses_times_their_elements_are_one() {
    with_avx2(inverses);
}

#[target_feature(enable = "avx2")]
fn inverses() {
    for key in random_keys(2, 50) {
        let zero = [0; 32];
        let element = Four::decode([&key, &zero, &key, &key]);
        let products = element.times(&element.invert()).encode();
        let one = std::array::from_fn(|i| u8::from(i == 0));
        assert_eq!(products, [one, zero, one, one]);
    }
}
