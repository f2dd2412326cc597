//! Masks of the one-message scheme (docs/protocol.md section 4.3): what a client adds to its vector,
//! and what a helper sums over a list of report keys.
//!
//! The two halves mirror each other: for every list, the masks of all parties that `mask` added are
//! what `mask_sum` of these parties gives together.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::curve::{x25519_public, Key};
use crate::error::BadArgument;
use crate::kdf::{mask_seed, Dhkem, CTX_BYTES};
use crate::pack::{Sum, Width};
use crate::prg::{Prg, Suite};

/// Parties of a report: the party number is one byte and begins at 1.
pub const PARTIES_MAX: usize = 255;
/// Threads one call may use.
pub const THREADS_MAX: usize = 256;
/// Slots of a vector (docs/protocol.md section 13).
pub const SLOTS_MAX: usize = 1 << 20;

/// Report keys a thread takes at a time.
const BATCH_KEYS: usize = 64;
const NO_KEY: usize = usize::MAX;

/// What client and helpers of a round have in common.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    pub suite: Suite,
    pub width: Width,
    pub ctx: &'a [u8; CTX_BYTES],
}

/// The public key of `ephemeral_secret`, and `values` plus one mask per key, packed.
///
/// `mask_keys` are those of the parties 1, 2, ... in this order. An ephemeral secret masks one
/// vector only: two under one secret reveal the difference of their values.
pub fn mask(
    round: Round,
    ephemeral_secret: &Key,
    mask_keys: &[Key],
    values: &[i64],
) -> Result<(Key, Vec<u8>), BadArgument> {
    if mask_keys.is_empty() || mask_keys.len() > PARTIES_MAX {
        return Err(BadArgument::new("mask_keys", format!("must hold 1 to {PARTIES_MAX} keys")));
    }
    check_slots("values", values.len())?;
    let kem = Dhkem::default();
    let epk = x25519_public(ephemeral_secret);
    let mut sum = Sum::from_values(round.width, values);
    for (party, pk) in (1..=u8::MAX).zip(mask_keys) {
        let shared_secret = kem
            .shared_secret(ephemeral_secret, pk, &epk, pk)
            .ok_or_else(|| zero_dh("mask_keys", usize::from(party) - 1))?;
        let seed = mask_seed(&shared_secret, round.ctx, party);
        sum.add_stream(&mut Prg::new(round.suite, &seed));
    }
    Ok((epk, sum.pack()))
}

/// The sum of the masks of one helper over `ephemeral_keys`, packed; `threads` 0 means all cores.
///
/// The result does not depend on `threads`. A key with an all-zero Diffie-Hellman result cannot
/// come past the rule for keys: it is refused as a bug of the caller, the first one by its index.
pub fn mask_sum(
    round: Round,
    slots: usize,
    party: u8,
    secret: &Key,
    ephemeral_keys: &[Key],
    threads: usize,
) -> Result<Vec<u8>, BadArgument> {
    check_slots("slots", slots)?;
    let helper = Helper {
        round,
        slots,
        party,
        secret,
        pk: x25519_public(secret),
        ephemeral_keys,
        next_batch: AtomicUsize::new(0),
        zero_key: AtomicUsize::new(NO_KEY),
    };
    let sum = helper.run(threads);
    match helper.zero_key.into_inner() {
        NO_KEY => Ok(sum.pack()),
        index => Err(zero_dh("ephemeral_keys", index)),
    }
}

/// One call of `mask_sum`: the list, and how far its threads are.
struct Helper<'a> {
    round: Round<'a>,
    slots: usize,
    party: u8,
    secret: &'a Key,
    pk: Key,
    ephemeral_keys: &'a [Key],
    next_batch: AtomicUsize,
    zero_key: AtomicUsize,
}

impl Helper<'_> {
    /// Takes batches until none is left and returns their sum.
    fn work(&self) -> Sum {
        let kem = Dhkem::default();
        let mut sum = Sum::zero(self.round.width, self.slots);
        loop {
            // Batches are taken in ascending order and finished up to their first zero key, so the
            // smallest index of all is found whatever the number of threads.
            let batch = self.next_batch.fetch_add(1, Ordering::Relaxed);
            let start = batch.saturating_mul(BATCH_KEYS);
            if start >= self.ephemeral_keys.len() || start > self.zero_key.load(Ordering::Relaxed) {
                return sum;
            }
            let end = self.ephemeral_keys.len().min(start + BATCH_KEYS);
            for (index, epk) in (start..).zip(&self.ephemeral_keys[start..end]) {
                let Some(shared_secret) = kem.shared_secret(self.secret, epk, epk, &self.pk) else {
                    self.zero_key.fetch_min(index, Ordering::Relaxed);
                    break;
                };
                let seed = mask_seed(&shared_secret, self.round.ctx, self.party);
                sum.add_stream(&mut Prg::new(self.round.suite, &seed));
            }
        }
    }

    /// The threads of a call live as long as the call. A pool that outlives it would be dead in a
    /// forked child, and services fork.
    #[cfg(feature = "parallel")]
    fn run(&self, threads: usize) -> Sum {
        use std::thread;

        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let wanted = if threads == 0 { cores() } else { threads };
        let useful = self.ephemeral_keys.len().div_ceil(BATCH_KEYS);
        thread::scope(|scope| {
            // Where the system gives no more threads, those there are do the work.
            let others: Vec<_> = (1..wanted.min(useful))
                .map_while(|_| thread::Builder::new().spawn_scoped(scope, || self.work()).ok())
                .collect();
            let mut sum = self.work();
            for other in others {
                sum.add(&other.join().expect("a worker does not panic"));
            }
            sum
        })
    }

    #[cfg(not(feature = "parallel"))]
    fn run(&self, _threads: usize) -> Sum {
        self.work()
    }
}

fn zero_dh(name: &'static str, index: usize) -> BadArgument {
    BadArgument::new(name, format!("key {index} has an all-zero Diffie-Hellman result"))
}

fn check_slots(name: &'static str, slots: usize) -> Result<(), BadArgument> {
    if slots <= SLOTS_MAX {
        return Ok(());
    }
    Err(BadArgument::new(name, format!("at most {SLOTS_MAX} slots")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::{fold_payloads, unpack, Sign};
    use crate::testing::hex;

    const CTX: &str = "8fbe850e56ba1603ee53eaca86e6f7c0f7ffbaacfb670a213a70be64a0949797";

    fn round(suite: Suite, width: Width, ctx: &[u8; CTX_BYTES]) -> Round<'_> {
        Round { suite, width, ctx }
    }

    #[test]
    fn masks_cancel_for_every_width_suite_and_number_of_threads() {
        let ctx = hex(CTX);
        let helpers: Vec<Key> = (1..=3).map(|helper| [helper; 32]).collect();
        let mask_keys: Vec<Key> = helpers.iter().map(x25519_public).collect();
        for suite in [Suite::X25519ChaCha20, Suite::X25519Aes256Ctr] {
            for width in Width::ALL {
                let round = round(suite, width, &ctx);
                let values = [1, 2, 3, -5, 0, 0, 7];
                let clients: Vec<Key> = (0..70).map(|client| [client; 32]).collect();
                let (epks, payloads): (Vec<_>, Vec<_>) = clients
                    .iter()
                    .map(|secret| mask(round, secret, &mask_keys, &values).unwrap())
                    .unzip();
                let bodies: Vec<&[u8]> = payloads.iter().map(|payload| &payload[..]).collect();
                let zero = vec![0; values.len() * width.bytes()];
                let masked = fold_payloads(width, Sign::Plus, &zero, &bodies, 0).unwrap();
                let shares: Vec<Vec<u8>> = (1..)
                    .zip(&helpers)
                    .map(|(party, secret)| {
                        let sum = |threads| {
                            mask_sum(round, values.len(), party, secret, &epks, threads).unwrap()
                        };
                        assert_eq!(sum(1), sum(3));
                        sum(0)
                    })
                    .collect();
                let shares: Vec<&[u8]> = shares.iter().map(|share| &share[..]).collect();
                let sum = fold_payloads(width, Sign::Minus, &masked, &shares, 0).unwrap();
                let expected = values.map(|value| 70 * value);
                assert_eq!(unpack(width, &sum).unwrap(), expected);
            }
        }
    }

    #[test]
    fn equal_mask_keys_give_different_masks() {
        let ctx = hex(CTX);
        let round = round(Suite::X25519ChaCha20, Width::W32, &ctx);
        let pk = x25519_public(&[1; 32]);
        let (_, payload) = mask(round, &[9; 32], &[pk, pk], &[0; 64]).unwrap();
        // With one mask added twice every word would be even.
        assert!(unpack(Width::W32, &payload).unwrap().iter().any(|word| word % 2 != 0));
    }

    #[test]
    fn the_smallest_zero_key_is_named_whatever_the_threads() {
        let ctx = hex(CTX);
        let round = round(Suite::X25519ChaCha20, Width::W32, &ctx);
        let mut keys = vec![x25519_public(&[1; 32]); 5 * BATCH_KEYS];
        keys[3 * BATCH_KEYS + 1] = [0; 32];
        keys[2 * BATCH_KEYS + 7] = [0; 32];
        for threads in [1, 2, 5] {
            let error = mask_sum(round, 1, 1, &[2; 32], &keys, threads).unwrap_err();
            assert_eq!(error, zero_dh("ephemeral_keys", 2 * BATCH_KEYS + 7));
        }
        let error = mask(round, &[2; 32], &[keys[0], [0; 32]], &[0]).unwrap_err();
        assert_eq!(error, zero_dh("mask_keys", 1));
    }

    #[test]
    fn numbers_of_parties_and_slots_have_limits() {
        let ctx = hex(CTX);
        let round = round(Suite::X25519ChaCha20, Width::W16, &ctx);
        let pk = x25519_public(&[1; 32]);
        assert_eq!(mask(round, &[2; 32], &[], &[0]).unwrap_err().name, "mask_keys");
        assert_eq!(mask(round, &[2; 32], &[pk; 256], &[0]).unwrap_err().name, "mask_keys");
        assert!(mask(round, &[2; 32], &[pk; 255], &[0]).is_ok());
        let values = vec![0; SLOTS_MAX + 1];
        assert_eq!(mask(round, &[2; 32], &[pk], &values).unwrap_err().name, "values");
        let error = mask_sum(round, SLOTS_MAX + 1, 1, &[2; 32], &[pk], 1).unwrap_err();
        assert_eq!(error.name, "slots");
    }

    #[test]
    fn no_reports_and_no_slots_are_empty_sums() {
        let ctx = hex(CTX);
        let round = round(Suite::X25519ChaCha20, Width::W24, &ctx);
        assert_eq!(mask_sum(round, 2, 1, &[2; 32], &[], 0).unwrap(), [0; 6]);
        let pk = x25519_public(&[1; 32]);
        assert_eq!(mask_sum(round, 0, 1, &[2; 32], &[pk], 0).unwrap(), [0; 0]);
    }
}
