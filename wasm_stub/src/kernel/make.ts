// What both kernels have in common: all but the two loops that take time.

import { ed25519Verify } from "./ed25519.js";
import { BASE_POINT, KEY_BYTES, type Bytes, type Kernel } from "./kernel.js";
import { maskSeed, sha256 } from "./sha256.js";

/** What a kernel is made of. */
export interface Loops {
  readonly name: Kernel["name"];
  readonly x25519: Kernel["x25519"];
  /**
   * Adds the stream of a suite under a seed (docs/protocol.md section 1) to the words modulo 2^32
   * or, where they are `wide`, to pairs of words modulo 2^64, of which the low one comes first.
   */
  addStream(suite: number, seed: Uint8Array, words: Uint32Array, wide: boolean): void;
}

/** One pass over all bytes: the time does not tell where a non-zero byte stands. */
function isAllZero(bytes: Uint8Array): boolean {
  return bytes.reduce((any, byte) => any | byte, 0) === 0;
}

/** The values modulo 2^32, or modulo 2^64 in pairs. */
function toWords(values: ArrayLike<number>, wide: boolean): Uint32Array {
  const each = wide ? 2 : 1;
  const words = new Uint32Array(each * values.length);
  for (let i = 0; i < values.length; i++) {
    words[each * i] = values[i]!;
    if (wide) words[2 * i + 1] = Math.floor(values[i]! / 2 ** 32);
  }
  return words;
}

/** The low bytes of each word as they travel. */
function pack(words: Uint32Array, width: number): Bytes {
  const each = Math.min(width / 8, 4);
  const payload = new Uint8Array(words.length * each);
  for (let i = 0; i < payload.length; i++) {
    payload[i] = words[Math.floor(i / each)]! >>> (8 * (i % each));
  }
  return payload;
}

export function makeKernel({ name, x25519, addStream }: Loops): Kernel {
  return {
    name,
    x25519,
    sha256: (data) => sha256(data),
    ed25519Verify,

    // A point has one of the five small orders exactly if a clamped scalar, a multiple of 8 that is
    // none of the large orders, takes it to zero.
    keyIsAcceptable: (key) =>
      key.length === KEY_BYTES &&
      // Below p = 2^255 - 19, whose bytes are ed ff .. ff 7f.
      (key[31]! < 127 ||
        (key[31] === 127 && (key[0]! < 237 || key.subarray(1, 31).some((byte) => byte < 255)))) &&
      !isAllZero(x25519(BASE_POINT, key)),

    mask({ suite, width, ctx }, ephemeralSecret, maskKeys, values) {
      const wide = width === 64;
      const parties = maskKeys.length / KEY_BYTES;
      const refuseIf = (wrong: boolean): void => {
        if (wrong) throw new RangeError("mask");
      };
      let words: Uint32Array | undefined;
      try {
        refuseIf(
          !(suite === 1 || suite === 2) ||
            ![16, 24, 32, 64].includes(width) ||
            ctx.length !== KEY_BYTES ||
            ephemeralSecret.length !== KEY_BYTES ||
            isAllZero(ephemeralSecret) ||
            !Number.isInteger(parties) ||
            parties < 1 ||
            parties > 255,
        );
        const epk = x25519(ephemeralSecret, BASE_POINT);
        words = toWords(values, wide);
        for (let party = 1; party <= parties; party++) {
          const pk = maskKeys.subarray(KEY_BYTES * (party - 1), KEY_BYTES * party);
          const dh = x25519(ephemeralSecret, pk);
          refuseIf(isAllZero(dh));
          const seed = maskSeed(dh, epk, pk, ctx, party);
          addStream(suite, seed, words, wide);
          seed.fill(0);
          dh.fill(0);
        }
        return { epk, payload: pack(words, width) };
      } finally {
        ephemeralSecret.fill(0);
        words?.fill(0);
      }
    },
  };
}
