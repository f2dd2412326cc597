// Ed25519 verification (RFC 8032 section 5.1) with the strictness of docs/protocol.md section 2.
//
// Only public data comes here, and only when a round is joined: BigInt, whose time depends on its
// values, is good enough and a third of the size of compiled field arithmetic.

import { sha512 } from "./sha512.js";

const P = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;

/** (X : Y : Z : T) with x = X / Z, y = Y / Z, x y = T / Z. */
type Point = readonly [bigint, bigint, bigint, bigint];

const IDENTITY: Point = [0n, 1n, 1n, 0n];

/** The residue in [0, P). */
function mod(value: bigint): bigint {
  const rest = value % P;
  return rest < 0n ? rest + P : rest;
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (; exponent > 0n; exponent >>= 1n) {
    if (exponent & 1n) result = mod(result * base);
    base = mod(base * base);
  }
  return result;
}

const invert = (value: bigint): bigint => power(value, P - 2n);

// Computed with the first signature, so that a page that verifies none does not wait for them.
let d = 0n;
let rootOfMinus1 = 0n;
let base = IDENTITY;

function prepare(): void {
  if (d) return;
  d = mod(-121665n * invert(121666n));
  rootOfMinus1 = power(2n, (P - 1n) / 4n);
  base = decode(mod(4n * invert(5n))) as Point;
}

/** The complete addition of RFC 8032 section 5.1.4; it doubles, too. */
function add(p: Point, q: Point): Point {
  const a = (p[1] - p[0]) * (q[1] - q[0]);
  const b = (p[1] + p[0]) * (q[1] + q[0]);
  const c = mod(p[3] * q[3]) * 2n * d;
  const z = 2n * p[2] * q[2];
  const [e, f, g, h] = [mod(b - a), mod(z - c), mod(z + c), mod(b + a)];
  return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)];
}

/** m times p plus n times q. */
function combine(m: bigint, p: Point, n: bigint, q: Point): Point {
  const both = add(p, q);
  let sum = IDENTITY;
  for (let bit = 1n << 252n; bit > 0n; bit >>= 1n) {
    sum = add(sum, sum);
    const addend = m & bit ? (n & bit ? both : p) : n & bit ? q : undefined;
    if (addend) sum = add(sum, addend);
  }
  return sum;
}

/** Little-endian bytes as an integer. */
function integer(bytes: Uint8Array): bigint {
  return bytes.reduceRight((all, byte) => (all << 8n) | BigInt(byte), 0n);
}

/** The y of an affine point with the sign of its x above, which is its encoding. */
function encode([x, y, z]: Point): bigint {
  const inverse = invert(z);
  return mod(y * inverse) | ((mod(x * inverse) & 1n) << 255n);
}

/** The point that an integer encodes, if it is the canonical encoding of one. */
function decode(encoded: bigint): Point | undefined {
  const y = encoded & (2n ** 255n - 1n);
  const square = y * y;
  const ratio = mod((square - 1n) * invert(mod(d * square + 1n)));
  let x = power(ratio, (P + 3n) / 8n);
  if (mod(x * x) !== ratio) x = mod(x * rootOfMinus1);
  if ((x & 1n) !== encoded >> 255n) x = P - x;
  const point: Point = [x, y, 1n, mod(x * y)];
  return mod(x * x) === ratio && encode(point) === encoded ? point : undefined;
}

/** See `Kernel.ed25519Verify`. */
export function ed25519Verify(
  identity: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  if (identity.length !== 32 || signature.length !== 64) return false;
  prepare();
  const r = signature.subarray(0, 32);
  const s = integer(signature.subarray(32));
  const encodedA = integer(identity);
  const a = decode(encodedA);
  if (s >= ORDER || !a || encodedA === 1n) return false;
  // Of the right order if the group order takes it to the identity.
  if (encode(combine(ORDER, a, 0n, IDENTITY)) !== 1n) return false;
  const hashed = new Uint8Array(64 + message.length);
  hashed.set(r);
  hashed.set(identity, 32);
  hashed.set(message, 64);
  const k = integer(sha512(hashed)) % ORDER;
  // R is SB - kA then and only then, bytes included, so that it need not be decoded; and as a sum
  // of multiples of B and A it is of their group.
  const encodedR = encode(combine(s, base, k, [P - a[0], a[1], 1n, P - a[3]]));
  return encodedR === integer(r) && encodedR !== 1n;
}
