// Whether a listed round is answered, as far as that is settled without data, coin or ledger
// (docs/protocol.md section 14, steps 1 and 2).

import type { Kernel } from "../kernel/kernel.js";
import { admit, type Admitted, type Floors, type Pins } from "../protocol/admit.js";
import { hex } from "../protocol/encoding.js";
import type { DandelionError } from "../protocol/errors.js";
import { receiptOf } from "./contribute.js";
import { receipt, type Receipt } from "./receipts.js";
import type { Listed } from "./transport.js";

/** Seconds. The collector's clock decides; the page's own may be off by this much. */
const CLOCK_SKEW_S = 300;

/** A round that was admitted, or why it is refused, or both if only its moment is wrong. */
export interface Considered {
  readonly admitted?: Admitted;
  readonly refused?: Receipt;
}

/** Judges one line of the listing. `at` is Unix seconds. */
export function consider(
  kernel: Kernel,
  rules: Pins & Floors,
  { round, envelope }: Listed,
  at: number,
): Considered {
  let admitted: Admitted;
  try {
    admitted = admit(kernel, envelope, rules, rules);
  } catch (error) {
    const { token = "", detail = "" } = error as Partial<DandelionError>;
    return { refused: receipt({ outcome: "refused", at, round, token, detail }) };
  }
  const { roundId, opens, closes } = admitted.descriptor;
  const token =
    round !== hex(roundId)
      ? "wrong_round"
      : at < opens - CLOCK_SKEW_S
        ? "not_open"
        : at >= closes + CLOCK_SKEW_S
          ? "round_closed"
          : "";
  return token
    ? { admitted, refused: { ...receiptOf(admitted, "refused", at), token } }
    : { admitted };
}
