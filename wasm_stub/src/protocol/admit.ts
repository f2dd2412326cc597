// Whether a round may be answered at all (docs/protocol.md section 14, steps 1 and 2).
//
// Judged from the envelope, the pinned configuration and the policy alone: no event, no coin, no
// clock. So the verdict on one envelope is always the same and may be remembered.

import type { Kernel } from "../kernel/kernel.js";
import { keepsPromise, rhoUnits } from "./accounting.js";
import type { Descriptor } from "./descriptor.js";
import { hex } from "./encoding.js";
import { verifying, wholeEnvelope } from "./envelope.js";
import { need } from "./errors.js";
import { parsePlan, type Plan } from "./plan.js";

/** One deployment as the client knows it. The scheme is always `oneshot`. */
export interface Pins {
  /** The suites that may be used. */
  readonly suites: readonly number[];
  /** The collector's identity, 64 lower-case hexadecimal digits. */
  readonly collector: string;
  /** The exact identities of all helpers, 64 lower-case hexadecimal digits each, ascending. */
  readonly helpers: readonly string[];
}

/** How far the client goes in one round. */
export interface Floors {
  /** The least cohort_min. */
  readonly cohortMin: number;
  /** The most rho, in units of 2^-40; `rhoUnitsForEpsilon` gives it. */
  readonly rhoRoundMax: number;
  /** The longest time from `opens` to `expires`, in seconds. */
  readonly lifetimeMaxS: number;
}

/** A round that satisfies pins and floors. */
export interface Admitted {
  readonly descriptor: Descriptor;
  readonly plan: Plan;
  /** What taking part costs, in units of 2^-40 rho; below 2^53. */
  readonly rhoUnits: number;
}

/**
 * Judges an envelope, in the order of the text.
 *
 * @throws DandelionError a token of sections 3.2 and 3.4, `pin_mismatch` naming the item,
 * `floor_cohort`, `floor_noise`, `floor_time`, or `bad_plan`.
 */
export function admit(kernel: Kernel, envelope: Uint8Array, pins: Pins, floors: Floors): Admitted {
  const steps = admitting(kernel, envelope, pins, floors);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

/** As `admit`; pauses where a page should get its turn. */
export function* admitting(
  kernel: Kernel,
  envelope: Uint8Array,
  pins: Pins,
  floors: Floors,
): Generator<void, Admitted> {
  const read = wholeEnvelope(kernel, envelope);
  yield* verifying(kernel, read);
  const { descriptor } = read;
  const units = rhoUnits(descriptor.l2sq, descriptor.noiseVar);
  checkPins(descriptor, pins);
  need(descriptor.cohortMin >= floors.cohortMin, "floor_cohort");
  need(units <= floors.rhoRoundMax, "floor_noise");
  need(descriptor.expires - descriptor.opens <= floors.lifetimeMaxS, "floor_time");
  const plan = parsePlan(descriptor.plan);
  need(
    plan.slots === descriptor.slots &&
      plan.linf <= descriptor.linf &&
      plan.l2sq <= descriptor.l2sq &&
      keepsPromise(units, plan),
    "bad_plan",
  );
  return { descriptor, plan, rhoUnits: Number(units) };
}

/** Step 1. Throws `pin_mismatch`. */
function checkPins(descriptor: Descriptor, pins: Pins): void {
  need(pins.suites.includes(descriptor.suite), "pin_mismatch", "suite");
  need(hex(descriptor.collector) === pins.collector, "pin_mismatch", "collector");
  // One text for the whole list, so that a helper more or less is a difference as well.
  const helpers = descriptor.helpers.map(({ identity }) => hex(identity)).join();
  need(helpers === pins.helpers.join(), "pin_mismatch", "helpers");
}
