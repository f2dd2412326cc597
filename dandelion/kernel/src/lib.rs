//! The compiled core of Dandelion (docs/protocol.md).
//!
//! Everything whose cost grows with the number of reports or slots, and everything that must give
//! the same bytes in every language: X25519 with its key checks (`curve`), and over whole lists
//! (`ladder`), key derivation (`kdf`), the mask streams (`prg`), words on the wire (`pack`), masks and their sums (`mask`) and the exact
//! discrete Gaussian (`gauss`). It draws no randomness, reads no clock and does no I/O: secrets and
//! seeds are arguments, and what it copies of them is erased.
//!
//! With the feature `python` it is the extension module `dandelion._kernel`; without features it is
//! a plain library. For wasm32 it is what a page needs (`wasm`, `compact`), which is small enough to
//! travel with it and depends on nothing.

#![cfg_attr(target_arch = "wasm32", no_std)]

#[cfg(any(target_arch = "wasm32", test))]
mod compact;
#[cfg(not(target_arch = "wasm32"))]
pub mod curve;
#[cfg(not(target_arch = "wasm32"))]
pub mod error;
#[cfg(not(target_arch = "wasm32"))]
pub mod gauss;
#[cfg(not(target_arch = "wasm32"))]
pub mod kdf;
#[cfg(not(target_arch = "wasm32"))]
pub mod ladder;
#[cfg(not(target_arch = "wasm32"))]
pub mod mask;
#[cfg(not(target_arch = "wasm32"))]
pub mod pack;
#[cfg(not(target_arch = "wasm32"))]
pub mod prg;

#[cfg(feature = "python")]
mod python;
#[cfg(target_arch = "wasm32")]
mod wasm;

#[cfg(test)]
mod testing;

#[cfg(not(target_arch = "wasm32"))]
pub use error::BadArgument;
#[cfg(not(target_arch = "wasm32"))]
pub use pack::Width;
#[cfg(not(target_arch = "wasm32"))]
pub use prg::Suite;

/// Version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
