// What the client keeps, in one IndexedDB database per collector (docs/protocol.md section 14).
//
//   decisions  per ctx: coin and charge. Survives a withdrawal, so that nothing is refunded
//   events     what was recorded here, and never leaves
//   reports    per ctx: what a round was promised, and the encoded body once it is made
//   receipts   of what is finished
//   meta       bytes of all events; when to ask the collector again
//
// Encoded reports are kept, ephemeral keys never: there is no place for one. One store serves all
// tabs of an origin; its transactions are what keeps two of them from answering one round twice.
//
// Left out: plans and masks, which callers pass in as functions.

import type { Bytes } from "../kernel/kernel.js";
import type { Retention } from "./config.js";
import type { Receipt } from "./receipts.js";

/** One recorded row: what a plan reads. */
export type Row = Readonly<Record<string, string | number | null>>;

/** A row in the store; `size` is that of its JSON. */
export interface StoredEvent {
  readonly event: string;
  /** Unix seconds. */
  readonly at: number;
  readonly size: number;
  readonly row: Row;
}

/** A report for one round. Without a body it waits in one tab's memory for that tab to be left. */
export interface Report {
  /** 64 hexadecimal digits. */
  readonly ctx: string;
  /** When the round is over, in Unix seconds. */
  readonly expires: number;
  readonly receipt: Receipt;
  readonly body?: Bytes;
  readonly attempts: number;
  /** When it may be sent again, in Unix seconds. */
  readonly notBefore: number;
}

/** What a round costs, and what may be spent. Units of 2^-40 rho. */
export interface Charge {
  readonly ctx: string;
  readonly expires: number;
  /** Unix seconds. */
  readonly at: number;
  readonly units: number;
  /** The most that all charges after `since` may come to. */
  readonly most: number;
  readonly since: number;
}

interface Decision {
  readonly ctx: string;
  readonly expires: number;
  readonly heads: boolean;
  /** When it was charged; 0 if it was not. */
  readonly at: number;
  readonly units: number;
}

/** Why there is no report. */
export type Declined = "known" | "skipped" | "budget_exhausted";

const VERSION = 1;
const RECEIPTS_MAX = 100;

/** Opens the database. With `create` false there is none (undefined) unless it exists already. */
export function openStore(
  idb: IDBFactory,
  origin: string,
  create: boolean,
): Promise<IDBDatabase | undefined> {
  return new Promise((resolve, reject) => {
    const request = idb.open(`dandelion ${origin}`, VERSION);
    request.onupgradeneeded = () => {
      if (!create) return request.transaction!.abort();
      const { result: db } = request;
      db.createObjectStore("decisions", { keyPath: "ctx" });
      db.createObjectStore("reports", { keyPath: "ctx" });
      db.createObjectStore("events", { autoIncrement: true }).createIndex("event", "event");
      db.createObjectStore("receipts", { autoIncrement: true });
      db.createObjectStore("meta");
    };
    request.onsuccess = () => {
      const { result: db } = request;
      // Another tab deletes or upgrades it: make way.
      db.onversionchange = () => db.close();
      resolve(db);
    };
    request.onerror = () => (create ? reject(request.error) : resolve(undefined));
  });
}

type Names = "decisions" | "events" | "reports" | "receipts" | "meta";

/** The result of a request; the transaction stays alive while its own requests are awaited. */
function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Runs `work` in one transaction; resolves when all of it is stored, rejects when none is. */
async function transact<T>(
  db: IDBDatabase,
  names: Names[],
  work: (at: (name: Names) => IDBObjectStore) => Promise<T>,
  durability: IDBTransactionDurability = "default",
): Promise<T> {
  const transaction = db.transaction(names, "readwrite", { durability });
  const ended = new Promise<void>((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("aborted"));
  });
  ended.catch(() => {});
  let result: T;
  try {
    result = await work((name) => transaction.objectStore(name));
  } catch (error) {
    try {
      transaction.abort();
    } catch {
      // It has aborted by itself.
    }
    throw error;
  }
  await ended;
  return result;
}

/** Keeps one row and deletes what is too old or too much, the oldest first. */
export function record(
  db: IDBDatabase,
  event: StoredEvent,
  { retentionS, rowsMax, bytesMax }: Required<Retention>,
): Promise<void> {
  return transact(db, ["events", "meta"], async (at) => {
    const [events, meta] = [at("events"), at("meta")];
    events.put(event);
    let bytes = ((await done(meta.get("bytes"))) ?? 0) + event.size;
    let rows = await done(events.count());
    const cursor = events.openCursor();
    await new Promise<void>((resolve, reject) => {
      cursor.onerror = () => reject(cursor.error);
      cursor.onsuccess = () => {
        const found = cursor.result;
        const oldest = found?.value as StoredEvent | undefined;
        const over = rows > rowsMax || bytes > bytesMax;
        if (!found || !oldest || !(over || oldest.at < event.at - retentionS)) return resolve();
        rows--;
        bytes -= oldest.size;
        found.delete();
        found.continue();
      };
    });
    meta.put(bytes, "bytes");
  });
}

/**
 * Steps 3, 6 and 7 of section 14 in one transaction: the coin of a round, its charge, and the
 * report that `make` gives for the rows of its event, which is not called unless all is settled.
 * When this resolves, they are stored; when it rejects, none of them is.
 */
export function commit(
  db: IDBDatabase,
  { ctx, expires, at: now, units, most, since }: Charge,
  retention: Required<Retention>,
  event: string,
  toss: () => boolean,
  make: (rows: Row[]) => Report,
): Promise<Report | Declined> {
  const names: Names[] = ["decisions", "events", "reports"];
  const work = async (at: (name: Names) => IDBObjectStore): Promise<Report | Declined> => {
    const decisions = at("decisions");
    const all: Decision[] = await done(decisions.getAll());
    let spent = 0;
    for (const each of all) {
      if (each.at > since) spent += each.units;
      else if (each.expires <= now) decisions.delete(each.ctx);
    }
    const before = all.find((each) => each.ctx === ctx);
    if (before?.at) return "known";
    const heads = before ? before.heads : toss();
    const decided: Decision = { ctx, expires, heads, at: 0, units: 0 };
    decisions.put(decided);
    if (!heads) return "skipped";
    if (spent + units > most) return "budget_exhausted";
    const found: StoredEvent[] = await done(at("events").index("event").getAll(event));
    const fresh = found.filter((each) => each.at >= now - retention.retentionS);
    const report = make(fresh.map((each) => each.row));
    decisions.put({ ...decided, at: now, units });
    at("reports").put(report);
    return report;
  };
  return transact(db, names, work, "strict");
}

/** Whether a round was answered or skipped already, so that it need not be judged again. */
export async function known(db: IDBDatabase, ctx: string): Promise<boolean> {
  const found = db.transaction("decisions").objectStore("decisions").get(ctx);
  return !!((await done(found)) as Decision | undefined)?.at;
}

/**
 * Starts storing bodies that have just been made, and does not wait.
 *
 * The requests are on their way when this returns, so that they outlive a page that is being left.
 * Resolves when the bodies are stored.
 */
export function keep(db: IDBDatabase, reports: readonly Report[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const transaction = db.transaction("reports", "readwrite", { durability: "strict" });
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("aborted"));
    for (const report of reports) transaction.objectStore("reports").put(report);
    // Safari before 15 has no commit; there the transaction ends a moment later, by itself.
    transaction.commit?.();
  });
}

/** All reports without an acknowledgement. */
export function pending(db: IDBDatabase): Promise<Report[]> {
  return done(db.transaction("reports").objectStore("reports").getAll());
}

/** Notes that a report was sent in vain, unless it is finished or withdrawn. */
export function postpone(db: IDBDatabase, report: Report): Promise<void> {
  return transact(db, ["reports"], async (at) => {
    const reports = at("reports");
    if (await done(reports.count(report.ctx))) reports.put(report);
  });
}

/** Deletes a body for good and keeps the receipt; false if another tab did, or it is withdrawn. */
export function finish(db: IDBDatabase, ctx: string, receipt: Receipt): Promise<boolean> {
  return transact(db, ["reports", "receipts"], async (at) => {
    const [reports, receipts] = [at("reports"), at("receipts")];
    if (!(await done(reports.count(ctx)))) return false;
    reports.delete(ctx);
    receipts.put(receipt);
    const keys = await done(receipts.getAllKeys());
    for (const key of keys.slice(0, -RECEIPTS_MAX)) receipts.delete(key);
    return true;
  });
}

/** Receipts of all reports that are finished, oldest first. */
export function receipts(db: IDBDatabase): Promise<Receipt[]> {
  return done(db.transaction("receipts").objectStore("receipts").getAll());
}

/** When to ask the collector for rounds again, in Unix seconds; 0 at first. */
export async function nextVisit(db: IDBDatabase): Promise<number> {
  return (await done(db.transaction("meta").objectStore("meta").get("visit"))) ?? 0;
}

/** Notes when to ask the collector for rounds again. */
export function visitAt(db: IDBDatabase, at: number): Promise<void> {
  return transact(db, ["meta"], async (store) => void store("meta").put(at, "visit"));
}

/** Deletes events, bodies and receipts. Coins and charges stay: forgetting is no refund. */
export function wipe(db: IDBDatabase): Promise<void> {
  return transact(
    db,
    ["events", "reports", "receipts", "meta"],
    async (at) => {
      for (const name of ["events", "reports", "receipts"] as const) at(name).clear();
      at("meta").delete("bytes");
    },
    "strict",
  );
}
