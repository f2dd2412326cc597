//! Both paths against RFC 7748 and each other, and the arithmetic at its bounds.
//!
//! `x25519`, which the products are compared with, is that of `curve25519-dalek`.

use super::*;
use crate::curve::SMALL_ORDER;
use crate::testing::{hex, random_keys};

type Path = fn(&[Pair]) -> Vec<Key>;

fn one_by_one(pairs: &[Pair]) -> Vec<Key> {
    let mut products = vec![[0; 32]; pairs.len()];
    multiply_one_by_one(pairs, &mut products);
    products
}

/// Also for a single pair, which `x25519_many` does not do this way.
#[cfg(target_arch = "x86_64")]
fn four_at_a_time(pairs: &[Pair]) -> Vec<Key> {
    let mut products = vec![[0xaa; 32]; pairs.len()];
    assert!(machine::multiply(pairs, &mut products));
    products
}

/// The paths that this processor has; on one without AVX2 there is nothing to compare.
fn paths() -> Vec<Path> {
    let always: [Path; 2] = [one_by_one, |pairs| x25519_many(pairs).to_vec()];
    #[cfg(target_arch = "x86_64")]
    if machine::is_able() {
        return [&always[..], &[four_at_a_time]].concat();
    }
    always.to_vec()
}

fn expected(pairs: &[Pair]) -> Vec<Key> {
    pairs.iter().map(|(scalar, point)| x25519(scalar, point)).collect()
}

/// 2^255 - 1 - below, with the top bit if asked for.
fn near_the_top(below: u8, top_bit: bool) -> Key {
    let mut key = [0xff; 32];
    key[0] -= below;
    key[31] = if top_bit { 0xff } else { 0x7f };
    key
}

/// Small values, p and its neighbours, everything from there to 2^255 - 1, which is p + 18, points
/// of small order, and all of them with the top bit set.
fn edge_points() -> Vec<Key> {
    let mut points: Vec<Key> = SMALL_ORDER.to_vec();
    points.extend((0..=20).map(|below| near_the_top(below, false)));
    points.extend((0..=20).map(|low| std::array::from_fn(|i| if i == 0 { low } else { 0 })));
    // 2p = 2^256 - 38: its top bit is ignored, so it is p - 19.
    points.push(near_the_top(37, true));
    // Every bit, hence every limb, alone.
    for bit in 0..255 {
        let mut point = [0; 32];
        point[bit / 8] = 1 << (bit % 8);
        points.push(point);
    }
    let with_top_bit: Vec<Key> = points
        .iter()
        .map(|&(mut point)| {
            point[31] |= 0x80;
            point
        })
        .collect();
    points.extend(with_top_bit);
    points
}

// RFC 7748 section 5.2.
#[test]
fn single_multiplications_of_rfc_7748_in_every_lane() {
    let vectors: [[Key; 3]; 2] = [
        [
            hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
            hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
            hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"),
        ],
        [
            hex("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d"),
            hex("e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493"),
            hex("95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"),
        ],
    ];
    for path in paths() {
        for first in 0..2 {
            let order: Vec<_> =
                (0..8).map(|lane| &vectors[(first + lane + lane / 4) % 2]).collect();
            let pairs: Vec<Pair> = order.iter().map(|vector| (&vector[0], &vector[1])).collect();
            let products: Vec<Key> = order.iter().map(|vector| vector[2]).collect();
            assert_eq!(path(&pairs), products);
        }
    }
}

// RFC 7748 section 5.2.
#[test]
fn thousand_iterations_of_rfc_7748_in_every_lane() {
    let nine: Key = BASE_POINT;
    let once = hex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
    let thousand = hex("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51");
    for path in paths() {
        let (mut scalars, mut points) = ([nine; 4], [nine; 4]);
        for iteration in 1..=1000 {
            let pairs: Vec<Pair> = scalars.iter().zip(&points).collect();
            let products = path(&pairs);
            points = scalars;
            scalars.copy_from_slice(&products);
            if iteration == 1 {
                assert_eq!(scalars, [once; 4]);
            }
        }
        assert_eq!(scalars, [thousand; 4]);
    }
}

#[test]
fn random_pairs_are_multiplied_alike() {
    let (scalars, points) = (random_keys(1, 10_000), random_keys(2, 10_000));
    let pairs: Vec<Pair> = scalars.iter().zip(&points).collect();
    let expected = expected(&pairs);
    for path in paths() {
        assert!(path(&pairs) == expected);
    }
}

#[test]
fn edge_points_are_multiplied_alike_in_every_lane() {
    let mut scalars = random_keys(3, 4);
    scalars.extend([[0; 32], [0xff; 32], BASE_POINT]);
    let points = edge_points();
    for (shift, scalar) in scalars.iter().enumerate() {
        // Another point in every lane, and another lane for every point.
        let turned = points.iter().cycle().skip(shift).take(points.len() + shift);
        let pairs: Vec<Pair> = turned.map(|point| (scalar, point)).collect();
        let expected = expected(&pairs);
        for path in paths() {
            assert_eq!(path(&pairs), expected);
        }
    }
}

#[test]
fn a_zero_in_one_lane_leaves_the_others_alone() {
    let (scalars, mut points) = (random_keys(4, 64), random_keys(5, 64));
    for index in [0, 5, 10, 15, 20, 21, 22, 23, 63] {
        points[index] = SMALL_ORDER[index % 5];
    }
    let pairs: Vec<Pair> = scalars.iter().zip(&points).collect();
    for path in paths() {
        let products = path(&pairs);
        assert_eq!(products, expected(&pairs));
        assert_eq!(products.iter().filter(|product| **product == [0; 32]).count(), 9);
    }
}

#[test]
fn lists_of_every_length_are_multiplied_alike() {
    let (scalars, points) = (random_keys(6, 140), random_keys(7, 140));
    let pairs: Vec<Pair> = scalars.iter().zip(&points).collect();
    for path in paths() {
        for length in (0..=9).chain([61, 63, 64, 65, 68, 127, 128, 129, 140]) {
            assert_eq!(path(&pairs[..length]), expected(&pairs[..length]), "{length}");
        }
    }
}

#[test]
fn every_bit_of_a_scalar_counts_unless_it_is_clamped() {
    let point = random_keys(8, 1)[0];
    let scalar = random_keys(9, 1)[0];
    let flipped: Vec<Key> = (0..256)
        .map(|bit| {
            let mut flipped = scalar;
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        })
        .collect();
    let pairs: Vec<Pair> = flipped.iter().map(|scalar| (scalar, &point)).collect();
    let unflipped = x25519(&scalar, &point);
    for path in paths() {
        for (bit, product) in path(&pairs).iter().enumerate() {
            let clamped = !(3..254).contains(&bit);
            assert_eq!(*product == unflipped, clamped, "bit {bit}");
        }
    }
}
