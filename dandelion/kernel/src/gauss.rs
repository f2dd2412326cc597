//! The exact discrete Gaussian of Canonne, Kamath and Steinke (arXiv 2004.00010, algorithms 1 to 3).
//!
//! Integers only: no floating point, no approximation of exp. It reads one stream of `prg` from its
//! beginning, and the order in which it reads is normative (docs/protocol.md section 7), so that every
//! implementation gets the same noise from the same seed:
//!
//! ```text
//! uniform(m), m >= 1:  if m = 1 return 0 without reading. k = bit length of m - 1; read ceil(k/8)
//!     bytes as a little-endian integer, keep the low k bits, reject and read again while >= m.
//! bernoulli(n, d), 0 <= n <= d, d >= 1:  uniform(d) < n.
//! bernoulli_exp(n, d), true with probability exp(-n/d):
//!     if n <= d: k = 1; while bernoulli(n, d*k): k = k + 1; return whether k is odd.
//!     if n > d: floor(n/d) times: if not bernoulli_exp(1, 1) return false;
//!               then return bernoulli_exp(n mod d, d).
//! laplace(t):  u = uniform(t); if not bernoulli_exp(u, t) start again; v = 0;
//!     while bernoulli_exp(1, 1): v = v + 1; x = u + t*v; s = uniform(2);
//!     if s = 1 and x = 0 start again; return -x if s = 1, else x.
//! gaussian(v), v = sigma^2:  t = isqrt(v) + 1; y = laplace(t); n = (|y|*t - v)^2; d = 2*v*t^2;
//!     if bernoulli_exp(n, d) return y, else start again.
//! ```
//!
//! The time of a rejection sampler depends on its output (arXiv 2112.05307): nobody who must not
//! know the noise may see how long a call takes. Helpers answer through a poll for that reason.

#![forbid(unsafe_code)]

use zeroize::{Zeroize, Zeroizing};

use crate::error::BadArgument;
use crate::prg::{Prg, Suite, SEED_BYTES};

/// Variances are below 2^53, as every 64-bit field of a descriptor is.
pub const VARIANCE_MAX: u64 = (1 << 53) - 1;

const BUFFER_BYTES: usize = 1024;

/// `count` draws from the discrete Gaussian on the integers with parameter sigma^2 = `variance`.
pub fn discrete_gaussian(
    suite: Suite,
    seed: &[u8; SEED_BYTES],
    variance: u64,
    count: usize,
) -> Result<Zeroizing<Vec<i64>>, BadArgument> {
    if !(1..=VARIANCE_MAX).contains(&variance) {
        return Err(BadArgument::new("variance", "must be from 1 to 2^53 - 1"));
    }
    let mut sampler = Sampler::new(Prg::new(suite, seed));
    // Of its full size from the start: a vector that grows leaves copies behind.
    let mut draws = Zeroizing::new(Vec::with_capacity(count));
    for _ in 0..count {
        let draw = sampler
            .gaussian(variance)
            .ok_or_else(|| BadArgument::new("count", "more draws than the stream has bytes for"))?;
        draws.push(draw);
    }
    Ok(draws)
}

/// The sampler over one stream. Each function returns None where the stream has ended.
struct Sampler {
    prg: Prg,
    buffer: [u8; BUFFER_BYTES],
    at: usize,
}

impl Sampler {
    fn new(prg: Prg) -> Self {
        Self { prg, buffer: [0; BUFFER_BYTES], at: BUFFER_BYTES }
    }

    fn gaussian(&mut self, variance: u64) -> Option<i64> {
        let v = u128::from(variance);
        let t = u128::from(variance.isqrt()) + 1;
        // Below 2 * 2^53 * (2^26.5 + 1)^2 < 2^108.
        let d = 2 * v * t * t;
        loop {
            let y = self.laplace(t)?;
            // n reaches 2^128 only where |y| * t reaches 2^64. Then |y| / t >= 2^64 / t^2 > 2000,
            // since t^2 is about 2^53 at most, and the Laplace law gives that a probability below
            // exp(-2000) < 2^-2800. Such a candidate is rejected.
            let Some(n) = squared_distance(y.unsigned_abs(), t, v) else {
                continue;
            };
            if self.bernoulli_exp(n, d)? {
                return Some(y);
            }
        }
    }

    fn laplace(&mut self, t: u128) -> Option<i64> {
        loop {
            let u = self.uniform(t)?;
            if !self.bernoulli_exp(u, t)? {
                continue;
            }
            let mut v: u128 = 0;
            while self.bernoulli_exp(1, 1)? {
                v += 1;
            }
            let x = u + t * v;
            let negative = self.uniform(2)? == 1;
            if negative && x == 0 {
                continue;
            }
            // v counts consecutive draws of the stream, which has 2^38 bytes, and t is below 2^27:
            // x is below 2^66 at any rate, and beyond 2^63 with a probability below exp(-2^36).
            // Such a draw is rejected.
            let Ok(x) = i64::try_from(x) else {
                continue;
            };
            return Some(if negative { -x } else { x });
        }
    }

    fn bernoulli_exp(&mut self, n: u128, d: u128) -> Option<bool> {
        if n > d {
            for _ in 0..n / d {
                if !self.bernoulli_exp_fraction(1, 1)? {
                    return Some(false);
                }
            }
            return self.bernoulli_exp_fraction(n % d, d);
        }
        self.bernoulli_exp_fraction(n, d)
    }

    /// `bernoulli_exp` for n <= d.
    fn bernoulli_exp_fraction(&mut self, n: u128, d: u128) -> Option<bool> {
        let mut k: u128 = 1;
        loop {
            // d is below 2^108, so the product overflows only from k = 2^20 on, which is reached
            // with a probability of at most 1 / (2^20 - 1)! < 2^-1000. It counts as a rejection.
            let Some(denominator) = d.checked_mul(k) else {
                return Some(false);
            };
            if self.uniform(denominator)? >= n {
                return Some(k % 2 == 1);
            }
            k += 1;
        }
    }

    fn uniform(&mut self, m: u128) -> Option<u128> {
        if m == 1 {
            return Some(0);
        }
        let bits = 128 - (m - 1).leading_zeros();
        let low_bits = u128::MAX >> (128 - bits);
        loop {
            let candidate = self.read(bits.div_ceil(8) as usize)? & low_bits;
            if candidate < m {
                return Some(candidate);
            }
        }
    }

    /// The next `length` (at most 16) bytes as a little-endian integer.
    fn read(&mut self, length: usize) -> Option<u128> {
        let mut bytes = [0; 16];
        for byte in &mut bytes[..length] {
            if self.at == BUFFER_BYTES {
                self.prg.fill(&mut self.buffer)?;
                self.at = 0;
            }
            *byte = self.buffer[self.at];
            self.at += 1;
        }
        Some(u128::from_le_bytes(bytes))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

/// (magnitude * t - v)^2, or None where it does not fit.
fn squared_distance(magnitude: u64, t: u128, v: u128) -> Option<u128> {
    let distance = (u128::from(magnitude) * t).abs_diff(v);
    distance.checked_mul(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> [u8; SEED_BYTES] {
        std::array::from_fn(|index| index as u8)
    }

    fn sampler(suite: Suite) -> Sampler {
        Sampler::new(Prg::new(suite, &seed()))
    }

    // Values of the plain Python twin, tests/oracle.py.
    #[test]
    fn draws_are_those_of_the_twin() {
        let draws = |suite, variance| discrete_gaussian(suite, &seed(), variance, 8).unwrap();
        let chacha20 = Suite::X25519ChaCha20;
        assert_eq!(draws(chacha20, 1)[..], [1, 1, 1, -1, 0, 3, 1, -1]);
        assert_eq!(draws(chacha20, 27)[..], [-3, 3, 5, -3, -3, -3, 6, -2]);
        assert_eq!(draws(Suite::X25519Aes256Ctr, 27)[..], [-2, -11, 2, -3, 7, -3, -4, -7]);
        let wide =
            [-118242593, 116550155, -3340238, -59793577, -62580393, 111880423, -49908197, 70358817];
        assert_eq!(draws(chacha20, VARIANCE_MAX)[..], wide);
    }

    #[test]
    fn uniform_reads_as_few_bytes_as_its_range_needs() {
        let mut stream = [0; 16];
        Prg::new(Suite::X25519ChaCha20, &seed()).fill(&mut stream).unwrap();
        // A power of two rejects nothing, so what was read is one candidate.
        for (bits, bytes) in [(1, 1), (7, 1), (8, 1), (9, 2), (64, 8), (65, 9), (127, 16)] {
            let mut sampler = sampler(Suite::X25519ChaCha20);
            let value = sampler.uniform(1 << bits).unwrap();
            assert_eq!(value, u128::from_le_bytes(stream) % (1 << bits), "{bits}");
            assert_eq!(sampler.at, bytes, "{bits}");
        }
        let mut sampler = sampler(Suite::X25519ChaCha20);
        assert_eq!(sampler.uniform(1), Some(0));
        assert_eq!(sampler.at, BUFFER_BYTES, "nothing was read");
    }

    #[test]
    fn squares_beyond_the_integers_are_rejected() {
        let t = 94_906_266;
        assert_eq!(squared_distance(3, 2, 1), Some(25));
        assert_eq!(squared_distance(0, 2, 9), Some(81));
        assert_eq!(squared_distance(u64::MAX / t as u64, t, 0).map(|n| n >> 127), Some(1));
        assert_eq!(squared_distance(u64::MAX / t as u64 + 1, t, 0), None);
        assert_eq!(squared_distance(u64::MAX, t, 0), None);
    }

    #[test]
    fn denominators_beyond_the_integers_are_rejected() {
        // n = d makes every trial with k = 1 succeed; the next denominator does not fit.
        let mut sampler = sampler(Suite::X25519ChaCha20);
        assert_eq!(sampler.bernoulli_exp(u128::MAX, u128::MAX), Some(false));
    }

    #[test]
    fn variance_has_limits() {
        for variance in [0, VARIANCE_MAX + 1] {
            let error = discrete_gaussian(Suite::X25519ChaCha20, &seed(), variance, 1).unwrap_err();
            assert_eq!(error.name, "variance");
        }
    }
}
