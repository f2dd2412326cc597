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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, hex_bytes};

    struct Rfc5869 {
        ikm: Vec<u8>,
        salt: Vec<u8>,
        info: Vec<u8>,
        prk: &'static str,
        okm: &'static str,
    }

    // RFC 5869 appendix A.1 to A.3: the cases with SHA-256.
    #[test]
    fn extract_and_expand_of_rfc_5869() {
        let cases = [
            Rfc5869 {
                ikm: vec![0x0b; 22],
                salt: (0x00..=0x0c).collect(),
                info: (0xf0..=0xf9).collect(),
                prk: "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
                okm: "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf\
                      34007208d5b887185865",
            },
            Rfc5869 {
                ikm: (0x00..=0x4f).collect(),
                salt: (0x60..=0xaf).collect(),
                info: (0xb0..=0xff).collect(),
                prk: "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
                okm: "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c\
                      59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71\
                      cc30c58179ec3e87c14c01d5c1f3434f1d87",
            },
            Rfc5869 {
                ikm: vec![0x0b; 22],
                salt: vec![],
                info: vec![],
                prk: "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
                okm: "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d\
                      9d201395faa4b61a96c8",
            },
        ];
        for case in cases {
            let prk = hkdf_extract(&case.salt, &case.ikm);
            assert_eq!(*prk, hex(case.prk));
            let okm = hex_bytes(case.okm);
            assert_eq!(*hkdf_expand(&prk[..], &[&case.info], okm.len()).unwrap(), okm);
        }
    }

    // RFC 9180 appendix A.1.1.
    #[test]
    fn shared_secret_of_rfc_9180() {
        let epk = hex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431");
        let pk = hex("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d");
        let sk = hex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8");
        let secret = "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc";
        let derived = Dhkem::default().shared_secret(&sk, &epk, &epk, &pk).unwrap();
        assert_eq!(*derived, hex(secret));
    }

    #[test]
    fn mask_seed_is_the_labelled_expansion() {
        let mut info = vec![7; 32];
        info.push(2);
        let expanded = expand(&[9; 32], "mask", &info, 32).unwrap();
        assert_eq!(mask_seed(&[9; 32], &[7; 32], 2)[..], expanded[..]);
    }

    #[test]
    fn lengths_and_labels_have_limits() {
        let key = [1; 32];
        assert_eq!(expand(&key, "noise", b"", 0).unwrap().len(), 0);
        assert_eq!(expand(&key, "noise", b"", EXPAND_BYTES_MAX).unwrap().len(), EXPAND_BYTES_MAX);
        assert_eq!(expand(&key, "noise", b"", EXPAND_BYTES_MAX + 1).unwrap_err().name, "length");
        for label in ["", "a b", "a\0b", "\u{e4}"] {
            assert_eq!(expand(&key, label, b"", 32).unwrap_err().name, "label");
        }
    }
}
