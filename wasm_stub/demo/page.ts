// The demo page: one visitor, one client of the SDK, and what it does made visible.
//
// Everything shown comes from the SDK: receipts, plans, rows, numbers and bytes as it hands them
// out, and releases as it verifies them. `/now.json` says only which round is open and how many
// simulated people have answered it.

import { init, type Client, type MadeReport, type Options, type Receipt } from "dandelion-browser";
import { explainPlan, planOf, preview, receiptInWords, type Plan } from "dandelion-browser/inspect";
import { answerOf, ended, showAnswer, type Answer, type Pinned } from "./answer.js";
import { byId, count, el, facts, show, words } from "./dom.js";
import { showBytes, showVector } from "./report.js";

const EVENT = "commute";
/** Remembers across visits that the visitor allowed it; what is recorded is the SDK's to keep. */
const ALLOWED = "dandelion demo: allowed";
const TICK_MS = 1000;

interface Now {
  readonly state: "idle" | "open" | "waiting";
  readonly round: string;
  readonly opens: number;
  readonly closes: number;
  readonly people: number;
  readonly answered: number;
  readonly reason: string;
  readonly now: number;
}

interface Settings extends Pinned, Pick<Options, "policy" | "registry"> {
  readonly config: { readonly collector: string; readonly helpers: readonly string[] };
}

type Row = Readonly<Record<string, string | number | null>>;

const settings = (await (await fetch("config.json")).json()) as Settings;
let allowed = localStorage.getItem(ALLOWED) === "yes";
let now: Now | undefined;
let rows: readonly Row[] = [];
/** Newest receipt of each round, and the reports that were made while this page was open. */
const receipts = new Map<string, Receipt>();
const reports = new Map<string, MadeReport & { readonly rows: number }>();
/** The round whose steps are shown. */
let followed = "";
let looked = false;
let answer: Answer | undefined;
let fetching = false;
let drawn = "";

const client: Client = init({
  endpoint: settings.endpoint,
  config: settings.config,
  consent: allowed ? "granted" : "pending",
  holdS: 3600,
  ...(settings.policy && { policy: settings.policy }),
  ...(settings.registry && { registry: settings.registry }),
  onReceipt: (receipt) => {
    note(receipt);
    void refresh();
  },
  onReport: (report) => {
    reports.set(report.receipt.round, { ...report, rows: rows.length });
    note(report.receipt);
    void refresh();
  },
});

function note(receipt: Receipt): void {
  if (!receipt.round) return;
  receipts.set(receipt.round, receipt);
  // What a visitor is looking at stays until it is asked for the new round.
  if (looked && !followed && receipt.plan) follow(receipt.round);
}

/** The round to begin with: one whose report left with the page before, else the present one. */
function begin(kept: readonly Receipt[]): void {
  looked = true;
  const left = kept.filter(({ outcome, bytesSent }) => outcome === "waiting" && bytesSent).pop();
  const joined = [...receipts.values()].filter(({ plan }) => plan).pop();
  const present = now && receipts.get(now.round);
  if (left) follow(left.round);
  else if (present?.plan) follow(present.round);
  else if (joined?.outcome === "waiting") follow(joined.round);
}

function follow(round: string): void {
  followed = round;
  if (answer?.round !== round) answer = undefined;
}

// ---- what the visitor does

function buildForm(): void {
  const mode = settings.registry?.events[EVENT]?.columns["mode"] as { values: readonly string[] };
  byId("modes").append(
    ...mode.values.map((value, index) => {
      const input = el("input", { type: "radio", name: "mode", value, id: `mode-${value}` });
      if (index === 1) input.setAttribute("checked", "");
      return el("span", {}, input, el("label", { for: `mode-${value}` }, value));
    }),
  );
  byId<HTMLFormElement>("form").addEventListener("submit", (event) => {
    event.preventDefault();
    void keep(new FormData(event.currentTarget as HTMLFormElement));
  });
  byId("withdraw").addEventListener("click", () => void withdraw());
  byId("send").addEventListener("click", () => void send());
  byId("follow").addEventListener("click", () => {
    follow(now?.round ?? "");
    void refresh();
  });
}

async function keep(form: FormData): Promise<void> {
  const [mode, minutes] = [String(form.get("mode")), Number(form.get("minutes"))];
  if (!allowed) {
    allowed = true;
    localStorage.setItem(ALLOWED, "yes");
    // Not awaited: consent counts from here on, and the record must be in the first report.
    void client.setConsent(true);
  }
  await client.record(EVENT, { mode, minutes });
  say(`Kept: ${mode}, ${minutes} minutes.`);
  await refresh();
}

async function withdraw(): Promise<void> {
  allowed = false;
  localStorage.removeItem(ALLOWED);
  await client.setConsent(false);
  receipts.clear();
  reports.clear();
  followed = "";
  say("Stopped. Records, waiting reports and receipts are deleted.");
  await refresh();
}

async function send(): Promise<void> {
  byId<HTMLButtonElement>("send").disabled = true;
  await client.flush();
  await refresh();
}

function say(text: string): void {
  words("status", text);
}

// ---- what is shown

async function refresh(): Promise<void> {
  rows = (await client.events()).filter(({ event }) => event === EVENT).map(({ row }) => row);
  const kept = await client.receipts();
  for (const receipt of kept) if (receipt.round) receipts.set(receipt.round, receipt);
  if (!looked) begin(kept);
  show(kept.length > 0, "earlier");
  byId("receipts").replaceChildren(
    ...kept.reverse().map((receipt) => el("li", {}, receiptInWords({ ...receipt, plan: "" }))),
  );
  drawRecords();
  drawReport();
}

function drawRecords(): void {
  show(allowed, "withdraw");
  words("keep", allowed ? "Keep this" : "Allow it, and keep this");
  words(
    "consent-words",
    allowed
      ? "You allowed it: the SDK answers each round once, until you stop it."
      : "Until you allow it, the SDK stores nothing, asks nothing and sends nothing.",
  );
  show(rows.length > 0, "kept");
  byId("kept").replaceChildren(
    ...rows.map(({ mode, minutes }) => el("li", {}, `${mode}, ${minutes} min`)),
  );
}

/** Steps 2 to 5, for the round that is followed. */
function drawReport(): void {
  const receipt = receipts.get(followed);
  const report = reports.get(followed);
  const plan = receipt?.plan ? planOf(receipt) : undefined;
  show(!!plan, "question", "vector");
  show(!plan, "question-none", "vector-none");
  show(!!receipt, "receipt");
  show(!receipt, "receipt-none");
  const held = receipt?.outcome === "waiting" && !receipt.bytesSent;
  show(held, "send-buttons");
  byId<HTMLButtonElement>("send").disabled = false;
  show(!!report, "bytes");
  if (receipt?.bytesSent && answer?.round !== followed) show(false, "answer");
  byId("step-send").toggleAttribute("data-done", !!receipt?.bytesSent);
  words("send-words", sendWords(receipt, !!report));
  if (!receipt) return;
  if (plan) drawPlan(receipt, plan);
  const badge = byId("outcome");
  badge.textContent = held ? "not made yet" : receipt.outcome;
  badge.dataset["outcome"] = held ? "held" : receipt.outcome;
  words("receipt-words", receiptInWords({ ...receipt, plan: "" }));
}

function drawPlan(receipt: Receipt, plan: Plan): void {
  words("sql", plan.sql);
  // Quoted above already.
  const said = explainPlan(plan, receipt.helpers, receipt.cohortMin);
  const sentences = said.slice(said.indexOf("”. ") + 3).split(/(?<=\.) (?=[A-Z])/);
  byId("explain").replaceChildren(...sentences.map((sentence) => el("li", {}, sentence)));
  facts("question-facts", [
    ["Asked in round", followed.slice(0, 8)],
    ["Collector", short(settings.config.collector)],
    ["Helpers", settings.config.helpers.map(short).join(" and ")],
    ["Signatures of all three", "verified"],
    ["Price", `epsilon ${plan.epsilon} of ${settings.policy?.epsilonPeriod ?? 4} in 30 days`],
  ]);
  const made = reports.get(followed);
  if (!made) return showVector(plan, preview(plan, rows), rows.length, false);
  showVector(plan, made.values, made.rows, true);
  if (drawn !== followed) showBytes(plan, made.body);
  drawn = followed;
}

function sendWords(receipt: Receipt | undefined, shown: boolean): string {
  if (!receipt?.bytesSent) {
    return (
      "One report, made at the moment it leaves. The key that masks it is drawn for it alone and " +
      "forgotten." +
      (receipt ? " If you do nothing, it leaves by itself before long, or with the page." : "")
    );
  }
  const bytes = `${receipt.bytesSent} bytes`;
  return shown
    ? `These ${bytes} left, in one request. Were they lost, the same ones would be sent again.`
    : `The report of ${bytes} was made as the page was left, so nobody was there to show it to. ` +
        "The key that masked it is gone, and so is what it held.";
}

function short(identity: string): string {
  return `${identity.slice(0, 8)}…`;
}

// ---- the round

async function tick(): Promise<void> {
  try {
    const before = now?.round;
    now = (await (await fetch("now.json")).json()) as Now;
    if (before !== undefined && now.round !== before) void refresh();
    drawRound(now);
    await lookForAnswer(now);
  } catch {
    words("round-words", "The demonstration has stopped.");
  }
}

function drawRound({ state, round, opens, closes, people, answered, reason, now: at }: Now): void {
  const left = Math.max(0, Math.round(closes - at));
  const open = state === "open" && left > 0;
  byId("round").dataset["state"] = open ? "open" : state;
  words("people", count(people));
  const clock = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  words(
    "round-words",
    state === "waiting"
      ? `No round can be opened: ${reason}`
      : open
        ? `Round ${round.slice(0, 8)} closes in ${clock}. ${count(answered)} of ${count(people)} ` +
          "simulated people have answered."
        : "A round is being opened …",
  );
  byId<HTMLProgressElement>("round-time").value = open
    ? Math.min(1, (at - opens) / (closes - opens))
    : 0;
  show(!!followed && followed !== round && !!receipts.get(round)?.plan, "follow");
}

/** Step 6: the followed round's answer, or the newest one as long as nothing is followed. */
async function lookForAnswer(at: Now): Promise<void> {
  const mine = !!receipts.get(followed)?.bytesSent;
  if (mine && answer?.round === followed) return;
  words("answer-words", answerWords(at, mine));
  if (mine && at.round === followed && at.now < at.closes) {
    if (answer) show(false, "answer");
    answer = undefined;
    return;
  }
  if (fetching) return;
  fetching = true;
  try {
    const all = await ended(settings);
    const wanted = mine
      ? all.find(({ round }) => round === followed)
      : all.find(({ phase }) => phase === "released");
    if (!wanted || wanted.round === answer?.round) return;
    if (wanted.phase !== "released") {
      words("answer-words", `The round ended ${wanted.phase}: ${wanted.reason ?? "no reason"}.`);
      return;
    }
    answer = await answerOf(settings, wanted.round);
    const receipt = receipts.get(wanted.round);
    const counted = receipt?.outcome === "accepted" || receipt?.outcome === "duplicate";
    showAnswer(answer, counted);
    const reports = `${count(answer.release.n)} reports of round ${wanted.round.slice(0, 8)}`;
    words("answer-words", `What ${reports} say together${counted ? ", yours among them" : ""}.`);
    if (mine) say("The round is over, and its answer is verified.");
  } catch (error) {
    words("answer-words", `The release is not valid: ${(error as Error).message}`);
  } finally {
    fetching = false;
  }
}

function answerWords(at: Now, mine: boolean): string {
  if (!mine) {
    return answer
      ? `What ${count(answer.release.n)} reports of an earlier round say together.`
      : "Once a round is over, both helpers add noise and let go of the sum of the masks.";
  }
  return at.round === followed && at.now < at.closes
    ? "No helper answers before the round is over. Then each adds noise and lets go of its masks’ sum."
    : "The round is over. The helpers are adding noise and letting go of the sum of the masks …";
}

buildForm();
await tick();
await refresh();
setInterval(() => void tick(), TICK_MS);
