// The kernel in plain TypeScript, for pages whose Content-Security-Policy forbids WebAssembly.
//
// It is loaded only there, and for suite 2. Secrets are erased after use as far as a language with
// a garbage collector lets one; the arithmetic neither branches on them nor uses them as indices.

import { BLOCK_WORDS } from "./chacha20.js";
import type { Kernel } from "./kernel.js";
import { makeKernel, type Loops } from "./make.js";
import { aes256Ctr, chacha20, type Stream } from "./streams.js";
import { x25519 } from "./x25519.js";

/** The stream of a suite under a seed. */
export function stream(suite: number, seed: Uint8Array): Stream {
  return suite === 1 ? chacha20(seed) : aes256Ctr(seed);
}

/** The loops in TypeScript. */
export const loops: Loops = {
  name: "typescript",
  x25519,
  addStream(suite, seed, words, wide) {
    const masks = stream(suite, seed);
    const block = new Uint32Array(BLOCK_WORDS);
    for (let at = 0; at < words.length; at++) {
      const i = at % BLOCK_WORDS;
      if (i === 0) masks.next(block);
      const carried = wide && i % 2 ? Number(words[at - 1]! < block[i - 1]!) : 0;
      words[at]! += block[i]! + carried;
    }
    block.fill(0);
    masks.wipe();
  },
};

/** The kernel in TypeScript. */
export const kernel: Kernel = makeKernel(loops);
