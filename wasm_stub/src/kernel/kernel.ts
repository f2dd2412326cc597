// What a page needs of the kernel (docs/protocol.md sections 1, 2, 4.2 and 4.3).
//
// There are two kernels with the same bytes: one whose loops are `dandelion/kernel/` compiled to
// WebAssembly, and one in plain TypeScript for pages whose Content-Security-Policy forbids that.
// Every function of a kernel is synchronous, because nothing that waits for a promise survives a
// page that is being left.

/** Bytes of a key, a scalar, a seed, ctx and a SHA-256 output. */
export const KEY_BYTES = 32;

/** Bytes with a buffer of their own, so that they can be the body of a request. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** What client and helpers of a round have in common; all of it is in the descriptor. */
export interface MaskRound {
  /** 1 is ChaCha20, 2 is AES-256-CTR. */
  readonly suite: number;
  /** Bits of a word on the wire: 16, 24, 32 or 64. */
  readonly width: number;
  /** SHA-256 of the descriptor, 32 bytes. */
  readonly ctx: Uint8Array;
}

/** A masked vector and the public key under which helpers find its masks. */
export interface Masked {
  /** X25519(ephemeral secret, 9), 32 bytes. */
  readonly epk: Bytes;
  /** The masked words, `width / 8` bytes each, low byte first. */
  readonly payload: Bytes;
}

/**
 * The functions of a kernel. They judge lengths and ranges no further than memory safety asks for:
 * what a descriptor may hold is judged where it is decoded.
 */
export interface Kernel {
  /** Which of the two it is. */
  readonly name: "wasm" | "typescript";

  /** SHA-256 (FIPS 180-4), 32 bytes. */
  sha256(data: Uint8Array): Bytes;

  /**
   * X25519 of RFC 7748 section 5: the scalar is clamped, the top bit of the point is ignored, and
   * an all-zero result is returned as it is. A secret's public key is `x25519(secret, BASE_POINT)`.
   */
  x25519(scalar: Uint8Array, point: Uint8Array): Bytes;

  /** Whether docs/protocol.md section 4.2 accepts the X25519 key. False for other than 32 bytes. */
  keyIsAcceptable(key: Uint8Array): boolean;

  /**
   * The values plus one mask per key, packed (docs/protocol.md section 4.3).
   *
   * `ephemeralSecret` is 32 random bytes. It is consumed: whatever happens, it is all zeros when
   * this returns or throws, and a secret of all zeros is refused, since it would mask twice.
   *
   * @param maskKeys m times 32 bytes, those of the parties 1, 2, ... m in this order, m <= 255.
   * @param values integers, |value| < 2^53, one per slot; reduced modulo `2^width`.
   * @throws RangeError where an argument has no meaning, the secret was used, or a Diffie-Hellman
   * result is zero, which cannot happen with keys that `keyIsAcceptable` accepts.
   */
  mask(
    round: MaskRound,
    ephemeralSecret: Uint8Array,
    maskKeys: Uint8Array,
    values: ArrayLike<number>,
  ): Masked;

  /**
   * Ed25519 (RFC 8032) with the strictness of docs/protocol.md section 2. False, too, for lengths
   * other than 32 bytes of identity and 64 of signature. Takes milliseconds: not for a page that is
   * being left.
   */
  ed25519Verify(identity: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
}

/** The encoding of the base point, u = 9. */
export const BASE_POINT: Uint8Array = new Uint8Array(KEY_BYTES);
BASE_POINT[0] = 9;
