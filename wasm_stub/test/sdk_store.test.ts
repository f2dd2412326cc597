// What is kept, for how long, and how much of it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { IDBFactory } from "fake-indexeddb";

import type { Registry, Retention } from "../src/sdk/config.js";
import type { Fields } from "../src/sdk/events.js";
import { receipt } from "../src/sdk/receipts.js";
import * as store from "../src/sdk/store.js";
import type { Report, StoredEvent } from "../src/sdk/store.js";
import { World } from "./sdk_world.js";

const NOW = 1_800_000_000;
const KEEP: Required<Retention> = { retentionS: 1000, rowsMax: 100, bytesMax: 100_000 };
const PLENTY = 2 ** 53;

async function fresh(): Promise<IDBDatabase> {
  return (await store.openStore(new IDBFactory(), "https://collector.example", true))!;
}

function report(ctx: string, body?: Uint8Array<ArrayBuffer>): Report {
  const about = receipt({ outcome: "waiting", at: NOW });
  const made = { ctx, expires: NOW + 60, receipt: about, attempts: 0, notBefore: 0 };
  return { ...made, ...(body && { body }) };
}

function commit(
  db: IDBDatabase,
  ctx: string,
  charge: Partial<store.Charge> = {},
  make = (): Report => report(ctx),
  toss = (): boolean => true,
): Promise<Report | string> {
  const when = { at: NOW, expires: NOW + 60, since: NOW - 1000 };
  const usual = { ctx, ...when, units: 5, most: PLENTY, refused: "" };
  return store.commit(db, { ...usual, ...charge }, KEEP, "visit", toss, make);
}

/** Whether a round was charged: the next attempt says so, and is refused if not. */
async function known(db: IDBDatabase, ctx: string): Promise<boolean> {
  return (await commit(db, ctx, { refused: "refused" }, () => assert.fail("made"))) === "known";
}

test("a charge and its report appear together", async () => {
  const db = await fresh();
  assert.equal(await known(db, "a"), false);
  assert.deepEqual(await commit(db, "a"), report("a"));
  assert.equal(await known(db, "a"), true);
  assert.deepEqual(await store.pending(db), [report("a")]);
});

test("a report that cannot be made is not charged", async () => {
  const db = await fresh();
  const broken = (): Report => {
    throw new RangeError("no");
  };
  await assert.rejects(commit(db, "a", {}, broken), RangeError);
  // Not even the coin is kept: all of it or nothing.
  let tossed = 0;
  assert.equal(await commit(db, "a", {}, undefined, () => ++tossed < 0), "skipped");
  assert.equal(tossed, 1);
  assert.equal(await known(db, "a"), false);
  assert.deepEqual(await store.pending(db), []);
});

test("a second report for a round is not made, not even when the first is finished", async () => {
  const db = await fresh();
  await commit(db, "a");
  assert.equal(await store.finish(db, "a", receipt({ outcome: "rejected", at: NOW })), true);
  const never = (): Report => assert.fail("made twice");
  assert.equal(await commit(db, "a", {}, never), "known");
  assert.equal(await store.finish(db, "a", receipt({ outcome: "accepted", at: NOW })), false);
});

test("a refusal leaves no coin, no charge and no report, but never hides an answer", async () => {
  const db = await fresh();
  assert.equal(await commit(db, "a", { refused: "round_closed" }), "round_closed");
  assert.equal(await commit(db, "a", {}, undefined, () => false), "skipped");
  await commit(db, "b");
  assert.equal(await commit(db, "b", { refused: "round_closed" }), "known");
});

test("exactly the allowance can be spent, and charges before the period do not count", async () => {
  const db = await fresh();
  await commit(db, "a", { at: NOW - 100 });
  assert.equal(await commit(db, "b", { most: 9, since: NOW - 101 }), "budget_exhausted");
  assert.equal(await known(db, "b"), false);
  assert.equal(typeof (await commit(db, "b", { most: 10, since: NOW - 101 })), "object");
  assert.equal(typeof (await commit(db, "c", { most: 10, since: NOW - 100 })), "object");
});

test("a coin falls once", async () => {
  const db = await fresh();
  const heads = (): boolean => assert.fail("tossed twice");
  assert.equal(await commit(db, "a", {}, undefined, () => false), "skipped");
  assert.equal(await commit(db, "a", {}, undefined, heads), "skipped");
  assert.equal(await commit(db, "b", { most: 0 }, undefined, () => true), "budget_exhausted");
  assert.equal(typeof (await commit(db, "b", {}, undefined, heads)), "object");
});

test("decisions are kept until their round has expired and their period is over", async () => {
  const db = await fresh();
  const decisions = (): Promise<string[]> =>
    new Promise((resolve) => {
      const request = db.transaction("decisions").objectStore("decisions").getAllKeys();
      request.onsuccess = () => resolve(request.result as string[]);
    });
  await commit(db, "charged");
  await commit(db, "skipped", {}, undefined, () => false);
  await commit(db, "x", { at: NOW + 59, expires: NOW + 5500, since: NOW - 941 });
  assert.deepEqual(await decisions(), ["charged", "skipped", "x"]);
  await commit(db, "y", { at: NOW + 60, expires: NOW + 90, since: NOW - 940 });
  assert.deepEqual(await decisions(), ["charged", "x", "y"]);
  await commit(db, "z", { at: NOW + 5000, expires: NOW + 6000, since: NOW + 4000 });
  assert.deepEqual(await decisions(), ["x", "z"]);
});

test("a postponed report keeps its bytes; a finished one does not come back", async () => {
  const db = await fresh();
  const whole = report("a", new Uint8Array([1, 2, 3]));
  await commit(db, "a", {}, () => whole);
  await store.postpone(db, { ...whole, attempts: 3, notBefore: 9 });
  assert.deepEqual(await store.pending(db), [{ ...whole, attempts: 3, notBefore: 9 }]);
  await store.finish(db, "a", whole.receipt);
  await store.postpone(db, whole);
  assert.deepEqual(await store.pending(db), []);
});

test("of receipts the last hundred are kept", async () => {
  const db = await fresh();
  for (let i = 0; i < 105; i++) {
    await commit(db, `${i}`);
    await store.finish(db, `${i}`, receipt({ outcome: "accepted", at: i }));
  }
  const kept = await store.receipts(db);
  assert.deepEqual([kept.length, kept[0]!.at, kept.at(-1)!.at], [100, 5, 104]);
});

/** Rows that are left after these have been recorded, one at a time. */
async function left(
  keep: Partial<Retention>,
  events: [at: number, size: number][],
): Promise<number[]> {
  const db = await fresh();
  for (const [at, size] of events) {
    const event: StoredEvent = { event: "visit", at, size, row: { at } };
    await store.record(db, event, { ...KEEP, ...keep });
  }
  let rows: number[] = [];
  await store.commit(
    db,
    { ctx: "a", expires: 0, at: 0, units: 0, most: 1, since: 0, refused: "" },
    { ...KEEP, retentionS: PLENTY },
    "visit",
    () => true,
    (found) => {
      rows = found.map((row) => row["at"] as number);
      return report("a");
    },
  );
  return rows;
}

test("old rows go, by age, by number and by size, the oldest first", async () => {
  assert.deepEqual(await left({ retentionS: 10 }, [[1, 1], [5, 1], [12, 1]]), [5, 12]);
  assert.deepEqual(await left({ rowsMax: 2 }, [[1, 1], [2, 1], [3, 1]]), [2, 3]);
  assert.deepEqual(await left({ bytesMax: 10 }, [[1, 4], [2, 4], [3, 4]]), [2, 3]);
  assert.deepEqual(await left({ bytesMax: 10 }, [[1, 4], [2, 4], [3, 11]]), []);
});

test("control: what is young, few and small stays", async () => {
  assert.deepEqual(await left({}, [[1, 4], [2, 4], [3, 4]]), [1, 2, 3]);
});

test("rows beyond the retention are not read, though nothing was recorded since", async () => {
  const world = new World();
  const tab = world.tab({ retention: { retentionS: 100 } });
  await tab.client.record("flight", { carrier: "AA" });
  const db = await world.open();
  let rows = -1;
  const make = (found: store.Row[]): Report => {
    rows = found.length;
    return report("a");
  };
  const charge = { ctx: "a", expires: 0, at: NOW + 101, units: 0, most: 1, since: 0, refused: "" };
  await store.commit(db, charge, { ...KEEP, retentionS: 100 }, "flight", () => true, make);
  assert.equal(rows, 0);
});

const REGISTRY: Registry = { events: { flight: { columns: { carrier: {}, delay: {} } } } };

test("strings, numbers and null are recorded as they are; what is not finite is null", async () => {
  const world = new World();
  const tab = world.tab();
  await tab.client.record("flight", { a: "é", b: 1.5, c: null, d: NaN, e: Infinity });
  const [event] = await world.all<StoredEvent>("events");
  assert.deepEqual(event!.row, { a: "é", b: 1.5, c: null, d: null, e: null });
  assert.deepEqual(tab.client.faults(), {});
});

const UNREADABLE: [string, Fields][] = [
  ["a boolean", { carrier: true as unknown as string }],
  ["a list", { carrier: [1] as unknown as string }],
  ["a function", { carrier: (() => "AA") as unknown as string }],
  ["nothing", undefined as unknown as Fields],
  ["a row beyond measure", { carrier: "x".repeat(16_384) }],
];

for (const [what, fields] of UNREADABLE) {
  test(`what no plan could read is not recorded: ${what}`, async () => {
    const world = new World();
    const tab = world.tab();
    await tab.client.record("flight", fields);
    assert.deepEqual(await world.all("events"), []);
    const faults = Object.values(tab.client.faults()).reduce((sum, each) => sum + each, 0);
    assert.equal(faults, 1);
  });
}

for (const [event, column] of [
  ["flights", "carrier"],
  ["flight", "carier"],
  ["constructor", "carrier"],
  ["flight", "constructor"],
] as const) {
  test(`with a registry a misspelt name is noticed: ${event}.${column}`, async () => {
    const world = new World();
    const tab = world.tab({ registry: REGISTRY });
    await tab.client.record("flight", { carrier: "AA" });
    await tab.client.record(event, { [column]: "AA" });
    assert.equal((await world.all("events")).length, 1);
    assert.deepEqual(tab.client.faults(), { schema: 1 });
  });
}
