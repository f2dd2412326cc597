// SHA-256 (FIPS 180-4 section 6.2), HMAC (RFC 2104) and the derivations of docs/protocol.md
// section 4.1 that a client makes.

import type { Bytes } from "./kernel.js";
import { constants } from "./sha512.js";

let initial: Uint32Array | undefined;
let rounds: Uint32Array | undefined;

/** One block into the state. The words are in no order that depends on data. */
function compress(state: Uint32Array, block: DataView, at: number, w: Uint32Array): void {
  const k = rounds!;
  const rotate = (x: number, by: number): number => (x >>> by) | (x << (32 - by));
  let [a, b, c, d, e, f, g, h] = state as unknown as [
    number, number, number, number, number, number, number, number,
  ];
  for (let i = 0; i < 64; i++) {
    if (i < 16) {
      w[i] = block.getUint32(at + 4 * i);
    } else {
      const [x, y] = [w[i - 15]!, w[i - 2]!];
      const s0 = rotate(x, 7) ^ rotate(x, 18) ^ (x >>> 3);
      const s1 = rotate(y, 17) ^ rotate(y, 19) ^ (y >>> 10);
      w[i] = s1 + w[i - 7]! + s0 + w[i - 16]!;
    }
    const sum1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
    const t1 = h + sum1 + ((e & f) ^ (~e & g)) + k[i]! + w[i]!;
    const sum0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
    const t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = (d + t1) | 0;
    d = c;
    c = b;
    b = a;
    a = (t1 + t2) | 0;
  }
  [a, b, c, d, e, f, g, h].forEach((word, i) => (state[i]! += word));
}

/** SHA-256 of the concatenation of the parts. What it copies of them is erased. */
export function sha256(...parts: Uint8Array[]): Bytes {
  if (!initial) {
    // The same roots as SHA-512's, to 32 bits.
    const { square, cube } = constants();
    const high = (words: readonly bigint[]): Uint32Array =>
      Uint32Array.from(words, (word) => Number(word >> 32n));
    initial = high(square.slice(0, 8));
    rounds = high(cube.slice(0, 64));
  }
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const padded = new Uint8Array((length + 9 + 63) & -64);
  let end = 0;
  for (const part of parts) {
    padded.set(part, end);
    end += part.length;
  }
  padded[length] = 128;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(length / 2 ** 29));
  view.setUint32(padded.length - 4, 8 * length);
  const state = initial.slice();
  const schedule = new Uint32Array(64);
  for (let at = 0; at < padded.length; at += 64) compress(state, view, at, schedule);
  const output = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => output.setUint32(4 * i, word));
  for (const used of [padded, schedule, state]) used.fill(0);
  return new Uint8Array(output.buffer);
}

/** HMAC-SHA256 under a key of at most 64 bytes, of the concatenation of the parts. */
export function hmac(key: Uint8Array, ...parts: Uint8Array[]): Bytes {
  const pad = (byte: number): Uint8Array => new Uint8Array(64).map((_, i) => byte ^ (key[i] ?? 0));
  const [inner, outer] = [pad(0x36), pad(0x5c)];
  const hash = sha256(inner, ...parts);
  const output = sha256(outer, hash);
  for (const used of [inner, outer, hash]) used.fill(0);
  return output;
}

const ascii = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));
const KEM_PREFIX = ascii("HPKE-v1KEM\x00\x20");
const ONE = new Uint8Array([1]);

/**
 * The seed of the mask that `party` removes: ExtractAndExpand of RFC 9180 section 4.1, then
 * expand(shared secret, "mask", ctx || party, 32).
 */
export function maskSeed(
  dh: Uint8Array,
  epk: Uint8Array,
  pk: Uint8Array,
  ctx: Uint8Array,
  party: number,
): Bytes {
  const prk = hmac(new Uint8Array(0), KEM_PREFIX, ascii("eae_prk"), dh);
  const length = new Uint8Array([0, 32]);
  const shared = hmac(prk, length, KEM_PREFIX, ascii("shared_secret"), epk, pk, ONE);
  const label = ascii("dandelion/v1/mask\x00");
  const seed = hmac(shared, label, ctx, new Uint8Array([party]), ONE);
  prk.fill(0);
  shared.fill(0);
  return seed;
}
