// The kernel in plain TypeScript, for pages whose Content-Security-Policy forbids WebAssembly.
//
// It is loaded only there. Secrets are erased after use as far as a language with a garbage
// collector lets one; the arithmetic neither branches on them nor uses them as indices.

import { ed25519Verify } from "./ed25519.js";
import { BASE_POINT, KEY_BYTES, type Bytes, type Kernel, type Masked } from "./kernel.js";
import { maskSeed, sha256 } from "./sha256.js";
import { checkMask, isAllZero, keyRule } from "./shared.js";
import { aes256Ctr, BLOCK_WORDS, chacha20, type Stream } from "./streams.js";
import { x25519 } from "./x25519.js";

/** The stream of a suite under a seed. */
export function stream(suite: number, seed: Uint8Array): Stream {
  return suite === 1 ? chacha20(seed) : aes256Ctr(seed);
}

/** The values modulo 2^64 as pairs of words, the low one first, or modulo 2^32. */
function toWords(values: ArrayLike<number>, wide: boolean): Uint32Array {
  if (!wide) return Uint32Array.from(values);
  const words = new Uint32Array(2 * values.length);
  for (let i = 0; i < values.length; i++) {
    words[2 * i] = values[i]!;
    words[2 * i + 1] = Math.floor(values[i]! / 2 ** 32);
  }
  return words;
}

/** Adds the stream to the words, or to the pairs of words with their carry. */
function addStream(words: Uint32Array, wide: boolean, mask: Stream): void {
  const block = new Uint32Array(BLOCK_WORDS);
  for (let at = 0; at < words.length; at++) {
    const i = at % BLOCK_WORDS;
    if (i === 0) mask.next(block);
    if (wide && at % 2) {
      const carried = Number(words[at - 1]! < block[i - 1]!);
      words[at]! += block[i]! + carried;
    } else {
      words[at]! += block[i]!;
    }
  }
  block.fill(0);
}

/** The low bytes of each word as they travel. */
function pack(words: Uint32Array, width: number): Bytes {
  const each = Math.min(width / 8, 4);
  const payload = new Uint8Array(words.length * each);
  words.forEach((word, slot) => {
    for (let i = 0; i < each; i++) payload[slot * each + i] = word >>> (8 * i);
  });
  return payload;
}

const mask: Kernel["mask"] = (round, ephemeralSecret, maskKeys, values): Masked => {
  const wide = round.width === 64;
  let words: Uint32Array = new Uint32Array(0);
  try {
    checkMask(round, ephemeralSecret, maskKeys);
    const epk = x25519(ephemeralSecret, BASE_POINT);
    words = toWords(values, wide);
    for (let at = 0; at < maskKeys.length; at += KEY_BYTES) {
      const pk = maskKeys.subarray(at, at + KEY_BYTES);
      const dh = x25519(ephemeralSecret, pk);
      if (isAllZero(dh)) throw new RangeError("Diffie-Hellman result");
      const seed = maskSeed(dh, epk, pk, round.ctx, at / KEY_BYTES + 1);
      const masks = stream(round.suite, seed);
      addStream(words, wide, masks);
      masks.wipe();
      seed.fill(0);
      dh.fill(0);
    }
    return { epk, payload: pack(words, round.width) };
  } finally {
    ephemeralSecret.fill(0);
    words.fill(0);
  }
};

/** The kernel in TypeScript. */
export const kernel: Kernel = {
  name: "typescript",
  sha256: (data) => sha256(data),
  x25519,
  keyIsAcceptable: keyRule(x25519),
  mask,
  ed25519Verify,
};
