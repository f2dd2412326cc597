// The last gate, the mask and the bytes that leave (docs/protocol.md sections 4.3, 5 and 14).

import type { Bytes, Kernel } from "../kernel/kernel.js";
import type { Descriptor } from "./descriptor.js";
import { concat } from "./encoding.js";
import { need } from "./errors.js";

/** What a vector has to obey; a descriptor has it. */
export type Bounds = Pick<Descriptor, "slots" | "linf" | "l2sq">;

/**
 * The last gate (section 14, step 5): whether the vector obeys the round's slots, linf and l2sq.
 *
 * Exact in doubles: l2sq is below 2^53, and rounding keeps order beyond.
 */
export function gate(bounds: Bounds, values: Float64Array): boolean {
  let squares = 0;
  for (const value of values) {
    if (!Number.isInteger(value) || Math.abs(value) > bounds.linf) return false;
    squares += value * value;
  }
  return values.length === bounds.slots && squares <= bounds.l2sq;
}

/**
 * Masks a vector towards every helper and frames it: the body of the one POST, section 5.
 *
 * @param secret 32 random bytes, the ephemeral secret. It is consumed: all zeros afterwards.
 * @param values one integer per slot that has passed `gate`.
 * @throws DandelionError `key_consumed` for a secret that was used before.
 */
export function mask(
  kernel: Kernel,
  descriptor: Descriptor,
  secret: Uint8Array,
  values: Float64Array,
): Bytes {
  need(
    secret.some((byte) => byte),
    "key_consumed",
  );
  const maskKeys = concat(...descriptor.helpers.map((helper) => helper.maskKey));
  const { epk, payload } = kernel.mask(descriptor, secret, maskKeys, values);
  return concat([1], descriptor.roundId, epk, payload);
}
