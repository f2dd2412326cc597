//! HKDF-SHA256 (RFC 5869), the labelled `expand`, and DHKEM(X25519, HKDF-SHA256) (RFC 9180).
//!
//! `expand` is one of the three functions that carry all domain separation (docs/protocol.md
//! section 1). The others, `digest` and `sign`, hash and sign short strings and live outside.

#![forbid(unsafe_code)]

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::curve::{diffie_hellman, Key, KEY_BYTES};
use crate::error::BadArgument;

/// Bytes of a SHA-256 output and of every derived seed.
pub const HASH_BYTES: usize = 32;
/// RFC 5869 section 2.3: at most 255 blocks.
pub const EXPAND_BYTES_MAX: usize = 255 * HASH_BYTES;
/// Bytes of ctx = SHA-256(descriptor).
pub const CTX_BYTES: usize = 32;

const LABEL_PREFIX: &[u8] = b"dandelion/v1/";
/// RFC 9180 section 4.1: "KEM" and the identifier 0x0020 of DHKEM(X25519, HKDF-SHA256).
const KEM_SUITE: &[u8] = b"KEM\x00\x20";
const HPKE_VERSION: &[u8] = b"HPKE-v1";

type HmacSha256 = Hmac<Sha256>;
pub type Secret = Zeroizing<[u8; HASH_BYTES]>;

/// HKDF-Extract: HMAC-SHA256(salt, ikm).
pub fn hkdf_extract(salt: &[u8], ikm: &[u8]) -> Secret {
    let mut mac = keyed(salt);
    mac.update(ikm);
    finish(mac)
}

/// HKDF-Expand of `length` bytes. The information string is the concatenation of `info`.
///
/// The key may have any length: HMAC takes them all, and the ring's shared seeds have 31 bytes.
pub fn hkdf_expand(
    key: &[u8],
    info: &[&[u8]],
    length: usize,
) -> Result<Zeroizing<Vec<u8>>, BadArgument> {
    if length > EXPAND_BYTES_MAX {
        return Err(BadArgument::new(
            "length",
            format!("HKDF-Expand gives at most {EXPAND_BYTES_MAX} bytes"),
        ));
    }
    let keyed = keyed(key);
    let mut output = Zeroizing::new(Vec::with_capacity(length));
    let mut block: Option<Secret> = None;
    for counter in 1..=length.div_ceil(HASH_BYTES) {
        let next = expand_block(&keyed, block.as_deref(), info, counter as u8);
        let rest = length - output.len();
        output.extend_from_slice(&next[..rest.min(HASH_BYTES)]);
        block = Some(next);
    }
    Ok(output)
}

/// `expand(key, label, info, length)` = HKDF-Expand(key, L(label) || info, length) with
/// L(s) = "dandelion/v1/" || s || 00.
pub fn expand(
    key: &[u8],
    label: &str,
    info: &[u8],
    length: usize,
) -> Result<Zeroizing<Vec<u8>>, BadArgument> {
    // Without a zero byte in it a label ends where it seems to: no two pairs of label and info
    // give the same string.
    if label.is_empty() || !label.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BadArgument::new(
            "label",
            "must be printable ASCII without spaces, and not empty",
        ));
    }
    hkdf_expand(key, &[LABEL_PREFIX, label.as_bytes(), &[0], info], length)
}

/// The seed of the mask that `party` (from 1) removes: expand(shared secret, "mask", ctx || party).
///
/// The party is in the string because two equal mask keys would otherwise give two equal masks,
/// whose sum is even and shows the low bit of every report.
pub fn mask_seed(shared_secret: &[u8; HASH_BYTES], ctx: &[u8; CTX_BYTES], party: u8) -> Secret {
    let info: [&[u8]; 5] = [LABEL_PREFIX, b"mask", &[0], ctx, &[party]];
    expand_block(&keyed(shared_secret), None, &info, 1)
}

/// DHKEM with the parts of its first HMAC that never change computed once.
#[derive(Clone)]
pub struct Dhkem {
    extract: HmacSha256,
}

impl Default for Dhkem {
    fn default() -> Self {
        let mut extract = keyed(b"");
        extract.update(HPKE_VERSION);
        extract.update(KEM_SUITE);
        extract.update(b"eae_prk");
        Self { extract }
    }
}

impl Dhkem {
    /// ExtractAndExpand of RFC 9180 section 4.1.
    pub fn extract_and_expand(&self, dh: &Key, kem_context: &[&[u8]]) -> Secret {
        let mut mac = self.extract.clone();
        mac.update(dh);
        let prk = finish(mac);
        let mut mac = keyed(&prk[..]);
        mac.update(&(HASH_BYTES as u16).to_be_bytes());
        mac.update(HPKE_VERSION);
        mac.update(KEM_SUITE);
        mac.update(b"shared_secret");
        for part in kem_context {
            mac.update(part);
        }
        mac.update(&[1]);
        finish(mac)
    }

    /// The secret shared by the report key `epk` and the mask key `pk`, from one of the two
    /// scalars and the other side's key; None where the Diffie-Hellman result is all zero.
    pub fn shared_secret(&self, scalar: &Key, peer: &Key, epk: &Key, pk: &Key) -> Option<Secret> {
        let dh = diffie_hellman(scalar, peer)?;
        Some(self.extract_and_expand(&dh, &[epk, pk]))
    }
}

const _: () = assert!(KEY_BYTES == HASH_BYTES);

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes keys of every length")
}

fn expand_block(
    keyed: &HmacSha256,
    before: Option<&[u8; HASH_BYTES]>,
    info: &[&[u8]],
    counter: u8,
) -> Secret {
    let mut mac = keyed.clone();
    if let Some(before) = before {
        mac.update(before);
    }
    for part in info {
        mac.update(part);
    }
    mac.update(&[counter]);
    finish(mac)
}

fn finish(mac: HmacSha256) -> Secret {
    let mut tag: [u8; HASH_BYTES] = mac.finalize().into_bytes().into();
    let secret = Zeroizing::new(tag);
    tag.zeroize();
    secret
}
