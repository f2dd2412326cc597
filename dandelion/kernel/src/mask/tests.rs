//! What masks are, one by one and in bulk.

use super::*;
use crate::pack::{fold_payloads, unpack, Sign};
use crate::testing::{hex, random_keys};

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

/// A helper's sum as its definition says it, with one multiplication after the other.
fn sum_of_single_masks(round: Round, slots: usize, party: u8, secret: &Key, epks: &[Key]) -> Sum {
    let (kem, pk) = (Dhkem::default(), x25519_public(secret));
    let mut sum = Sum::zero(round.width, slots);
    for epk in epks {
        let shared_secret = kem.shared_secret(secret, epk, epk, &pk).unwrap();
        let seed = mask_seed(&shared_secret, round.ctx, party);
        sum.add_stream(&mut Prg::new(round.suite, &seed));
    }
    sum
}

#[test]
fn a_mask_sum_is_the_sum_of_single_masks_for_lists_of_every_length() {
    let ctx = hex(CTX);
    let round = round(Suite::X25519ChaCha20, Width::W32, &ctx);
    let epks: Vec<Key> = random_keys(1, 200).iter().map(x25519_public).collect();
    for length in (0..=9).chain([63, 64, 65, 127, 129, 200]) {
        let expected = sum_of_single_masks(round, 5, 3, &[7; 32], &epks[..length]).pack();
        for threads in [1, 2] {
            let sum = mask_sum(round, 5, 3, &[7; 32], &epks[..length], threads).unwrap();
            assert_eq!(sum, expected, "{length} keys");
        }
    }
}

#[test]
fn many_clients_mask_as_each_would_alone() {
    let ctx = hex(CTX);
    for (suite, width) in [Suite::X25519ChaCha20, Suite::X25519Aes256Ctr]
        .into_iter()
        .flat_map(|suite| Width::ALL.map(|width| (suite, width)))
    {
        let round = round(suite, width, &ctx);
        for parties in [1, 2, 5] {
            let mask_keys: Vec<Key> = random_keys(2, parties).iter().map(x25519_public).collect();
            for clients in [0, 1, 2, 45] {
                let secrets = random_keys(3, clients as u64);
                let values: Vec<i64> = (0..3 * clients).map(|value| value - 20).collect();
                let alone = |values: &[i64], secret| {
                    let (epk, payload) = mask(round, secret, &mask_keys, values).unwrap();
                    [b"head", &epk[..], &payload].concat()
                };
                let each: Vec<_> =
                    values.chunks(3).zip(&secrets).map(|(v, s)| alone(v, s)).collect();
                let same: Vec<_> = secrets.iter().map(|s| alone(&[1, -1, 0], s)).collect();
                for threads in [1, 3] {
                    let many = |values| {
                        mask_many(round, &secrets, &mask_keys, values, 3, b"head", threads)
                    };
                    assert_eq!(many(&values).unwrap(), each);
                    assert_eq!(many(&[1, -1, 0]).unwrap(), same);
                }
            }
        }
    }
}

#[test]
fn a_matrix_has_a_row_for_each_secret() {
    let ctx = hex(CTX);
    let round = round(Suite::X25519ChaCha20, Width::W32, &ctx);
    let (secrets, keys) = (random_keys(4, 3), [x25519_public(&[1; 32])]);
    for length in [0, 1, 3, 5, 8] {
        let values = vec![0; length];
        let error = mask_many(round, &secrets, &keys, &values, 2, b"", 1).unwrap_err();
        assert_eq!(error.name, "values");
    }
    let error = mask_many(round, &secrets, &[keys[0], [0; 32]], &[0], 1, b"", 2).unwrap_err();
    assert_eq!(error, zero_dh("mask_keys", 1));
    assert_eq!(mask_many(round, &secrets, &[], &[0], 1, b"", 1).unwrap_err().name, "mask_keys");
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
