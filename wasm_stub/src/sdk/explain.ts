// A plan and a receipt in plain words (docs/protocol.md sections 14 and 15); loaded when asked for.
//
// Everything but the quoted question is derived from the plan's operators, never from what a
// collector says of them, so a person reads what this client does. The sentences are those of the
// Python client.

import type { JsonObject } from "../protocol/encoding.js";
import { parsePlan, type Measure, type Plan, type Where } from "../protocol/plan.js";
import type { Outcome, Receipt } from "./receipts.js";

const TESTS = {
  eq: "is",
  ne: "is not",
  lt: "is below",
  le: "is at most",
  gt: "is above",
  ge: "is at least",
} as const;
const LISTED = 6;

const WORDS: Readonly<Record<Outcome, string>> = {
  accepted: "was sent and accepted",
  duplicate: "was sent before and is counted once",
  waiting: "is on its way: it is made at the latest when the page is left, and sent byte for byte",
  rejected: "was sent and finally refused by the collector",
  lapsed: "was never acknowledged before the round was over; what was stored is deleted",
  refused: "was not made: this client refuses the round",
  skipped: "was not made: the coin said not to take part",
  unreachable: "was not made: the collector gave no list of rounds",
};

/** What a plan makes a client do and what that reveals: a few sentences, no markup. */
export function explainPlan(plan: Plan, helpers: number, cohortMin: number): string {
  return [
    `The question, as asked: “${plan.sql.trim()}”.`,
    rows(plan),
    adds(plan),
    "If nothing matches it sends zeros, so taking part says nothing about what is recorded.",
    "The list is masked before it is sent. Only its sum over at least " +
      `${cohortMin} clients becomes readable, after ${helpers} independent helpers have each ` +
      "added random noise.",
    promised(plan),
  ].join(" ");
}

/** The plan of a receipt in words. */
export function explainReceipt({ plan, helpers, cohortMin }: Receipt): string {
  return explainPlan(parsePlan(JSON.parse(plan) as JsonObject), helpers, cohortMin);
}

/** A receipt for its owner to read. */
export function receiptInWords(receipt: Receipt): string {
  const { at, round, query, outcome, token, detail, rhoUnits, bytesSent, attempts } = receipt;
  const when = new Date(at * 1000).toISOString().slice(0, 16).replace("T", " ");
  const short = round.slice(0, 8);
  const what = query
    ? `the report for “${query}” (round ${short})`
    : round
      ? `a report for round ${short}`
      : "a report";
  const lines = [`${when} UTC: ${what} ${WORDS[outcome]}.`];
  if (token || detail) lines.push(`Reason: ${[token, detail].filter(Boolean).join(", ")}.`);
  if (rhoUnits) {
    lines.push(
      "It was charged to this collector's allowance, whatever becomes of it: " +
        `epsilon ${receipt.epsilon} at delta ${receipt.delta}.`,
    );
  }
  if (bytesSent) {
    lines.push(`${bytesSent} bytes, sent ${attempts === 1 ? "once" : `${attempts} times`}.`);
  }
  if (receipt.fault) {
    lines.push(`Something went wrong here (${receipt.fault}), so only zeros were sent.`);
  }
  if (receipt.plan && outcome !== "refused") lines.push(explainReceipt(receipt));
  return lines.join(" ");
}

function rows({ event, rows_max, where }: Plan): string {
  const most = rows_max === 1 ? "at most one record" : `at most ${rows_max} records`;
  const those = where?.length ? ` of those where ${where.map(condition).join(" and ")}` : "";
  return (
    `Your client looks at its own records of “${event}” and uses ${most}${those}, ` +
    "drawn at random if there are more."
  );
}

function condition({ column, test, value }: Where): string {
  return `${column} ${TESTS[test]} ${typeof value === "string" ? `“${value}”` : value}`;
}

function adds({ rows_max, measures, group, slots }: Plan): string {
  const parts = measures.map(words);
  const last = parts.pop()!;
  const all = parts.length ? `${parts.join(", ")} and ${last}` : last;
  const per = group
    ? `, for the ${group.column} it belongs to (${listed(group.values)}; a record ` +
      "with any other value is left out)"
    : "";
  const each = rows_max === 1 ? "that record" : "each of them";
  const size = `${slots} number${slots > 1 ? "s" : ""}`;
  return `From ${each} it takes ${all}${per}. The result is a list of ${size}.`;
}

function words(measure: Measure): string {
  if (measure.op === "count") {
    const { column } = measure;
    return column === undefined ? "that the record exists" : `whether ${column} is known`;
  }
  const { op, column, lo, hi } = measure;
  return op === "sum"
    ? `${column}, limited to ${lo} to ${hi}`
    : `into which of ${measure.bins} ranges from ${lo} to ${hi} ${column} falls`;
}

function promised({ epsilon, delta }: Plan): string {
  const factor = +epsilon <= 20 ? +Math.exp(+epsilon).toPrecision(3) : `e^${epsilon}`;
  return (
    `The promise is epsilon ${epsilon}, delta ${delta}: with your records or with zeros in ` +
    `their place, any published result is at most ${factor} times as likely, except with a ` +
    `probability of about ${delta}.`
  );
}

function listed(values: readonly string[]): string {
  const more = values.length - LISTED;
  return values.slice(0, LISTED).join(", ") + (more > 0 ? ` and ${more} more` : "");
}
