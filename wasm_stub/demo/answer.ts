// The answer of a round: fetched as the signed artefact, verified in this page, then drawn.

import {
  loadKernel,
  noiseVarOf,
  planOf,
  tableOf,
  verifyRelease,
  type Cell,
  type Interval,
  type Kernel,
  type VerifiedRelease,
} from "dandelion-browser/inspect";
import { byId, count, el, head, row, show, svg } from "./dom.js";

/** What the public list says of a round that has ended. */
export interface Ended {
  readonly round: string;
  readonly query: string;
  readonly phase: string;
  readonly reason?: string;
}

/** A release that this page has verified. */
export interface Answer {
  readonly round: string;
  readonly release: VerifiedRelease;
  readonly milliseconds: number;
}

/** Whose release it must be. */
export interface Pinned {
  readonly endpoint: string;
  readonly config: { readonly collector: string; readonly helpers: readonly string[] };
}

const PLAIN: RequestInit = { credentials: "omit", referrerPolicy: "no-referrer" };
const WIDTH = 160;
const HEIGHT = 14;

let kernel: Promise<Kernel> | undefined;

/** Rounds that have ended, newest first. */
export async function ended({ endpoint }: Pinned): Promise<Ended[]> {
  const answer = await fetch(`${endpoint}/v1/releases`, PLAIN);
  return ((await answer.json()) as { releases: Ended[] }).releases;
}

/**
 * The release of a round, verified.
 *
 * @throws DandelionError the first check that fails.
 */
export async function answerOf({ endpoint, config }: Pinned, round: string): Promise<Answer> {
  const loaded = await (kernel ??= loadKernel());
  const artefact = await fetch(`${endpoint}/v1/releases/${round}`, PLAIN);
  const bytes = new Uint8Array(await artefact.arrayBuffer());
  const began = performance.now();
  const release = verifyRelease(loaded, bytes, config);
  return { round, release, milliseconds: performance.now() - began };
}

/** Shows the answer, and what was checked. `mine`: whether this browser's report is in it. */
export function showAnswer({ release, milliseconds }: Answer, mine: boolean): void {
  const cells = tableOf(release);
  const names = [...new Set(cells.map(({ name }) => name))];
  byId("charts").replaceChildren(
    ...names.map((name) =>
      chart(
        name,
        planOf(release.descriptor).group?.column ?? "",
        cells.filter((cell) => cell.name === name),
      ),
    ),
  );
  const { descriptor, n } = release;
  const { epsilon, delta } = descriptor.plan as { epsilon: string; delta: string };
  const noise = Math.sqrt(noiseVarOf(descriptor) * release.shards);
  const helpers = descriptor.helpers.length;
  const checks = [
    `Signed by the collector and by each of the ${helpers} helpers that this page knows`,
    `The sum of ${count(n)} reports, at least ${count(descriptor.cohortMin)} as promised` +
      (mine ? "; one of them is yours" : ""),
    "Masked sum minus the helpers’ masks, taken off here, gives these numbers",
    `Noise of standard deviation ${count(noise)} on each number is enough for epsilon ${epsilon}, ` +
      `delta ${Number(delta)}`,
  ];
  byId("checks").replaceChildren(
    ...checks.map((check) => el("li", {}, check)),
    el("li", { class: "plain" }, `All of it took ${milliseconds.toFixed(0)} ms.`),
  );
  show(true, "answer");
}

/** One output of the question: a line per group, its estimate with what the noise may have done. */
function chart(name: string, by: string, cells: readonly Cell[]): HTMLElement {
  const known = cells.flatMap(({ answer }) => answer ?? []);
  const most = Math.max(1, ...known.map(({ ciHigh }) => ciHigh));
  const digits = most < 200 ? 1 : 0;
  const lines = cells.map(({ group, answer }) =>
    answer
      ? row(
          group ?? "",
          el("td", { class: "number" }, number(answer.estimate, digits)),
          el("td", { class: "number reach" }, reach(answer, digits)),
          el("td", { class: "bar" }, bar(answer, most)),
        )
      : row(group ?? "", el("td", { class: "withheld", colspan: "3" }, "too few to tell")),
  );
  return el(
    "table",
    { class: "chart" },
    el("caption", {}, titleOf(name)),
    head(by, "estimate", "95 % interval", ""),
    el("tbody", {}, ...lines),
  );
}

function titleOf(name: string): string {
  const titles: Readonly<Record<string, string>> = {
    "COUNT(*)": "How many people",
    "AVG(minutes)": "Minutes on average",
  };
  return titles[name] ?? name;
}

function reach({ ciLow, ciHigh }: Interval, digits: number): string {
  return `${number(ciLow, digits)} to ${number(ciHigh, digits)}`;
}

function number(value: number, digits: number): string {
  const text = value.toLocaleString("en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  return text.replace("-", "−");
}

function bar({ estimate, ciLow, ciHigh }: Interval, most: number): SVGElement {
  const x = (value: number): number => (Math.max(0, value) / most) * (WIDTH - 2) + 1;
  const middle = HEIGHT / 2;
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true", preserveAspectRatio: "none" },
    svg("rect", { class: "bar-full", x: 1, y: 2, width: x(estimate) - 1, height: HEIGHT - 4, rx: 2 }),
    svg("path", {
      class: "bar-reach",
      d: `M${x(ciLow)} ${middle}H${x(ciHigh)}M${x(ciLow)} 3V11M${x(ciHigh)} 3V11`,
    }),
  );
}
