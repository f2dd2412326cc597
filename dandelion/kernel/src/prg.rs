//! The two mask streams (docs/protocol.md section 1): ChaCha20 and AES-256-CTR under a 32-byte seed.
//!
//! Suite 1 is RFC 8439 ChaCha20 with the nonce "LibsodiumDRG" and counter 0, which is libsodium's
//! `randombytes_buf_deterministic`; suite 2 is AES-256-CTR with a 128-bit big-endian counter from 0,
//! which is what WebCrypto has. A seed is used for one purpose only, so a fixed nonce is enough.

#![forbid(unsafe_code)]

use aes::Aes256;
use chacha20::ChaCha20;
use ctr::cipher::{KeyIvInit, StreamCipher};
use ctr::Ctr128BE;

use crate::error::BadArgument;

/// Bytes of a seed.
pub const SEED_BYTES: usize = 32;
/// Bytes of one stream: ChaCha20 has 2^32 blocks of 64 bytes, and suite 2 keeps the same limit.
pub const STREAM_BYTES_MAX: u64 = 1 << 38;

const CHACHA20_NONCE: &[u8; 12] = b"LibsodiumDRG";
const AES_COUNTER: [u8; 16] = [0; 16];

/// The number of the suite in a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Suite {
    X25519ChaCha20 = 1,
    X25519Aes256Ctr = 2,
}

impl TryFrom<u64> for Suite {
    type Error = BadArgument;

    fn try_from(number: u64) -> Result<Self, BadArgument> {
        match number {
            1 => Ok(Self::X25519ChaCha20),
            2 => Ok(Self::X25519Aes256Ctr),
            _ => Err(BadArgument::new("suite", "must be 1 or 2")),
        }
    }
}

enum Cipher {
    ChaCha20(ChaCha20),
    // Boxed: its round keys are many times the size of the other variant.
    Aes256Ctr(Box<Ctr128BE<Aes256>>),
}

/// One stream, read from its beginning. Its state is erased when it is dropped.
pub struct Prg {
    cipher: Cipher,
    left: u64,
}

impl Prg {
    pub fn new(suite: Suite, seed: &[u8; SEED_BYTES]) -> Self {
        let cipher = match suite {
            Suite::X25519ChaCha20 => {
                Cipher::ChaCha20(ChaCha20::new(seed.into(), CHACHA20_NONCE.into()))
            }
            Suite::X25519Aes256Ctr => {
                let aes = Ctr128BE::<Aes256>::new(seed.into(), &AES_COUNTER.into());
                Cipher::Aes256Ctr(Box::new(aes))
            }
        };
        let left = STREAM_BYTES_MAX;
        Self { cipher, left }
    }

    /// Overwrites `output` with the next bytes; None, with nothing written, where the stream has
    /// fewer.
    #[must_use]
    pub fn fill(&mut self, output: &mut [u8]) -> Option<()> {
        self.left = self.left.checked_sub(output.len() as u64)?;
        match &mut self.cipher {
            Cipher::ChaCha20(cipher) => cipher.try_write_keystream(output),
            Cipher::Aes256Ctr(cipher) => cipher.try_write_keystream(output),
        }
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, hex_bytes};

    fn stream(suite: Suite, seed: &[u8; SEED_BYTES], length: usize) -> Vec<u8> {
        let mut output = vec![0xaa; length];
        Prg::new(suite, seed).fill(&mut output).unwrap();
        output
    }

    // libsodium's randombytes_buf_deterministic under 00 01 .. 1f.
    #[test]
    fn suite_1_is_the_stream_of_libsodium() {
        let seed = std::array::from_fn(|index| index as u8);
        let bytes = stream(Suite::X25519ChaCha20, &seed, 32);
        let known = "0d8e6cc68715648926732e7ea73250cfaf2d58422083904c841a8ba33b986111";
        assert_eq!(bytes, hex_bytes(known));
    }

    // NIST's known answer for AES-256: the zero block under the zero key.
    #[test]
    fn suite_2_begins_with_the_encrypted_zero_block() {
        let block: [u8; 16] = hex("dc95c078a2408989ad48a21492842087");
        assert_eq!(stream(Suite::X25519Aes256Ctr, &[0; 32], 16), block);
    }

    #[test]
    fn a_stream_read_in_pieces_is_the_same_stream() {
        for suite in [Suite::X25519ChaCha20, Suite::X25519Aes256Ctr] {
            let whole = stream(suite, &[3; 32], 1000);
            let mut pieces = Prg::new(suite, &[3; 32]);
            let mut read = Vec::new();
            for length in [0, 1, 15, 16, 17, 63, 64, 65, 300, 459] {
                let mut piece = vec![0xaa; length];
                pieces.fill(&mut piece).unwrap();
                read.extend(piece);
            }
            assert_eq!(read, whole);
        }
    }

    #[test]
    fn a_stream_ends_where_its_counter_would_repeat() {
        let mut prg = Prg::new(Suite::X25519ChaCha20, &[3; 32]);
        prg.left = 2;
        let mut piece = [0xaa; 3];
        assert_eq!(prg.fill(&mut piece), None);
        assert_eq!(piece, [0xaa; 3]);
    }
}
