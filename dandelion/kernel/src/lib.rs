//! The compiled core of Dandelion (docs/protocol.md).
//!
//! Everything whose cost grows with the number of reports or slots, and everything that must give
//! the same bytes in every language: X25519 with its key checks (`curve`), and over whole lists
//! (`ladder`), key derivation (`kdf`), the mask streams (`prg`), words on the wire (`pack`), masks and their sums (`mask`) and the exact
//! discrete Gaussian (`gauss`). It draws no randomness, reads no clock and does no I/O: secrets and
//! seeds are arguments, and what it copies of them is erased.
//!
//! With the feature `python` it is the extension module `dandelion._kernel`; without features it is
//! a plain library that also compiles to WebAssembly.

pub mod curve;
pub mod error;
pub mod gauss;
pub mod kdf;
pub mod ladder;
pub mod mask;
pub mod pack;
pub mod prg;

#[cfg(feature = "python")]
mod python;

#[cfg(test)]
mod testing;

pub use error::BadArgument;
pub use pack::Width;
pub use prg::Suite;

/// Version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
