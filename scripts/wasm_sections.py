"""Copies a WebAssembly module without its custom sections, and refuses one that holds data.

Custom sections are names and what compiled it. Data would be lost the first time that a page erases
the module's memory (wasm_stub/src/kernel/wasm.ts).
"""

import sys
from pathlib import Path

MAGIC = b"\0asm\x01\0\0\0"
CUSTOM, IMPORT, START, DATA = 0, 2, 8, 11


def read_unsigned(module: bytes, at: int) -> tuple[int, int]:
    """The LEB128 integer at a place, and the place behind it."""
    value = shift = 0
    while True:
        byte = module[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def without_custom_sections(module: bytes) -> bytes:
    """The module without its custom sections; ValueError where it is not what a page can use."""
    if not module.startswith(MAGIC):
        raise ValueError("not a WebAssembly module")
    kept, at = [MAGIC], len(MAGIC)
    while at < len(module):
        kind = module[at]
        length, body = read_unsigned(module, at + 1)
        if kind in (IMPORT, START, DATA):
            raise ValueError(f"section {kind}: imports, code that runs by itself, or data")
        if kind != CUSTOM:
            kept.append(module[at : body + length])
        at = body + length
    return b"".join(kept)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_bytes(without_custom_sections(source.read_bytes()))
