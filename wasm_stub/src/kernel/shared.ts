// What both kernels have in common: the rule for keys, and what `mask` refuses.

import { BASE_POINT, KEY_BYTES, type Kernel, type MaskRound } from "./kernel.js";

/** One pass over all bytes: the time does not tell where a non-zero byte stands. */
export function isAllZero(bytes: Uint8Array): boolean {
  return bytes.reduce((any, byte) => any | byte, 0) === 0;
}

/**
 * The rule of docs/protocol.md section 4.2. A point has one of the five small orders exactly if a
 * clamped scalar, a multiple of 8 that is none of the large orders, takes it to zero.
 */
export function keyRule(x25519: Kernel["x25519"]): Kernel["keyIsAcceptable"] {
  return (key) =>
    key.length === KEY_BYTES &&
    // Below p = 2^255 - 19, whose bytes are ed ff .. ff 7f.
    (key[31]! < 127 ||
      (key[31] === 127 && (key[0]! < 237 || key.subarray(1, 31).some((byte) => byte < 255)))) &&
    !isAllZero(x25519(BASE_POINT, key));
}

/** @throws RangeError, see `Kernel.mask`. */
export function checkMask({ suite, width, ctx }: MaskRound, secret: Uint8Array, keys: Uint8Array): void {
  const parties = keys.length / KEY_BYTES;
  if (
    !(suite === 1 || suite === 2) ||
    ![16, 24, 32, 64].includes(width) ||
    ctx.length !== KEY_BYTES ||
    secret.length !== KEY_BYTES ||
    isAllZero(secret) ||
    !Number.isInteger(parties) ||
    parties < 1 ||
    parties > 255
  ) {
    throw new RangeError("mask");
  }
}
