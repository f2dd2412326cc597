// SHA-512 (FIPS 180-4 section 6.4) of short public strings, for Ed25519.
//
// In BigInt, which takes a time that depends on its values: nothing secret is hashed here. The
// constants are computed, as the standard defines them, because their 640 bytes do not compress.

const WORD = (1n << 64n) - 1n;

/** The first 64 bits of the fractional parts of the roots of the first 80 primes. */
interface Constants {
  /** Of square roots: the first eight are the initial hash. */
  readonly square: readonly bigint[];
  /** Of cube roots: one for each round. */
  readonly cube: readonly bigint[];
}

/** The largest r with r^degree <= value, for r below 2^69. */
function root(value: bigint, degree: bigint): bigint {
  let result = 0n;
  for (let bit = 1n << 68n; bit > 0n; bit >>= 1n) {
    if ((result | bit) ** degree <= value) result |= bit;
  }
  return result;
}

let made: Constants | undefined;

/** Computed when they are first wanted: a millisecond or two. */
export function constants(): Constants {
  if (made) return made;
  const square: bigint[] = [];
  const cube: bigint[] = [];
  const primes: bigint[] = [];
  for (let n = 2n; cube.length < 80; n++) {
    if (primes.some((prime) => n % prime === 0n)) continue;
    primes.push(n);
    square.push(root(n << 128n, 2n) & WORD);
    cube.push(root(n << 192n, 3n) & WORD);
  }
  return (made = { square, cube });
}

/** SHA-512(data), 64 bytes. */
export function sha512(data: Uint8Array): Uint8Array {
  const { square, cube } = constants();
  const rotate = (x: bigint, by: bigint): bigint => (x >> by) | ((x << (64n - by)) & WORD);
  const padded = new Uint8Array((data.length + 17 + 127) & -128);
  padded.set(data);
  padded[data.length] = 128;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 4, 8 * data.length);
  let hash = square.slice(0, 8);
  for (let at = 0; at < padded.length; at += 128) {
    const w: bigint[] = [];
    let [a, b, c, d, e, f, g, h] = hash as [
      bigint, bigint, bigint, bigint, bigint, bigint, bigint, bigint,
    ];
    for (let i = 0; i < 80; i++) {
      if (i < 16) {
        w[i] = view.getBigUint64(at + 8 * i);
      } else {
        const [x, y] = [w[i - 15]!, w[i - 2]!];
        const s0 = rotate(x, 1n) ^ rotate(x, 8n) ^ (x >> 7n);
        const s1 = rotate(y, 19n) ^ rotate(y, 61n) ^ (y >> 6n);
        w[i] = (s1 + w[i - 7]! + s0 + w[i - 16]!) & WORD;
      }
      const sum1 = rotate(e, 14n) ^ rotate(e, 18n) ^ rotate(e, 41n);
      const t1 = h + sum1 + ((e & f) ^ (~e & g)) + cube[i]! + w[i]!;
      const sum0 = rotate(a, 28n) ^ rotate(a, 34n) ^ rotate(a, 39n);
      const t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) & WORD, c, b, a, (t1 + t2) & WORD];
    }
    hash = [a, b, c, d, e, f, g, h].map((word, i) => (word + hash[i]!) & WORD);
  }
  const output = new DataView(new ArrayBuffer(64));
  hash.forEach((word, i) => output.setBigUint64(8 * i, word));
  return new Uint8Array(output.buffer);
}
