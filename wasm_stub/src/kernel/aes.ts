// AES-256 (FIPS 197), encryption only, for suite 2. Part of the fallback.
//
// Bit-sliced: no table that a secret would index, which other code could read from the cache. Two
// blocks go side by side; plane j holds bit j of their 32 bytes, one to each bit of a number. The
// S-box is computed as the standard defines it, by the inverse in GF(2^8), which is the power 254.

type Planes = Int32Array;

const PLANES = 8;
const BATCH_BYTES = 32;
const ROUNDS = 14;
const BLOCK_BYTES = 16;

/** out := the polynomial of degree 14, modulo x^8 + x^4 + x^3 + x + 1. */
function reduce(out: Planes, wide: Int32Array): void {
  for (let i = 14; i >= PLANES; i--) {
    for (const down of [8, 7, 5, 4]) wide[i - down]! ^= wide[i]!;
  }
  out.set(wide.subarray(0, PLANES));
}

const wide = new Int32Array(15);

function multiply(out: Planes, a: Planes, b: Planes): void {
  wide.fill(0);
  for (let i = 0; i < PLANES; i++) {
    for (let j = 0; j < PLANES; j++) wide[i + j]! ^= a[i]! & b[j]!;
  }
  reduce(out, wide);
}

function square(out: Planes, a: Planes): void {
  wide.fill(0);
  for (let i = 0; i < PLANES; i++) wide[2 * i] = a[i]!;
  reduce(out, wide);
}

const planes = (): Planes => new Int32Array(PLANES);
const [to2, to3, to12, inverse] = [planes(), planes(), planes(), planes()];

/** The S-box (FIPS 197 section 5.1.1) of every byte, in place. */
function substitute(state: Planes): void {
  square(to2, state);
  multiply(to3, to2, state);
  square(to12, to3);
  square(to12, to12);
  multiply(inverse, to12, to3);
  for (let i = 0; i < 4; i++) square(inverse, inverse);
  multiply(inverse, inverse, to12);
  multiply(inverse, inverse, to2);
  for (let i = 0; i < PLANES; i++) {
    // The affine map, whose constant is 63 in hexadecimal.
    let bit = -((0x63 >> i) & 1);
    for (const up of [0, 4, 5, 6, 7]) bit ^= inverse[(i + up) % PLANES]!;
    state[i] = bit;
  }
}

/** Byte 4 c + r of a block is that of row r and column c: row r moves r columns to the left. */
function shiftRows(state: Planes): void {
  for (let i = 0; i < PLANES; i++) {
    const x = state[i]!;
    let shifted = x & 0x11111111;
    for (let row = 1; row < 4; row++) {
      const rows = x & (0x11111111 << row);
      const [right, left] = [4 * row, 16 - 4 * row];
      const low = 0xffff >>> right;
      shifted |= (rows >>> right) & (low * 0x10001);
      shifted |= (rows << left) & ((0xffff ^ low) * 0x10001);
    }
    state[i] = shifted;
  }
}

/** The byte `by` rows below in its column. */
function below(x: number, by: number): number {
  const low = 0xf >>> by;
  return ((x >>> by) & (low * 0x11111111)) | ((x << (4 - by)) & ((0xf ^ low) * 0x11111111));
}

/** Each byte a becomes 2 (a + b) + b + c + d, where b, c, d are those below it in its column. */
function mixColumns(state: Planes): void {
  const sums = state.map((x) => x ^ below(x, 1));
  const top = sums[7]!;
  for (let i = 0; i < PLANES; i++) {
    const doubled = (i > 0 ? sums[i - 1]! : 0) ^ ((0x1b >> i) & 1 ? top : 0);
    state[i] = doubled ^ below(state[i]!, 1) ^ below(sums[i]!, 2);
  }
}

function add(state: Planes, key: Planes): void {
  for (let i = 0; i < PLANES; i++) state[i]! ^= key[i]!;
}

/** At most 32 bytes. */
function slice(bytes: Uint8Array): Planes {
  return planes().map((_, plane) =>
    bytes.reduce((all, byte, i) => all | (((byte >> plane) & 1) << i), 0),
  );
}

function unslice(state: Planes, bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = state.reduce((all, bits, plane) => all | (((bits >>> i) & 1) << plane), 0);
  }
}

/** The key of each round, the same for both blocks (FIPS 197 section 5.2). */
function expandKey(key: Uint8Array): Planes[] {
  const bytes = new Uint8Array(BLOCK_BYTES * (ROUNDS + 1));
  bytes.set(key);
  const word = new Uint8Array(4);
  let roundConstant = 1;
  for (let at = key.length; at < bytes.length; at += 4) {
    word.set(bytes.subarray(at - 4, at));
    if (at % 16 === 0) {
      const turned = at % 32 === 0 ? [word[1]!, word[2]!, word[3]!, word[0]!] : word;
      const state = slice(Uint8Array.from(turned));
      substitute(state);
      unslice(state, word);
      if (at % 32 === 0) {
        word[0]! ^= roundConstant;
        roundConstant *= 2;
      }
      state.fill(0);
    }
    for (let i = 0; i < 4; i++) bytes[at + i] = bytes[at + i - key.length]! ^ word[i]!;
  }
  const keys: Planes[] = [];
  const twice = new Uint8Array(BATCH_BYTES);
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    twice.set(bytes.subarray(at, at + BLOCK_BYTES));
    twice.copyWithin(BLOCK_BYTES, 0, BLOCK_BYTES);
    keys.push(slice(twice));
  }
  for (const used of [bytes, word, twice]) used.fill(0);
  return keys;
}

/** AES-256 under a key of 32 bytes. */
export interface Aes {
  /** Overwrites `output` with the encryption of each block of `input`, of which there are pairs. */
  encrypt(input: Uint8Array, output: Uint8Array): void;
  /** Erases what was made of the key. */
  wipe(): void;
}

export function aesBlocks(key: Uint8Array): Aes {
  const keys = expandKey(key);
  return {
    encrypt(input, output) {
      for (let at = 0; at < input.length; at += BATCH_BYTES) {
        const state = slice(input.subarray(at, at + BATCH_BYTES));
        add(state, keys[0]!);
        for (let round = 1; round <= ROUNDS; round++) {
          substitute(state);
          shiftRows(state);
          if (round < ROUNDS) mixColumns(state);
          add(state, keys[round]!);
        }
        unslice(state, output.subarray(at, at + BATCH_BYTES));
      }
    },
    wipe() {
      for (const used of [...keys, wide, to2, to3, to12, inverse]) used.fill(0);
    },
  };
}
