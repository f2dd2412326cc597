// From bounds and noise to rho, and from rho to epsilon (docs/protocol.md section 16).
//
// Ledgers count in units of 2^-40 rho. A page's ledger holds numbers, so it counts to 2^53 - 1
// units, which is rho 8191: more than any promise that means something.

import { INTEGER_END } from "./encoding.js";

const UNITS = 2 ** 40;

/** Stated and computed epsilon agree to this; it covers the rounding of floating point only. */
const EPSILON_SLACK = 1e-9;

const GOLDEN = (Math.sqrt(5) - 1) / 2;

/** `ceil(l2sq * 2^40 / (2 * noise_var))`, exact: the cost of one release in units of 2^-40 rho. */
export function rhoUnits(l2sq: number, noiseVar: number): bigint {
  return ((BigInt(l2sq) << 39n) + BigInt(noiseVar) - 1n) / BigInt(noiseVar);
}

/**
 * The least epsilon for which `units` of rho imply (epsilon, delta)-differential privacy: Canonne,
 * Kamath, Steinke 2020, proposition 12, minimised over alpha by golden section, because the
 * expression has one minimum in ln(alpha - 1).
 *
 * @param delta above 0 and below 1.
 */
export function epsilonOf(units: bigint | number, delta: number): number {
  const rho = Number(units) / UNITS;
  const at = (logExcess: number): number => {
    const excess = Math.exp(logExcess);
    const alpha = 1 + excess;
    return (
      alpha * rho - Math.log1p(1 / excess) - (Math.log(delta) + Math.log(alpha)) / excess
    );
  };
  let low = -20;
  let high = 40;
  while (high - low > 1e-9) {
    const step = GOLDEN * (high - low);
    if (at(high - step) < at(low + step)) high = low + step;
    else low = high - step;
  }
  return rho && Math.max(0, at((low + high) / 2));
}

/**
 * The most rho, in units, that is still (epsilon, delta)-differentially private; at most 2^53 - 1.
 *
 * @param epsilon above 0.
 * @param delta above 0 and below 1.
 */
export function rhoUnitsForEpsilon(epsilon: number, delta: number): number {
  let low = 0;
  let high = INTEGER_END;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (epsilonOf(middle, delta) <= epsilon) low = middle;
    else high = middle;
  }
  return low;
}

/**
 * The double nearest to a decimal text of section 15.1 such as `0.5` or `1e-8`; NaN for whatever
 * else it is.
 */
export function decimal(value: unknown): number {
  const form = /^[0-9]{1,20}(\.[0-9]{1,40})?(e-?[0-9]{1,2})?$/;
  return typeof value === "string" && form.test(value) ? +value : NaN;
}

/** Whether `units` of rho give the epsilon and delta that a plan states, if it states any. */
export function keepsPromise(
  units: bigint,
  { epsilon, delta }: { readonly epsilon?: unknown; readonly delta?: unknown },
): boolean {
  const chance = decimal(delta);
  return chance < 1 && epsilonOf(units, chance) <= decimal(epsilon) + EPSILON_SLACK;
}
