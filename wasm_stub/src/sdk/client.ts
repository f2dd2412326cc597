// The running client: consent, joining, holding, sending, leaving (docs/protocol.md section 14).
//
//   pass    asks the collector for rounds if it is time, joins, makes what is due, sends what waits
//   join    pins, floors, coin and charge; then a round is held in memory until the page is left
//   leave   synchronous: makes what is held and puts it on its way
//
// Nothing thrown here reaches the page; `faults` counts it and receipts tell of it. How a page that
// is killed at any moment still sends one body per round is docs/decisions/0016-at-leave.md.
//
// Left out: everything that differs between a page, a worker and an extension (`env`).

import type { Bytes, Kernel } from "../kernel/kernel.js";
import type { Admitted } from "../protocol/admit.js";
import type { Client } from "./api.js";
import { readConfig, type Config, type Options } from "./config.js";
import type { Masked } from "./contribute.js";
import type { Env, Joining } from "./env.js";
import { readRow, type Fields } from "./events.js";
import { uniform } from "./random.js";
import { receipt, type Receipt } from "./receipts.js";
import * as store from "./store.js";
import type { Report, Row, StoredEvent } from "./store.js";
import {
  backoff,
  exchange,
  judge,
  readListing,
  visit,
  type Listed,
  type Reply,
  type Verdict,
} from "./transport.js";

/** What a page that is being left can send, in bytes (section 13). */
const BEACON_BYTES_MAX = 60_000;
/** First sends are made at whole multiples of this after the plans were begun (step 7). */
const STEP_MS = 1000;
/** Seconds until a body that left with the page is sent again: its answer is still on the way. */
const LEFT_S = 15;
/** The least seconds between two passes: another tab may be at work, or a clock be set. */
const PASS_S = 5;
/** The longest wait between two vain questions for rounds is a quarter of an hour. */
const LISTING_WAIT_MAX_S = 900;
const NOTES_MAX = 50;
/** Where an envelope has the suite of its descriptor (section 3.1), to load what it may need. */
const SUITE_AT = 4 + 10 + 1;

/** A round that was paid for and has no body yet. */
interface Held {
  readonly mask: (rows: readonly Row[], promised: Report) => Masked;
  readonly admitted: Admitted;
  /** Unix seconds; drawn before the plan has run. */
  due: number;
  rows: Row[];
  /** There is one once the charge is durable. */
  promised?: Report;
}

/** Starts a client. The options are judged here; with bad ones it stays inert and says so. */
export function start(options: Options, env: Env): Client {
  const counts: Record<string, number> = {};
  let config: Config | undefined;
  let wanted = options.consent === "granted";
  /** The open database is also the licence to act: whoever finds another one, stops. */
  let db: IDBDatabase | undefined;
  let opening: Promise<IDBDatabase | undefined> | undefined;
  let channel: BroadcastChannel | undefined;
  let life = new AbortController();
  let stopListening = (): void => {};
  let line: Promise<unknown> = Promise.resolve();
  let vain = 0;
  const held = new Set<Held>();
  const bodies = new Map<string, Report & { readonly body: Bytes }>();
  let notes: Receipt[] = [];

  const now = (): number => Math.floor(env.now() / 1000);
  const random = (): number => uniform(env.random);
  const fault = (kind: string): void => {
    counts[kind] = (counts[kind] ?? 0) + 1;
  };
  const allowed = (): boolean =>
    !!config && wanted && !((options.honorGPC ?? true) && env.gpc());

  function tell(about: Receipt): void {
    try {
      options.onReceipt?.(about);
    } catch {
      fault("onReceipt");
    }
  }

  /** A receipt of something that leaves no report behind; kept as long as the page. */
  function note(about: Receipt): void {
    notes = [...notes.slice(1 - NOTES_MAX), about];
    tell(about);
  }

  // ---- consent

  function begin(): Promise<void> {
    const { endpoint } = config!;
    life = new AbortController();
    // Charges that are gone pay for nothing: what is held must not leave.
    const lost = (): void => {
      if (opening === mine) stop();
    };
    const mine: typeof opening = store.openStore(env.idb, endpoint, true, lost).then(
      (opened) => {
        if (opening === mine) return (db = opened);
        opened!.close();
        return undefined;
      },
      () => void fault("store"),
    );
    opening = mine;
    channel = toTabs();
    if (channel) {
      channel.onmessage = ({ data }: MessageEvent<StoredEvent | 0>) => {
        // Withdrawn elsewhere: what this tab wrote meanwhile must go as well.
        if (data) share(data);
        else void withdraw();
      };
    }
    stopListening = env.onLeave(leave);
    return pass();
  }

  const toTabs = (): BroadcastChannel | undefined => env.channel?.(`dandelion ${config!.endpoint}`);

  /** A no is heard by all tabs, also from one that had not begun. */
  function sayNo(): Promise<void> {
    const to = channel ?? toTabs();
    to?.postMessage(0);
    if (to !== channel) to?.close();
    return withdraw();
  }

  function stop(): void {
    wanted = false;
    held.clear();
    bodies.clear();
    stopListening();
    env.wake(0, () => {});
    channel?.close();
    db?.close();
    db = opening = channel = undefined;
  }

  async function withdraw(): Promise<void> {
    notes = [];
    life.abort();
    // Earlier transactions of this connection end before the one that deletes; later ones fail.
    const wiped = db
      ? store.wipe(db)
      : store
          .openStore(env.idb, config!.endpoint, false)
          .then((found) => found && store.wipe(found).finally(() => found.close()));
    stop();
    await wiped.catch(() => fault("store"));
  }

  // ---- recording

  function share({ event, row }: StoredEvent): void {
    for (const each of held) if (each.admitted.plan.event === event) each.rows.push(row);
  }

  async function record(event: string, fields: Fields): Promise<void> {
    if (!allowed()) return;
    try {
      const stored = readRow(options.registry, event, fields, now());
      if (!stored) return fault("schema");
      share(stored);
      channel?.postMessage(stored);
      const mine = db ?? (await opening);
      if (mine) await store.record(mine, stored, config!.retention);
    } catch {
      fault("record");
    }
  }

  // ---- a pass: ask, join, make, send

  function pass(all = false, early = false): Promise<void> {
    const next = line.then(() => run(all, early)).catch(() => fault("pass"));
    line = next;
    return next;
  }

  async function run(all: boolean, early: boolean): Promise<void> {
    const mine = await opening;
    if (!mine || mine !== db || !allowed()) return;
    let listed: Listed[] = [];
    await alone(async () => {
      if (early || now() >= (await store.nextVisit(mine))) listed = await ask(mine);
    });
    const began = env.now();
    const before = bodies.size;
    if (listed.length) await joinAll(mine, listed);
    const made = makeHeld((each) => all || each.due <= now());
    if (made.length) await store.keep(mine, made).catch(() => fault("store"));
    // The time that plans take depends on the data, so it does not decide when a report leaves.
    if (bodies.size > before) await env.sleep(STEP_MS - ((env.now() - began) % STEP_MS));
    await alone(() => sendWaiting(mine));
    if (mine === db) await sleepUntilNext(mine);
  }

  async function joinAll(mine: IDBDatabase, listed: readonly Listed[]): Promise<void> {
    let joining: Joining;
    let kernel: Kernel;
    try {
      joining = await env.joining();
      kernel = await env.kernel(
        joining,
        listed.map(({ envelope }) => envelope[SUITE_AT]!),
      );
    } catch {
      return fault("kernel");
    }
    for (const each of listed) if (mine === db) await join(mine, joining, kernel, each);
  }

  /** Runs in one tab at a time; in this one not at all if another is at it. */
  async function alone(work: () => Promise<void>): Promise<void> {
    const name = `dandelion ${config!.endpoint}`;
    if (!env.locks) return work();
    await env.locks.request(name, { ifAvailable: true }, (lock) => lock && work());
  }

  async function sleepUntilNext(mine: IDBDatabase): Promise<void> {
    let next = await store.nextVisit(mine);
    for (const each of held) next = Math.min(next, each.due);
    for (const each of await store.pending(mine)) {
      if (each.body) next = Math.min(next, each.notBefore);
    }
    // Whole seconds are what `now` counts.
    env.wake(Math.max(Math.ceil(next), now() + PASS_S), () => void pass());
  }

  /** The open rounds; none if there is no list, and then a receipt says why. */
  async function ask(mine: IDBDatabase): Promise<Listed[]> {
    let reply: Reply | undefined;
    try {
      reply = await exchange(env.fetch, life.signal, `${config!.endpoint}/v1/rounds`);
      const listed = readListing(reply);
      await steer(mine, reply, [now(), now() + LISTING_WAIT_MAX_S]);
      vain = 0;
      return listed;
    } catch (error) {
      if (mine !== db) return [];
      if (reply) await steer(mine, reply);
      fault("listing");
      note(receipt({ outcome: "unreachable", at: now(), detail: (error as Error).message }));
      const later = now() + backoff(random, ++vain, reply?.retryAfter, LISTING_WAIT_MAX_S);
      await store.visitAt(mine, Math.max(await store.nextVisit(mine), later));
      return [];
    }
  }

  /** Notes when the collector wants to be asked again, or what is usual if it does not say. */
  async function steer(
    mine: IDBDatabase,
    { window }: Reply,
    usual?: Reply["window"],
  ): Promise<void> {
    const wish = window ?? usual;
    if (wish && mine === db) await store.visitAt(mine, visit(wish, now(), random()));
  }

  /** Steps 1 to 3 and 6; and all the others for a round that is not held. */
  async function join(
    mine: IDBDatabase,
    { consider, make, promise, receiptOf }: Joining,
    kernel: Kernel,
    listed: Listed,
  ): Promise<void> {
    const at = now();
    const pause = (): Promise<void> => env.sleep(0);
    const considered = await consider(kernel, config!, listed, at, pause);
    if (mine !== db) return;
    if (!("0" in considered)) {
      fault("refused");
      return note(considered);
    }
    const [admitted, refused] = considered;
    const { descriptor, plan, rhoUnits: units } = admitted;
    const { reportBytes, closes, expires } = descriptor;
    const promised = promise(admitted, at);
    const { ctx } = promised;
    const { rhoPeriodMax: most, periodS, retention, participation } = config!;
    const holdS = Math.min(options.holdS ?? 300, (closes - at) / 2);
    let room = BEACON_BYTES_MAX - reportBytes;
    for (const each of held) room -= each.admitted.descriptor.reportBytes;
    const mayHold = env.holds && holdS > 0 && room >= 0 && !env.hidden();
    const mask: Held["mask"] = (rows, report) => make(kernel, admitted, rows, report, env.random);
    const waiting: Held = { mask, admitted, due: at + holdS * (1 - random() / 2), rows: [] };
    // In the set from now on, so that rows which are recorded meanwhile are not missed.
    if (mayHold) held.add(waiting);
    let masked: Masked | undefined;
    let found: Report | string = "";
    try {
      const charge = { ctx, expires, at, units, most, since: at - periodS, refused };
      const toss = (): boolean => random() < participation;
      found = await store.commit(mine, charge, retention, plan.event, toss, (rows) => {
        waiting.rows = [...rows, ...waiting.rows];
        if (mayHold) return promised;
        masked = mask(waiting.rows, promised);
        return masked.report;
      });
    } catch {
      fault("store");
    }
    if (mine !== db || typeof found === "string") {
      held.delete(waiting);
      if (found === "skipped") return note(receiptOf(admitted, "skipped", at));
      if (found === "known" || !found || mine !== db) return;
      fault("refused");
      return note({ ...receiptOf(admitted, "refused", at), token: found as string });
    }
    waiting.promised = promised;
    if (env.hidden()) waiting.due = at;
    if (masked) announce(masked);
    tell(found.receipt);
  }

  function announce({ report, values }: Masked): void {
    const { ctx, receipt: about, body } = report;
    bodies.set(ctx, report);
    if (about.fault) fault(about.fault);
    try {
      options.onReport?.({ receipt: about, values, body });
    } catch {
      fault("onReport");
    }
  }

  /** Makes the bodies of paid rounds, synchronously. */
  function makeHeld(which: (each: Held) => boolean, changes: Partial<Report> = {}): Report[] {
    const made: Report[] = [];
    for (const each of held) {
      const { mask, rows, promised } = each;
      if (!promised || !which(each)) continue;
      held.delete(each);
      try {
        const masked = mask(rows, { ...promised, ...changes });
        announce(masked);
        made.push(masked.report);
      } catch {
        fault("mask");
      }
    }
    return made;
  }

  async function sendWaiting(mine: IDBDatabase): Promise<void> {
    for (const each of await store.pending(mine)) {
      if (mine !== db) return;
      const { notBefore } = bodies.get(each.ctx) ?? each;
      if (now() >= each.expires) await end(mine, each, { ...each.receipt, outcome: "lapsed" });
      else if (each.body && now() >= notBefore) await deliver(mine, each, each.body);
    }
  }

  /** Sends a stored body. The request is on its way when this returns its promise. */
  async function deliver(
    mine: IDBDatabase,
    report: Report,
    body: Bytes,
    leaving = false,
  ): Promise<void> {
    if (!leaving) bodies.set(report.ctx, { ...report, body });
    const attempts = report.attempts + 1;
    let verdict: Verdict;
    let reply: Reply | undefined;
    try {
      reply = await exchange(env.fetch, life.signal, urlOf(report), body, leaving);
      verdict = judge(reply);
    } catch (error) {
      verdict = { outcome: "waiting", token: "", detail: (error as Error).message };
    }
    if (mine !== db) return;
    if (reply) await steer(mine, reply);
    const about = { ...report.receipt, ...verdict, at: now(), attempts };
    if (verdict.outcome !== "waiting") return end(mine, report, about);
    fault("send");
    const notBefore = now() + backoff(random, attempts, reply?.retryAfter);
    const later = { ...report, attempts, notBefore, receipt: about, body };
    if (bodies.has(report.ctx)) bodies.set(report.ctx, later);
    await store.postpone(mine, later);
    tell(about);
    if (leaving) await sleepUntilNext(mine);
  }

  async function end(mine: IDBDatabase, { ctx }: Report, about: Receipt): Promise<void> {
    bodies.delete(ctx);
    if (await store.finish(mine, ctx, { ...about, at: now() })) tell(about);
  }

  const urlOf = ({ receipt: { round } }: Report): string =>
    `${config!.endpoint}/v1/rounds/${round}/reports`;

  // ---- leaving

  /** No promise is awaited in here: what waits for one is lost when the page goes. */
  function leave(): void {
    const mine = db;
    if (!mine || !allowed()) return;
    try {
      const at = now();
      const left = { notBefore: at + LEFT_S + LEFT_S * random() };
      const due = [...bodies.values()].filter((each) => each.notBefore <= at);
      // All are made before the first is sent: when each of them arrives says nothing of its plan.
      const made = makeHeld(() => true, { ...left, attempts: 1 });
      if (made.length) store.keep(mine, made).catch(() => fault("store"));
      let room = BEACON_BYTES_MAX;
      for (const each of [...made.map((report) => ({ ...report, attempts: 0 })), ...due]) {
        const body = each.body!;
        if (body.length > room) continue;
        room -= body.length;
        bodies.set(each.ctx, { ...each, ...left, attempts: each.attempts + 1, body });
        if (env.keepalive) deliver(mine, each, body, true).catch(() => fault("send"));
        else env.beacon?.(urlOf(each), body);
      }
    } catch {
      fault("leave");
    }
  }

  // ---- what the page calls

  /** What the store tells; without one, nothing. */
  async function tellFrom<T>(ask: (mine: IDBDatabase) => Promise<T[]>): Promise<T[]> {
    try {
      const mine = db ?? (await opening);
      return mine ? await ask(mine) : [];
    } catch {
      fault("store");
      return [];
    }
  }

  async function receipts(): Promise<Receipt[]> {
    const kept = await tellFrom(store.receipts);
    const waiting = await tellFrom(store.pending);
    return [...kept, ...waiting.map((each) => each.receipt), ...notes].sort(
      (a, b) => a.at - b.at,
    );
  }

  async function explain(query: string): Promise<string> {
    try {
      const about = (await receipts()).filter((each) => each.query === query && each.plan).pop();
      return about ? (await env.words()).explainReceipt(about) : "";
    } catch {
      fault("explain");
      return "";
    }
  }

  async function flush({ early = false } = {}): Promise<Receipt[]> {
    await pass(true, early);
    return receipts();
  }

  async function setConsent(granted: boolean): Promise<void> {
    wanted = granted;
    if (!config) return;
    if (!granted) return sayNo();
    if (allowed() && !opening) await (ready = begin());
  }

  try {
    config = readConfig(options);
  } catch (error) {
    fault("config");
    console.warn(error);
  }
  const denied = options.consent === "denied" || (wanted && !allowed());
  let ready = !config
    ? Promise.resolve()
    : denied
      ? sayNo()
      : wanted
        ? begin()
        : Promise.resolve();
  return {
    get ready() {
      return ready;
    },
    record,
    setConsent,
    receipts,
    events: () => tellFrom(store.events),
    explain,
    flush,
    leave,
    faults: () => ({ ...counts }),
    close: () => {
      leave();
      stop();
      config = undefined;
    },
  };
}
