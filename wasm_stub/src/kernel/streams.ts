// The two mask streams (docs/protocol.md section 1) as little-endian words. Part of the fallback.

import { aesBlocks } from "./aes.js";
import { BLOCK_WORDS, chacha20State } from "./chacha20.js";

/** A stream: `next` overwrites 16 words with the next ones, `wipe` erases the key. */
export interface Stream {
  next(words: Uint32Array): void;
  wipe(): void;
}

/** The word with its bits `by` places up, those that fall out at the bottom. */
const rotate = (x: number, by: number): number => (x << by) | (x >>> (32 - by));

/** The quarter round of RFC 8439 section 2.1. */
function quarterRound(s: Uint32Array, a: number, b: number, c: number, d: number): void {
  s[a]! += s[b]!;
  s[d] = rotate(s[d]! ^ s[a]!, 16);
  s[c]! += s[d]!;
  s[b] = rotate(s[b]! ^ s[c]!, 12);
  s[a]! += s[b]!;
  s[d] = rotate(s[d]! ^ s[a]!, 8);
  s[c]! += s[d]!;
  s[b] = rotate(s[b]! ^ s[c]!, 7);
}

/** Suite 1: ChaCha20 (RFC 8439), the counter from 0. */
export function chacha20(seed: Uint8Array): Stream {
  const state = chacha20State(seed);
  return {
    next(words) {
      words.set(state);
      for (let round = 0; round < 10; round++) {
        for (let i = 0; i < 4; i++) quarterRound(words, i, i + 4, i + 8, i + 12);
        for (let i = 0; i < 4; i++) {
          quarterRound(words, i, 4 + ((i + 1) & 3), 8 + ((i + 2) & 3), 12 + ((i + 3) & 3));
        }
      }
      for (let i = 0; i < BLOCK_WORDS; i++) words[i]! += state[i]!;
      state[12]! += 1;
    },
    wipe: () => void state.fill(0),
  };
}

/** Suite 2: AES-256-CTR, the 128-bit big-endian counter from 0. */
export function aes256Ctr(seed: Uint8Array): Stream {
  const aes = aesBlocks(seed);
  const input = new Uint8Array(4 * BLOCK_WORDS);
  const output = new DataView(new ArrayBuffer(4 * BLOCK_WORDS));
  let counter = 0;
  return {
    next(words) {
      const view = new DataView(input.buffer);
      // A stream has fewer than 2^32 blocks.
      for (let block = 0; block < 4; block++) view.setUint32(16 * block + 12, counter++);
      aes.encrypt(input, new Uint8Array(output.buffer));
      for (let i = 0; i < BLOCK_WORDS; i++) words[i] = output.getUint32(4 * i, true);
    },
    wipe: () => aes.wipe(),
  };
}
