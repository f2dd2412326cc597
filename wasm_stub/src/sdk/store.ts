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
  /** Why there is to be no report, unless there is one already; empty if nothing is against it. */
  readonly refused: string;
}

interface Decision {
  readonly ctx: string;
  readonly expires: number;
  readonly heads: boolean;
  /** When it was charged; 0 if it was not. */
  readonly at: number;
  readonly units: number;
}

const VERSION = 1;
const RECEIPTS_MAX = 100;

/** Opens the database. With `create` false there is none (undefined) unless it exists already. */
export function openStore(
  idb: IDBFactory | undefined,
  origin: string,
  create: boolean,
  lost: () => void = () => {},
): Promise<IDBDatabase | undefined> {
  return new Promise((resolve, reject) => {
    // Without IndexedDB this throws, which rejects.
    const request = idb!.open(`dandelion ${origin}`, VERSION);
    request.onupgradeneeded = () => {
      if (!create) return request.transaction!.abort();
      const make: IDBDatabase["createObjectStore"] = (...how) =>
        request.result.createObjectStore(...how);
      make("decisions", { keyPath: "ctx" });
      make("reports", { keyPath: "ctx" });
      make("events", { autoIncrement: true }).createIndex("event", "event");
      make("receipts", { autoIncrement: true });
      make("meta");
    };
    request.onsuccess = () => {
      const { result: db } = request;
      // Another tab deletes or upgrades it, or the browser clears it: make way.
      db.onclose = lost;
      db.onversionchange = () => {
        db.close();
        lost();
      };
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

type At = (name: Names) => IDBObjectStore;

/**
 * Runs `work` in one transaction; resolves when all of it is stored, rejects when none is.
 *
 * What `work` does before it first waits is on its way when this returns.
 */
function transact<T>(
  db: IDBDatabase,
  names: Names[],
  work: (at: At, transaction: IDBTransaction) => Promise<T>,
  durability: IDBTransactionDurability = "default",
): Promise<T> {
  return new Promise((resolve, reject) => {
    const transaction = db.transaction(names, "readwrite", { durability });
    let result: T;
    transaction.oncomplete = () => resolve(result);
    transaction.onabort = () => reject(transaction.error ?? new Error("aborted"));
    work((name) => transaction.objectStore(name), transaction).then(
      (value) => {
        result = value;
      },
      (error: unknown) => {
        reject(error);
        try {
          transaction.abort();
        } catch {
          // It has aborted by itself.
        }
      },
    );
  });
}

/** What is stored under a key, or everything. */
function read<T>(db: IDBDatabase, name: Names, key?: string): Promise<T> {
  const found = db.transaction(name).objectStore(name);
  return done<T>(key ? found.get(key) : (found.getAll() as IDBRequest));
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
    for (;;) {
      const cursor = await done(events.openCursor());
      const oldest = cursor?.value as StoredEvent | undefined;
      const over = rows > rowsMax || bytes > bytesMax;
      if (!cursor || !oldest || !(over || oldest.at < event.at - retentionS)) break;
      rows--;
      bytes -= oldest.size;
      cursor.delete();
    }
    meta.put(bytes, "bytes");
  });
}

/**
 * Steps 3, 6 and 7 of section 14 in one transaction: the coin of a round, its charge, and the
 * report that `make` gives for the rows of its event, which is not called unless all is settled.
 * When this resolves, they are stored; when it rejects, none of them is.
 *
 * @returns the report, or the word why there is none. `refused` is such a word, or empty.
 */
export function commit(
  db: IDBDatabase,
  { ctx, expires, at: now, units, most, since, refused }: Charge,
  { retentionS }: Required<Retention>,
  event: string,
  toss: () => boolean,
  make: (rows: Row[]) => Report,
): Promise<Report | string> {
  const work = async (at: At): Promise<Report | string> => {
    const decisions = at("decisions");
    let spent = 0;
    let before: Decision | undefined;
    for (const each of await done<Decision[]>(decisions.getAll())) {
      if (each.ctx === ctx) before = each;
      if (each.at > since) spent += each.units;
      else if (each.expires <= now) decisions.delete(each.ctx);
    }
    // What was answered before is not refused now because its time is over.
    if (before?.at) return "known";
    if (refused) return refused;
    const decided: Decision = { ctx, expires, heads: before?.heads ?? toss(), at: 0, units: 0 };
    decisions.put(decided);
    if (!decided.heads) return "skipped";
    if (spent + units > most) return "budget_exhausted";
    const found = await done<StoredEvent[]>(at("events").index("event").getAll(event));
    const report = make(
      found.filter((each) => each.at >= now - retentionS).map((each) => each.row),
    );
    decisions.put({ ...decided, at: now, units });
    at("reports").put(report);
    return report;
  };
  return transact(db, ["decisions", "events", "reports"], work, "strict");
}

/**
 * Starts storing bodies that have just been made, and does not wait.
 *
 * The requests are on their way when this returns, so that they outlive a page that is being left.
 * Resolves when the bodies are stored.
 */
export function keep(db: IDBDatabase, made: readonly Report[]): Promise<void> {
  const work = async (at: At, transaction: IDBTransaction): Promise<void> => {
    for (const report of made) at("reports").put(report);
    // Safari before 15 has no commit; there the transaction ends a moment later, by itself.
    transaction.commit?.();
  };
  return transact(db, ["reports"], work, "strict");
}

/** All reports without an acknowledgement. */
export const pending = (db: IDBDatabase): Promise<Report[]> => read(db, "reports");

/** What was recorded, oldest first. */
export const events = (db: IDBDatabase): Promise<StoredEvent[]> => read(db, "events");

/** Receipts of all reports that are finished, oldest first. */
export const receipts = (db: IDBDatabase): Promise<Receipt[]> => read(db, "receipts");

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

/** When to ask the collector for rounds again, in Unix seconds; 0 at first. */
export async function nextVisit(db: IDBDatabase): Promise<number> {
  return (await read<number | undefined>(db, "meta", "visit")) ?? 0;
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
