//! What a page runs of the kernel, as functions over linear memory for wasm32
//! (`wasm_stub/src/kernel/wasm.ts` calls them).
//!
//! The page owns the memory from `__heap_base` up. It lays arguments there, reads results there, and
//! erases all memory after each use of a secret: nothing here is kept between calls, and there is no
//! data that must last. That the pointers are good and the lengths true is the page's to see to.

#![allow(unsafe_code)]

use core::slice;

use crate::compact::{self, Key, BLOCK_WORDS};

#[panic_handler]
fn stop(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

/// Writes X25519(scalar, point).
#[no_mangle]
extern "C" fn x25519(scalar: &Key, point: &Key, output: &mut Key) {
    *output = compact::x25519(scalar, point);
}

/// Adds the stream of a state of ChaCha20 to `count` words, or to pairs of words.
#[no_mangle]
unsafe extern "C" fn add_stream(
    state: &mut [u32; BLOCK_WORDS],
    words: *mut u32,
    count: usize,
    wide: bool,
) {
    compact::add_stream(state, slice::from_raw_parts_mut(words, count), wide);
}
