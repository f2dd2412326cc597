// Where the stream of suite 1 begins (docs/protocol.md section 1).

/** Words of a block of ChaCha20, and of its state. */
export const BLOCK_WORDS = 16;

/**
 * The state of RFC 8439 section 2.3 under a seed: counter 0 and the nonce "LibsodiumDRG". It is the
 * caller's to erase.
 */
export function chacha20State(seed: Uint8Array): Uint32Array {
  const bytes = new Uint8Array(4 * BLOCK_WORDS);
  const put = (text: string, at: number): void =>
    bytes.set(Uint8Array.from(text, (c) => c.charCodeAt(0)), at);
  put("expand 32-byte k", 0);
  bytes.set(seed, 16);
  put("LibsodiumDRG", 52);
  return new Uint32Array(bytes.buffer);
}
