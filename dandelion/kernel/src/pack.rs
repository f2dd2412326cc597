//! Vectors on the wire: words of 16, 24, 32 or 64 bits, two's complement, low byte first.
//!
//! Sums are kept in words of 32 or 64 bits, whose wrap-around is the reduction modulo 2^width,
//! because 2^width divides 2^32 or 2^64.

#![forbid(unsafe_code)]

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::BadArgument;
use crate::prg::Prg;

/// Slots that are folded at a time, so that the sum stays in the first-level cache.
const FOLD_SLOTS: usize = 4096;
/// Bytes of a mask stream that are made at a time; a multiple of every word.
const CHUNK_BYTES: usize = 4096;
/// Why no vector outruns its stream: `mask` admits 2^20 slots, a stream has 2^38 bytes.
const LONG_ENOUGH: &str = "a stream is longer than every vector";

/// Bits of a word on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    W16,
    W24,
    W32,
    W64,
}

impl Width {
    pub const ALL: [Self; 4] = [Self::W16, Self::W24, Self::W32, Self::W64];

    /// Bytes of a word on the wire.
    pub const fn bytes(self) -> usize {
        match self {
            Self::W16 => 2,
            Self::W24 => 3,
            Self::W32 => 4,
            Self::W64 => 8,
        }
    }

    pub const fn bits(self) -> u32 {
        8 * self.bytes() as u32
    }
}

impl TryFrom<u64> for Width {
    type Error = BadArgument;

    fn try_from(bits: u64) -> Result<Self, BadArgument> {
        Self::ALL
            .into_iter()
            .find(|width| u64::from(width.bits()) == bits)
            .ok_or_else(|| BadArgument::new("width", "must be 16, 24, 32 or 64"))
    }
}

/// Add or take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Plus,
    Minus,
}

enum Words {
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
}

/// A vector modulo 2^width that others are added to. Erased when it is dropped.
pub struct Sum {
    width: Width,
    words: Words,
    stream: Vec<u8>,
}

impl Sum {
    pub fn zero(width: Width, slots: usize) -> Self {
        let words = match width {
            Width::W64 => Words::Wide(vec![0; slots]),
            _ => Words::Narrow(vec![0; slots]),
        };
        let stream = Vec::new();
        Self { width, words, stream }
    }

    /// The values modulo 2^width.
    pub fn from_values(width: Width, values: &[i64]) -> Self {
        let words = match width {
            Width::W64 => Words::Wide(values.iter().map(|&value| value as u64).collect()),
            _ => Words::Narrow(values.iter().map(|&value| value as u32).collect()),
        };
        let stream = Vec::new();
        Self { width, words, stream }
    }

    /// Becomes the values modulo 2^width, as many as there are slots.
    pub fn set(&mut self, values: &[i64]) {
        match &mut self.words {
            Words::Narrow(words) => {
                words.iter_mut().zip(values).for_each(|(word, &value)| *word = value as u32);
            }
            Words::Wide(words) => {
                words.iter_mut().zip(values).for_each(|(word, &value)| *word = value as u64);
            }
        }
    }

    /// Adds one word of the stream to each slot: 32 bits of it, or 64 where the width is 64.
    pub fn add_stream(&mut self, prg: &mut Prg) {
        self.stream.resize(CHUNK_BYTES, 0);
        match &mut self.words {
            Words::Narrow(words) => {
                for words in words.chunks_mut(CHUNK_BYTES / 4) {
                    let stream = &mut self.stream[..4 * words.len()];
                    prg.fill(stream).expect(LONG_ENOUGH);
                    for (word, bytes) in words.iter_mut().zip(stream.as_chunks().0) {
                        *word = word.wrapping_add(u32::from_le_bytes(*bytes));
                    }
                }
            }
            Words::Wide(words) => {
                for words in words.chunks_mut(CHUNK_BYTES / 8) {
                    let stream = &mut self.stream[..8 * words.len()];
                    prg.fill(stream).expect(LONG_ENOUGH);
                    for (word, bytes) in words.iter_mut().zip(stream.as_chunks().0) {
                        *word = word.wrapping_add(u64::from_le_bytes(*bytes));
                    }
                }
            }
        }
    }

    /// Adds another sum of the same width and length.
    pub fn add(&mut self, other: &Self) {
        match (&mut self.words, &other.words) {
            (Words::Narrow(words), Words::Narrow(others)) => {
                for (word, other) in words.iter_mut().zip(others) {
                    *word = word.wrapping_add(*other);
                }
            }
            (Words::Wide(words), Words::Wide(others)) => {
                for (word, other) in words.iter_mut().zip(others) {
                    *word = word.wrapping_add(*other);
                }
            }
            _ => unreachable!("both sums have one width"),
        }
    }

    /// The words as they travel.
    pub fn pack(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        self.pack_into(&mut payload);
        payload
    }

    /// The words as they travel, after what `output` has.
    pub fn pack_into(&self, output: &mut Vec<u8>) {
        match (&self.words, self.width) {
            (Words::Wide(words), _) => append(output, words, |word| word.to_le_bytes()),
            (Words::Narrow(words), Width::W16) => {
                append(output, words, |word| (word as u16).to_le_bytes());
            }
            (Words::Narrow(words), Width::W24) => append(output, words, low3),
            (Words::Narrow(words), _) => append(output, words, |word| word.to_le_bytes()),
        }
    }
}

impl Zeroize for Sum {
    fn zeroize(&mut self) {
        match &mut self.words {
            Words::Narrow(words) => words.zeroize(),
            Words::Wide(words) => words.zeroize(),
        }
        self.stream.zeroize();
    }
}

impl Drop for Sum {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for Sum {}

/// The values modulo 2^width as they travel.
pub fn pack(width: Width, values: &[i64]) -> Vec<u8> {
    Sum::from_values(width, values).pack()
}

/// The words of `payload` lifted to [-2^(width-1), 2^(width-1)).
pub fn unpack(width: Width, payload: &[u8]) -> Result<Vec<i64>, BadArgument> {
    check_words(width, "payload", payload)?;
    Ok(match width {
        Width::W16 => words(payload, |bytes| i64::from(i16::from_le_bytes(*bytes))),
        // The word stands in the upper bytes, so that the shift back brings its sign down.
        Width::W24 => {
            words(payload, |&[a, b, c]: &[u8; 3]| i64::from(i32::from_le_bytes([0, a, b, c]) >> 8))
        }
        Width::W32 => words(payload, |bytes| i64::from(i32::from_le_bytes(*bytes))),
        Width::W64 => words(payload, |bytes| i64::from_le_bytes(*bytes)),
    })
}

/// `total` plus or minus, slot by slot modulo 2^width, the vectors that begin at `offset` of each
/// body and are as long as `total`.
pub fn fold_payloads(
    width: Width,
    sign: Sign,
    total: &[u8],
    bodies: &[&[u8]],
    offset: usize,
) -> Result<Vec<u8>, BadArgument> {
    check_words(width, "total", total)?;
    let end = offset.checked_add(total.len());
    let mut vectors = Vec::with_capacity(bodies.len());
    for (index, body) in bodies.iter().enumerate() {
        let vector = end.and_then(|end| body.get(offset..end)).ok_or_else(|| {
            let reason = format!("body {index} is shorter than the offset and the total");
            BadArgument::new("bodies", reason)
        })?;
        vectors.push(vector);
    }
    let mut output = total.to_vec();
    let step = FOLD_SLOTS * width.bytes();
    for (start, output) in (0..).step_by(step).zip(output.chunks_mut(step)) {
        for vector in &vectors {
            add_words(width, sign, output, &vector[start..start + output.len()]);
        }
    }
    Ok(output)
}

fn add_words(width: Width, sign: Sign, output: &mut [u8], vector: &[u8]) {
    match (width, sign) {
        (Width::W16, Sign::Plus) => combine(output, vector, |a: [u8; 2], b| {
            u16::from_le_bytes(a).wrapping_add(u16::from_le_bytes(b)).to_le_bytes()
        }),
        (Width::W16, Sign::Minus) => combine(output, vector, |a: [u8; 2], b| {
            u16::from_le_bytes(a).wrapping_sub(u16::from_le_bytes(b)).to_le_bytes()
        }),
        (Width::W24, Sign::Plus) => {
            combine(output, vector, |a, b| low3(word3(a).wrapping_add(word3(b))))
        }
        (Width::W24, Sign::Minus) => {
            combine(output, vector, |a, b| low3(word3(a).wrapping_sub(word3(b))))
        }
        (Width::W32, Sign::Plus) => combine(output, vector, |a: [u8; 4], b| {
            u32::from_le_bytes(a).wrapping_add(u32::from_le_bytes(b)).to_le_bytes()
        }),
        (Width::W32, Sign::Minus) => combine(output, vector, |a: [u8; 4], b| {
            u32::from_le_bytes(a).wrapping_sub(u32::from_le_bytes(b)).to_le_bytes()
        }),
        (Width::W64, Sign::Plus) => combine(output, vector, |a: [u8; 8], b| {
            u64::from_le_bytes(a).wrapping_add(u64::from_le_bytes(b)).to_le_bytes()
        }),
        (Width::W64, Sign::Minus) => combine(output, vector, |a: [u8; 8], b| {
            u64::from_le_bytes(a).wrapping_sub(u64::from_le_bytes(b)).to_le_bytes()
        }),
    }
}

fn combine<const N: usize>(
    output: &mut [u8],
    vector: &[u8],
    operation: impl Fn([u8; N], [u8; N]) -> [u8; N],
) {
    let (words, _) = output.as_chunks_mut::<N>();
    let (others, _) = vector.as_chunks::<N>();
    for (word, other) in words.iter_mut().zip(others) {
        *word = operation(*word, *other);
    }
}

fn word3([a, b, c]: [u8; 3]) -> u32 {
    u32::from_le_bytes([a, b, c, 0])
}

fn low3(word: u32) -> [u8; 3] {
    let [a, b, c, _] = word.to_le_bytes();
    [a, b, c]
}

/// Appends all words of a vector, each as `bytes` writes it.
pub(crate) fn append<T: Copy, const N: usize>(
    output: &mut Vec<u8>,
    words: &[T],
    bytes: impl Fn(T) -> [u8; N],
) {
    let start = output.len();
    output.resize(start + N * words.len(), 0);
    for (output, &word) in output[start..].as_chunks_mut().0.iter_mut().zip(words) {
        *output = bytes(word);
    }
}

fn words<const N: usize>(payload: &[u8], lift: impl Fn(&[u8; N]) -> i64) -> Vec<i64> {
    payload.as_chunks().0.iter().map(lift).collect()
}

fn check_words(width: Width, name: &'static str, payload: &[u8]) -> Result<(), BadArgument> {
    if payload.len().is_multiple_of(width.bytes()) {
        return Ok(());
    }
    let reason = format!("its length must be a multiple of {} bytes", width.bytes());
    Err(BadArgument::new(name, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest and the largest value of a width, what wraps to them, and small ones.
    fn edges(width: Width) -> Vec<(i64, i64)> {
        let low = i64::MIN >> (64 - width.bits());
        let mut edges = vec![(low, low), (!low, !low), (-1, -1), (0, 0), (1, 1)];
        if width != Width::W64 {
            edges.extend([(low - 1, !low), (-low, low), (i64::MIN, 0), (i64::MAX, -1)]);
        }
        edges
    }

    #[test]
    fn packing_reduces_and_unpacking_lifts() {
        for width in Width::ALL {
            let (values, lifted): (Vec<_>, Vec<_>) = edges(width).into_iter().unzip();
            let payload = pack(width, &values);
            assert_eq!(payload.len(), values.len() * width.bytes());
            assert_eq!(unpack(width, &payload).unwrap(), lifted, "{width:?}");
        }
    }

    #[test]
    fn the_low_byte_comes_first() {
        assert_eq!(pack(Width::W16, &[-2]), [0xfe, 0xff]);
        assert_eq!(pack(Width::W24, &[0x01_02_03]), [3, 2, 1]);
        assert_eq!(pack(Width::W32, &[0x01_02_03_04]), [4, 3, 2, 1]);
        assert_eq!(pack(Width::W64, &[1]), [1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn folding_wraps_and_reads_at_the_offset() {
        for width in Width::ALL {
            // More slots than are folded at a time.
            let slots = FOLD_SLOTS + 3;
            let high = i64::MAX >> (64 - width.bits());
            let total = pack(width, &vec![high; slots]);
            let mut body = vec![0x55; 7];
            body.extend(pack(width, &vec![1; slots]));
            body.push(0x55);
            let bodies = [&body[..], &body[..]];
            let sum = fold_payloads(width, Sign::Plus, &total, &bodies, 7).unwrap();
            assert_eq!(unpack(width, &sum).unwrap(), vec![-high; slots], "{width:?}");
            let back = fold_payloads(width, Sign::Minus, &sum, &bodies, 7).unwrap();
            assert_eq!(back, total);
        }
    }

    #[test]
    fn lengths_are_checked() {
        assert_eq!(unpack(Width::W24, &[0; 4]).unwrap_err().name, "payload");
        let fold = |total: &[u8], body: &[u8], offset| {
            fold_payloads(Width::W16, Sign::Plus, total, &[&[0; 8], body], offset).unwrap_err()
        };
        assert_eq!(fold(&[0; 3], &[0; 8], 0).name, "total");
        assert_eq!(fold(&[0; 4], &[0; 5], 2).name, "bodies");
        assert!(fold(&[0; 4], &[0; 5], 2).reason.contains("body 1"));
        assert_eq!(fold(&[0; 4], &[0; 8], usize::MAX).name, "bodies");
    }
}
