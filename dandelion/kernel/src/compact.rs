//! X25519 and the stream of suite 1 in as few bytes of code as possible, for pages (`wasm`).
//!
//! A page downloads all that it runs, and the libraries that `curve` and `prg` use are written for
//! speed: compiled for a page they are five times this (docs/decisions/0015-wasm.md). Here everything
//! is a loop. The tests compare every result with the libraries'.
//!
//! An element of GF(2^255 - 19) is ten limbs, value = sum of limb i times 2^ceil(25.5 i): even limbs
//! stand for 26 bits, odd ones for 25. Nothing branches on a limb or uses one as an index. What is
//! left on the stack and in the arguments is the caller's to erase.

#![forbid(unsafe_code)]

pub const KEY_BYTES: usize = 32;

/// A scalar or a point, as in `curve`.
pub type Key = [u8; KEY_BYTES];

const LIMBS: usize = 10;
/// (486662 - 2) / 4 of RFC 7748 section 5.
const A24: i64 = 121_665;

/// Limbs after `carry` are *tight*: within their bits, limb 0 at most 19 off. Those of a sum or a
/// difference of two such elements have one bit more and a sign, and may be factors: a product of
/// limbs is then below 2^54 with what the radix adds, and ten of them 19-fold are below 2^62.
type Element = [i64; LIMBS];

const ZERO: Element = [0; LIMBS];

/// Bits of a limb.
fn bits(limb: usize) -> usize {
    26 - limb % 2
}

/// Makes limbs below 2^63 in magnitude tight. The first pass leaves limb 0 below 2^43, the second
/// carries at most one out of limb 9.
#[inline(never)]
fn carry(limbs: &mut Element) {
    for step in 0..2 * LIMBS {
        let i = step % LIMBS;
        let above = limbs[i] >> bits(i);
        limbs[i] -= above << bits(i);
        if i < LIMBS - 1 {
            limbs[i + 1] += above;
        } else {
            limbs[0] += 19 * above;
        }
    }
}

/// a * b, tight.
#[inline(never)]
fn product(a: &Element, b: &Element) -> Element {
    let mut sums = [0; 2 * LIMBS];
    for i in 0..LIMBS {
        for j in 0..LIMBS {
            // Two odd limbs meet half a bit above their place each.
            sums[i + j] += a[i] * (b[j] << (i & j & 1));
        }
    }
    let mut out = ZERO;
    for i in 0..LIMBS {
        out[i] = sums[i] + 19 * sums[i + LIMBS];
    }
    carry(&mut out);
    out
}

/// a + factor * b, not carried.
#[inline(never)]
fn sum(a: &Element, factor: i64, b: &Element) -> Element {
    let mut out = *a;
    for i in 0..LIMBS {
        out[i] += factor * b[i];
    }
    out
}

/// Exchanges the two where `swap` is 1, and does as much where it is 0.
#[inline(never)]
fn exchange(swap: i64, a: &mut Element, b: &mut Element) {
    for i in 0..LIMBS {
        let different = -swap & (a[i] ^ b[i]);
        a[i] ^= different;
        b[i] ^= different;
    }
}

/// The inverse, by the power p - 2; that of zero is zero.
fn inverse(a: &Element) -> Element {
    let mut power = *a;
    for bit in (0..254).rev() {
        power = product(&power, &power);
        // 2^255 - 21 has all of its 255 bits set but those of 2^2 and 2^4.
        if bit != 2 && bit != 4 {
            power = product(&power, a);
        }
    }
    power
}

/// The value of the low 255 bits.
fn decode(bytes: &Key) -> Element {
    let mut limbs = ZERO;
    for bit in 0..8 * KEY_BYTES - 1 {
        // Limb i begins at bit ceil(25.5 i), and that is the i with which bit / 25.5 begins.
        let limb = 2 * bit / 51;
        let from = (51 * limb).div_ceil(2);
        limbs[limb] |= i64::from(bytes[bit / 8] >> (bit % 8) & 1) << (bit - from);
    }
    limbs
}

/// The representative below p of a tight element.
fn encode(limbs: &Element) -> Key {
    // Limb 0 may be off still, but only if those above are not about to carry.
    let mut limbs = *limbs;
    carry(&mut limbs);
    // p or more, if 19 more carry out of limb 9; then the value less p is these 19 more without that.
    let mut above = 19;
    for (i, limb) in limbs.iter().enumerate() {
        above = (limb + above) >> bits(i);
    }
    limbs[0] += 19 * above;
    for i in 0..LIMBS {
        let over = limbs[i] >> bits(i);
        limbs[i] -= over << bits(i);
        if i < LIMBS - 1 {
            limbs[i + 1] += over;
        }
    }
    let mut bytes = [0; KEY_BYTES];
    for bit in 0..8 * KEY_BYTES - 1 {
        let limb = 2 * bit / 51;
        let from = (51 * limb).div_ceil(2);
        bytes[bit / 8] |= ((limbs[limb] >> (bit - from) & 1) as u8) << (bit % 8);
    }
    bytes
}

/// X25519 (RFC 7748 section 5), as `curve::x25519`.
pub fn x25519(scalar: &Key, point: &Key) -> Key {
    let mut clamped = *scalar;
    clamped[0] &= 248;
    clamped[31] = clamped[31] & 127 | 64;
    let x1 = decode(point);
    let (mut x2, mut z2, mut x3, mut z3) = (ZERO, ZERO, x1, ZERO);
    x2[0] = 1;
    z3[0] = 1;
    let mut swapped = 0;
    for i in (0..255).rev() {
        let bit = i64::from(clamped[i / 8] >> (i % 8) & 1);
        exchange(swapped ^ bit, &mut x2, &mut x3);
        exchange(swapped ^ bit, &mut z2, &mut z3);
        swapped = bit;
        let (a, b) = (sum(&x2, 1, &z2), sum(&x2, -1, &z2));
        let cb = product(&sum(&x3, 1, &z3), &b);
        let da = product(&sum(&x3, -1, &z3), &a);
        let (aa, bb) = (product(&a, &a), product(&b, &b));
        let (both, apart) = (sum(&da, 1, &cb), sum(&da, -1, &cb));
        x3 = product(&both, &both);
        z3 = product(&product(&apart, &apart), &x1);
        x2 = product(&aa, &bb);
        let e = sum(&aa, -1, &bb);
        let mut multiple = sum(&aa, A24, &e);
        carry(&mut multiple);
        z2 = product(&multiple, &e);
    }
    exchange(swapped, &mut x2, &mut x3);
    exchange(swapped, &mut z2, &mut z3);
    encode(&product(&x2, &inverse(&z2)))
}

/// Words of a block of ChaCha20.
pub const BLOCK_WORDS: usize = 16;

/// The quarter round of RFC 8439 section 2.1.
#[inline(always)]
fn quarter_round(block: &mut [u32; BLOCK_WORDS], a: usize, b: usize, c: usize, d: usize) {
    add_and_turn(block, a, b, d, 16);
    add_and_turn(block, c, d, b, 12);
    add_and_turn(block, a, b, d, 8);
    add_and_turn(block, c, d, b, 7);
}

#[inline(always)]
fn add_and_turn(block: &mut [u32; BLOCK_WORDS], to: usize, from: usize, mixed: usize, by: u32) {
    block[to] = block[to].wrapping_add(block[from]);
    block[mixed] = (block[mixed] ^ block[to]).rotate_left(by);
}

/// The next block of ChaCha20 (RFC 8439 section 2.3); counts up.
fn chacha20_block(state: &mut [u32; BLOCK_WORDS]) -> [u32; BLOCK_WORDS] {
    let mut block = *state;
    // Written out, since with indices that are computed it would be thirty times as slow.
    for _ in 0..10 {
        quarter_round(&mut block, 0, 4, 8, 12);
        quarter_round(&mut block, 1, 5, 9, 13);
        quarter_round(&mut block, 2, 6, 10, 14);
        quarter_round(&mut block, 3, 7, 11, 15);
        quarter_round(&mut block, 0, 5, 10, 15);
        quarter_round(&mut block, 1, 6, 11, 12);
        quarter_round(&mut block, 2, 7, 8, 13);
        quarter_round(&mut block, 3, 4, 9, 14);
    }
    for i in 0..BLOCK_WORDS {
        block[i] = block[i].wrapping_add(state[i]);
    }
    state[12] = state[12].wrapping_add(1);
    block
}

/// Adds the stream that begins with `state` to the words; where they are `wide`, to pairs of words
/// of which the low one comes first.
pub fn add_stream(state: &mut [u32; BLOCK_WORDS], words: &mut [u32], wide: bool) {
    let mut block = [0; BLOCK_WORDS];
    let mut carried = 0;
    for (i, word) in words.iter_mut().enumerate() {
        if i % BLOCK_WORDS == 0 {
            block = chacha20_block(state);
        }
        let sum = u64::from(*word) + u64::from(block[i % BLOCK_WORDS]) + carried;
        *word = sum as u32;
        carried = if wide && i % 2 == 0 { sum >> 32 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::{self, words, SMALL_ORDER};
    use crate::pack::{Sum, Width};
    use crate::prg::{Prg, Suite};

    /// Bytes that look random, the same in every run.
    fn random_keys(count: usize) -> Vec<Key> {
        let mut bytes = vec![0; KEY_BYTES * count];
        Prg::new(Suite::X25519ChaCha20, &[7; 32]).fill(&mut bytes).unwrap();
        bytes.as_chunks().0.to_vec()
    }

    /// Points around every edge of the field, and what has no canonical encoding.
    fn edges() -> Vec<Key> {
        let mut edges = SMALL_ORDER.to_vec();
        for low in 0..=255 {
            let mut point = [0; KEY_BYTES];
            point[0] = low;
            edges.push(point);
            point = [0xff; KEY_BYTES];
            point[0] = low;
            edges.push(point);
            point[31] = 0x7f;
            edges.push(point);
        }
        edges
    }

    #[test]
    fn products_are_those_of_the_library() {
        let keys = random_keys(4000);
        for pair in keys.chunks_exact(2) {
            assert_eq!(x25519(&pair[0], &pair[1]), curve::x25519(&pair[0], &pair[1]));
        }
        for (scalar, point) in keys.iter().zip(edges()) {
            assert_eq!(x25519(scalar, &point), curve::x25519(scalar, &point), "{point:x?}");
        }
    }

    #[test]
    fn every_value_is_encoded_below_p() {
        for point in edges().into_iter().chain(random_keys(2000)) {
            let encoded = encode(&decode(&point));
            let mut value = words(&point);
            value[3] &= u64::MAX >> 1;
            let is_p_or_more = value[3] == u64::MAX >> 1
                && value[2] == u64::MAX
                && value[1] == u64::MAX
                && value[0] >= u64::MAX - 18;
            let expected = if is_p_or_more { [value[0].wrapping_add(19), 0, 0, 0] } else { value };
            assert_eq!(words(&encoded), expected, "{point:x?}");
        }
    }

    #[test]
    fn the_largest_limbs_do_not_overflow() {
        // Debug assertions are on in tests: an overflow would panic.
        let (mut high, mut low) = (ZERO, ZERO);
        for i in 0..LIMBS {
            high[i] = (2 << bits(i)) + 38;
            low[i] = -(1 << bits(i)) - 38;
        }
        for (a, b) in [(high, high), (high, low), (low, low)] {
            let limbs = product(&a, &b);
            assert!((0..LIMBS).all(|i| (-19..(1 << bits(i)) + 19).contains(&limbs[i])));
        }
    }

    #[test]
    fn streams_are_those_of_the_library() {
        let nonce = *b"LibsodiumDRG";
        for (key, slots) in random_keys(20).iter().zip([0, 1, 7, 8, 9, 15, 16, 17, 33, 1000]) {
            for width in [Width::W32, Width::W64] {
                let wide = width == Width::W64;
                let values: Vec<i64> = (0..slots).map(|slot| i64::MAX - 7 * slot).collect();
                let mut sum = Sum::from_values(width, &values);
                sum.add_stream(&mut Prg::new(Suite::X25519ChaCha20, key));
                let mut state = [0; BLOCK_WORDS];
                let start = [&b"expand 32-byte k"[..], key, &[0; 4], &nonce].concat();
                for (word, bytes) in state.iter_mut().zip(start.as_chunks().0) {
                    *word = u32::from_le_bytes(*bytes);
                }
                let mut made: Vec<u32> = values
                    .iter()
                    .flat_map(|&value| [value as u32, (value >> 32) as u32])
                    .enumerate()
                    .filter_map(|(i, word)| (wide || i % 2 == 0).then_some(word))
                    .collect();
                add_stream(&mut state, &mut made, wide);
                let bytes: Vec<u8> = made.iter().flat_map(|word| word.to_le_bytes()).collect();
                assert_eq!(bytes, sum.pack(), "{width:?}, {slots} slots");
            }
        }
    }
}
