// X25519 (RFC 7748) in numbers. Part of the fallback; the compiled kernel has its own.
//
// An element of GF(2^255 - 19) is 16 limbs of 16 bits in doubles. Products of limbs and their sums
// stay far below 2^53, so that every step is exact. Nothing here branches on a secret or uses one
// as an index; how long an engine takes for a multiplication of two doubles is beyond what
// JavaScript can promise.

import { KEY_BYTES, type Bytes } from "./kernel.js";

const LIMBS = 16;
const RADIX = 65536;
/** (486662 - 2) / 4 of RFC 7748 section 5. */
const A24 = 121665;

/** Limbs between -2^17 and 2^17, those of a product or of a sum or difference of two. */
type Element = Float64Array;

const element = (): Element => new Float64Array(LIMBS);

/** Brings 16 limbs below 2^45 in magnitude to [0, 2^16), the first one up to 38 off. */
function carry(limbs: Float64Array): void {
  for (let pass = 0; pass < 2; pass++) {
    for (let i = 0; i < LIMBS; i++) {
      const above = Math.floor(limbs[i]! / RADIX);
      limbs[i]! -= above * RADIX;
      // 2^256 is 38 modulo p.
      if (i < LIMBS - 1) limbs[i + 1]! += above;
      else limbs[0]! += 38 * above;
    }
  }
}

const product = element();

/** out := a b. */
function multiply(out: Element, a: Element, b: Element): void {
  for (let k = 0; k < LIMBS; k++) {
    let low = 0;
    let high = 0;
    for (let i = 0; i <= k; i++) low += a[i]! * b[k - i]!;
    for (let i = k + 1; i < LIMBS; i++) high += a[i]! * b[LIMBS + k - i]!;
    product[k] = low + 38 * high;
  }
  carry(product);
  out.set(product);
}

/** out := a + factor b, without carrying. */
function addTimes(out: Element, a: Element, factor: number, b: Element): void {
  for (let i = 0; i < LIMBS; i++) out[i] = a[i]! + factor * b[i]!;
}

/** Exchanges the two where `swap` is 1, and does as much where it is 0. */
function exchange(swap: number, a: Element, b: Element): void {
  for (let i = 0; i < LIMBS; i++) {
    const difference = swap * (a[i]! - b[i]!);
    a[i]! -= difference;
    b[i]! += difference;
  }
}

/** The inverse, by the power p - 2; that of zero is zero. */
function invert(a: Element): Element {
  const power = a.slice();
  // 2^255 - 21 has all of its 255 bits set but those of 2^2 and 2^4.
  for (let bit = 253; bit >= 0; bit--) {
    multiply(power, power, power);
    if (bit !== 2 && bit !== 4) multiply(power, power, a);
  }
  return power;
}

function decode(bytes: Uint8Array): Element {
  const limbs = element().map((_, i) => bytes[2 * i]! + 256 * bytes[2 * i + 1]!);
  limbs[LIMBS - 1]! %= RADIX / 2;
  return limbs;
}

/** The 32 bytes of the representative below p. */
function encode(limbs: Element): Bytes {
  const top = LIMBS - 1;
  carry(limbs);
  // Now below 2^256 but for limb 0; what is above bit 255 comes back 19-fold.
  for (let pass = 0; pass < 2; pass++) {
    const above = Math.floor(limbs[top]! / (RADIX / 2));
    limbs[top]! -= above * (RADIX / 2);
    limbs[0]! += 19 * above;
    carry(limbs);
  }
  // p or more, if 19 more reaches bit 255; then the value less p is these 19 more without that bit.
  const more = limbs.slice();
  more[0]! += 19;
  carry(more);
  const reaches = Math.floor(more[top]! / (RADIX / 2));
  more[top]! -= reaches * (RADIX / 2);
  const bytes = new Uint8Array(KEY_BYTES);
  for (let i = 0; i < LIMBS; i++) {
    const limb = limbs[i]! + reaches * (more[i]! - limbs[i]!);
    bytes[2 * i] = limb;
    bytes[2 * i + 1] = limb / 256;
  }
  more.fill(0);
  return bytes;
}

/** See `Kernel.x25519`. */
export function x25519(scalar: Uint8Array, point: Uint8Array): Bytes {
  const x1 = decode(point);
  const [x2, z2, x3, z3] = [element(), element(), x1.slice(), element()];
  const [a, b, c, d] = [element(), element(), element(), element()];
  x2[0] = z3[0] = 1;
  const clamped = scalar.slice();
  clamped[0]! &= 248;
  clamped[31] = (clamped[31]! & 127) | 64;
  let swapped = 0;
  // The ladder of RFC 7748 section 5.
  for (let i = 254; i >= 0; i--) {
    const bit = (clamped[i >> 3]! >> (i & 7)) & 1;
    exchange(swapped ^ bit, x2, x3);
    exchange(swapped ^ bit, z2, z3);
    swapped = bit;
    addTimes(a, x2, 1, z2);
    addTimes(b, x2, -1, z2);
    addTimes(c, x3, 1, z3);
    addTimes(d, x3, -1, z3);
    multiply(d, d, a);
    multiply(c, c, b);
    addTimes(x3, d, 1, c);
    addTimes(z3, d, -1, c);
    multiply(x3, x3, x3);
    multiply(z3, z3, z3);
    multiply(z3, z3, x1);
    multiply(a, a, a);
    multiply(b, b, b);
    multiply(x2, a, b);
    addTimes(c, a, -1, b);
    addTimes(z2, a, A24, c);
    carry(z2);
    multiply(z2, z2, c);
  }
  exchange(swapped, x2, x3);
  exchange(swapped, z2, z3);
  const inverse = invert(z2);
  multiply(x2, x2, inverse);
  const output = encode(x2);
  for (const used of [clamped, product, inverse, x2, z2, x3, z3, a, b, c, d]) used.fill(0);
  return output;
}
