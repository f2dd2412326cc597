// The report of this browser: the plan's numbers with their bounds, and the bytes that leave.

import { slotsOf, type Measure, type Plan, type Slot } from "dandelion-browser/inspect";
import { byId, count, el, facts, head, row, words } from "./dom.js";

/** Parts of a report and their lengths (docs/protocol.md section 5). */
const PARTS = [
  ["version", 1, "Version of the format"],
  ["round", 16, "The round this is for"],
  ["key", 32, "One-time public key, drawn for this report"],
] as const;
const HEADER_BYTES = 49;

/** The numbers of a plan as a table: groups down, measures across. */
export function showVector(plan: Plan, values: ArrayLike<number>, rows: number, made: boolean): void {
  const { rows_max: most, measures, linf, l2sq } = plan;
  const used = Math.min(rows, most);
  words(
    "vector-words",
    rows === 0
      ? "You have recorded nothing that matches, so the list is all zeros. It is sent all the same: " +
          "taking part says nothing about you."
      : (rows > most
          ? `You have ${count(rows)} records; ${most === 1 ? "one of them is" : `${most} are`} drawn ` +
            `at random${made ? "" : ", anew when the report is made"}. `
          : "") +
          "Each record becomes a few numbers in the row of its group. All other numbers are zero, and " +
          "leave as well." +
          weights(plan),
  );
  const cells = (slot: number): HTMLElement => {
    const value = values[slot]!;
    return el("td", { class: value ? "some" : "zero" }, `${value}`.replace("-", "−"));
  };
  byId("vector-table").replaceChildren(...grid(plan, cells));
  const squares = Array.from(values).reduce((sum, value) => sum + value * value, 0);
  const largest = Array.from(values).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  facts("bounds", [
    ["Records that count", `${used} of ${rows}, at most ${most}`],
    ...measures.flatMap((measure) =>
      measure.op === "count"
        ? []
        : [[`${name(measure.column)} limited to`, `${measure.lo} to ${measure.hi}`] as const],
    ),
    ["Largest number", `${largest}, never above ${count(linf)}`],
    ["Sum of squares", `${count(squares)}, never above ${count(l2sq)}`],
  ]);
}

/** The bytes of a report, part by part, and its masked numbers in the order of the first table. */
export function showBytes(plan: Plan, body: Uint8Array): void {
  const size = (body.length - HEADER_BYTES) / plan.slots;
  let at = 0;
  const rows = PARTS.map(([part, length, what]) => {
    const bytes = hex(body.subarray(at, (at += length)));
    return row(what, length, el("td", { class: `hex part-${part}` }, spaced(bytes, 8)));
  });
  const payload = hex(body.subarray(HEADER_BYTES));
  const numbers = `${plan.slots} masked numbers of ${size} bytes`;
  rows.push(
    row(
      numbers,
      body.length - HEADER_BYTES,
      el("td", { class: "hex part-payload" }, spaced(payload, 2 * size)),
    ),
  );
  byId("bytes-table").replaceChildren(
    el("caption", {}, `The whole report: ${body.length} bytes`),
    head("Part", "Bytes", "In hexadecimal"),
    el("tbody", {}, ...rows),
  );
  const cells = (slot: number): HTMLElement =>
    el("td", { class: "hex part-payload" }, payload.slice(2 * size * slot, 2 * size * (slot + 1)));
  byId("masked-table").replaceChildren(...grid(plan, cells));
}

/** A plan's slots as caption, head and body of a table. */
function grid(plan: Plan, cells: (slot: number) => HTMLElement): HTMLElement[] {
  const slots = slotsOf(plan);
  const columns = slots.filter(({ group }) => group === slots[0]!.group);
  const groups = [...new Set(slots.map(({ group }) => group))];
  const same = (slot: Slot, group: string | null, { measure, bin }: Slot): boolean =>
    slot.group === group && slot.measure === measure && slot.bin === bin;
  return [
    head(plan.group?.column ?? "", ...columns.map((slot) => heading(plan.measures[slot.measure]!))),
    el(
      "tbody",
      {},
      ...groups.map((group) =>
        row(
          group ?? "",
          ...columns.map((column) => cells(slots.findIndex((slot) => same(slot, group, column)))),
        ),
      ),
    ),
  ];
}

/** Why the numbers are not plain counts. */
function weights({ measures }: Plan): string {
  const scales = [...new Set(measures.map(({ scale }) => scale))].filter((scale) => scale > 1);
  return scales.length
    ? ` A factor such as × ${scales[0]} gives all columns the same weight under the noise; the ` +
        "answer is divided by it again."
    : "";
}

function heading(measure: Measure): string {
  const times = measure.scale === 1 ? "" : ` × ${measure.scale}`;
  if (measure.op === "count") {
    return (measure.column === undefined ? "records" : `${measure.column} known`) + times;
  }
  if (measure.op === "histogram") return measure.column + times;
  if (!measure.centre) return measure.column + times;
  const above = `${measure.column} − ${measure.centre}`;
  return times ? `(${above})${times}` : above;
}

function name(column: string): string {
  return column[0]!.toUpperCase() + column.slice(1);
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function spaced(digits: string, each: number): string {
  return (digits.match(new RegExp(`.{1,${each}}`, "g")) ?? []).join(" ");
}
