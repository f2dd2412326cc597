// Where chance comes from: coins, jitter, ephemeral secrets.

/** Fills an array with random bytes and returns it. */
export type RandomBytes = <T extends Uint8Array<ArrayBuffer> | Uint32Array<ArrayBuffer>>(
  array: T,
) => T;

/** Uniform in [0, 1). */
export function uniform(random: RandomBytes): number {
  return random(new Uint32Array(1))[0]! / 2 ** 32;
}
