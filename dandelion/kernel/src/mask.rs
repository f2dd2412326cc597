//! Masks of the one-message scheme (docs/protocol.md section 4.3): what a client adds to its vector,
//! and what a helper sums over a list of report keys.
//!
//! The two halves mirror each other: for every list, the masks of all parties that `mask` added are
//! what `mask_sum` of these parties gives together.

#![forbid(unsafe_code)]

use std::iter;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::curve::{is_all_zero, x25519_public, Key, BASE_POINT, KEY_BYTES};
use crate::error::BadArgument;
use crate::kdf::{mask_seed, Dhkem, CTX_BYTES};
use crate::ladder::{x25519_many, Pair};
use crate::pack::{Sum, Width};
use crate::prg::{Prg, Suite};

#[cfg(test)]
mod tests;

/// Parties of a report: the party number is one byte and begins at 1.
pub const PARTIES_MAX: usize = 255;
/// Threads one call may use.
pub const THREADS_MAX: usize = 256;
/// Slots of a vector (docs/protocol.md section 13).
pub const SLOTS_MAX: usize = 1 << 20;

/// Report keys a thread takes at a time, and about as many multiplications of a client's half.
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
    check_mask_keys(mask_keys)?;
    check_slots("values", values.len())?;
    let clients = Clients { round, mask_keys, kem: Dhkem::default() };
    let mut masked = None;
    clients.mask_each(slice::from_ref(ephemeral_secret), |_, epk, masks| {
        let mut sum = Sum::from_values(round.width, values);
        masks.add_to(&mut sum);
        masked = Some((*epk, sum.pack()));
    })?;
    Ok(masked.expect("one secret gives one vector"))
}

/// `mask` for many clients at once: for each secret `head`, its public key and its payload.
///
/// `values` has a vector of `slots` for each secret, or one that all of them mask. The result does
/// not depend on `threads`, of which 0 means all cores. For programs that play many clients: a
/// client has one vector.
pub fn mask_many(
    round: Round,
    ephemeral_secrets: &[Key],
    mask_keys: &[Key],
    values: &[i64],
    slots: usize,
    head: &[u8],
    threads: usize,
) -> Result<Vec<Vec<u8>>, BadArgument> {
    check_mask_keys(mask_keys)?;
    check_slots("values", slots)?;
    let shared = values.len() == slots;
    if !shared && Some(values.len()) != slots.checked_mul(ephemeral_secrets.len()) {
        return Err(BadArgument::new("values", "must be one vector, or one for each secret"));
    }
    let clients = Clients { round, mask_keys, kem: Dhkem::default() };
    let batch = BATCH_KEYS.div_ceil(mask_keys.len() + 1);
    let batches: Vec<&[Key]> = ephemeral_secrets.chunks(batch).collect();
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Vec<u8>)>, BadArgument> {
        let mut made = Vec::new();
        let mut sum = Sum::zero(round.width, slots);
        loop {
            let taken = next.fetch_add(1, Ordering::Relaxed);
            let Some(secrets) = batches.get(taken) else {
                return Ok(made);
            };
            clients.mask_each(secrets, |index, epk, masks| {
                let client = taken * batch + index;
                let vector = if shared { values } else { &values[client * slots..][..slots] };
                sum.set(vector);
                masks.add_to(&mut sum);
                let length = head.len() + KEY_BYTES + slots * round.width.bytes();
                let mut report = Vec::with_capacity(length);
                report.extend_from_slice(head);
                report.extend_from_slice(epk);
                sum.pack_into(&mut report);
                made.push((client, report));
            })?;
        }
    };
    let mut reports = Vec::with_capacity(ephemeral_secrets.len());
    for made in on_threads(threads, batches.len(), work) {
        reports.extend(made?);
    }
    reports.sort_unstable_by_key(|(client, _)| *client);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

/// The clients of a round: what their halves have in common.
struct Clients<'a> {
    round: Round<'a>,
    mask_keys: &'a [Key],
    kem: Dhkem,
}

/// The shared points of one client with every helper.
struct Masks<'a> {
    clients: &'a Clients<'a>,
    epk: &'a Key,
    points: &'a [Key],
}

impl Clients<'_> {
    /// Calls `each` with the index, the public key and the masks of every secret, in this order.
    ///
    /// All multiplications of a call, those for the public keys among them, are made together.
    fn mask_each(
        &self,
        secrets: &[Key],
        mut each: impl FnMut(usize, &Key, Masks),
    ) -> Result<(), BadArgument> {
        let points = || iter::once(&BASE_POINT).chain(self.mask_keys);
        let pairs: Vec<Pair> =
            secrets.iter().flat_map(|secret| points().map(move |point| (secret, point))).collect();
        let products = x25519_many(&pairs);
        for (index, products) in products.chunks(self.mask_keys.len() + 1).enumerate() {
            let [epk, points @ ..] = products else { unreachable!("a chunk is not empty") };
            if let Some(party) = points.iter().position(is_all_zero) {
                return Err(zero_dh("mask_keys", party));
            }
            each(index, epk, Masks { clients: self, epk, points });
        }
        Ok(())
    }
}

impl Masks<'_> {
    /// Adds the mask of every helper.
    fn add_to(&self, sum: &mut Sum) {
        let Clients { round, mask_keys, kem } = self.clients;
        for ((party, pk), dh) in (1..=u8::MAX).zip(*mask_keys).zip(self.points) {
            let shared_secret = kem.extract_and_expand(dh, &[self.epk, pk]);
            let seed = mask_seed(&shared_secret, round.ctx, party);
            sum.add_stream(&mut Prg::new(round.suite, &seed));
        }
    }
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
    let batches = ephemeral_keys.len().div_ceil(BATCH_KEYS);
    let mut sums = on_threads(threads, batches, || helper.work()).into_iter();
    let mut sum = sums.next().expect("there is always one");
    for other in sums {
        sum.add(&other);
    }
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
            let epks = &self.ephemeral_keys[start..end];
            let pairs: Vec<Pair> = epks.iter().map(|epk| (self.secret, epk)).collect();
            let points = x25519_many(&pairs);
            for ((index, epk), dh) in (start..).zip(epks).zip(points.iter()) {
                if is_all_zero(dh) {
                    self.zero_key.fetch_min(index, Ordering::Relaxed);
                    break;
                }
                let shared_secret = kem.extract_and_expand(dh, &[epk, &self.pk]);
                let seed = mask_seed(&shared_secret, self.round.ctx, self.party);
                sum.add_stream(&mut Prg::new(self.round.suite, &seed));
            }
        }
    }
}

/// What each thread made: at least one and at most one to a batch. 0 threads means all cores.
///
/// The threads of a call live as long as the call. A pool that outlives it would be dead in a forked
/// child, and services fork.
#[cfg(feature = "parallel")]
fn on_threads<T: Send>(threads: usize, batches: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    use std::thread;

    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let wanted = if threads == 0 { cores() } else { threads };
    thread::scope(|scope| {
        // Where the system gives no more threads, those there are do the work.
        let others: Vec<_> = (1..wanted.min(batches))
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, &work).ok())
            .collect();
        let mut made = vec![work()];
        made.extend(others.into_iter().map(|other| other.join().expect("a worker does not panic")));
        made
    })
}

#[cfg(not(feature = "parallel"))]
fn on_threads<T>(_threads: usize, _batches: usize, work: impl Fn() -> T) -> Vec<T> {
    vec![work()]
}

fn zero_dh(name: &'static str, index: usize) -> BadArgument {
    BadArgument::new(name, format!("key {index} has an all-zero Diffie-Hellman result"))
}

fn check_mask_keys(mask_keys: &[Key]) -> Result<(), BadArgument> {
    if (1..=PARTIES_MAX).contains(&mask_keys.len()) {
        return Ok(());
    }
    Err(BadArgument::new("mask_keys", format!("must hold 1 to {PARTIES_MAX} keys")))
}

fn check_slots(name: &'static str, slots: usize) -> Result<(), BadArgument> {
    if slots <= SLOTS_MAX {
        return Ok(());
    }
    Err(BadArgument::new(name, format!("at most {SLOTS_MAX} slots")))
}
