"""Dandelion, the library: pure, synchronous and typed; no I/O, no clock, no hidden randomness."""
