// What a page sees: a client that never throws, never rejects and never waits for anybody.
import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { parsePlan } from "../src/protocol/plan.js";
import type { Client } from "../src/sdk/api.js";
import type { Options } from "../src/sdk/config.js";
import { make, promise } from "../src/sdk/contribute.js";
import type { Env } from "../src/sdk/env.js";
import { explainReceipt, receiptInWords } from "../src/sdk/explain.js";
import { receipt } from "../src/sdk/receipts.js";
import { inside, PINS, PLAN, round, Secrets } from "./sdk_rounds.js";
import { kernel, settle, World } from "./sdk_world.js";

const AA = { carrier: "AA" };
const silent = mock.method(console, "warn", () => {});

/** Calls everything there is; whatever throws or rejects fails the story. */
async function useAll(client: Client): Promise<void> {
  await client.record("flight", { carrier: "AA" });
  await client.ready;
  await client.flush({ early: true });
  client.leave();
  await client.receipts();
  await client.events();
  await client.explain("carriers");
  await client.setConsent(false);
  await client.setConsent(true);
  client.faults();
  client.close();
  client.close();
  client.leave();
  await client.record("flight", { carrier: "AA" });
  await client.flush();
  await client.setConsent(true);
  await settle();
}

const broken = (): never => {
  throw new Error("broken");
};
const WORLDS: [string, Partial<Env>][] = [
  ["there is no IndexedDB", { idb: undefined }],
  ["IndexedDB throws", { idb: { open: broken } as unknown as IDBFactory }],
  ["fetch throws", { fetch: broken }],
  ["fetch gives nothing", { fetch: () => Promise.resolve(undefined as unknown as Response) }],
  ["there is no kernel", { kernel: () => Promise.reject(new Error("no wasm")) }],
  ["there is no randomness", { random: broken }],
  ["locks throw", { locks: { request: broken } as unknown as LockManager }],
  ["sleep throws", { sleep: broken }],
];

for (const [what, changes] of WORLDS) {
  test(`${what}: the page notices nothing, the faults are counted`, async () => {
    const world = new World();
    world.rounds = [round()];
    const tab = world.tab({ holdS: 0 }, changes);
    await useAll(tab.client);
    assert.ok(Object.values(tab.client.faults()).some((count) => count > 0), what);
  });
}

test("control: in a sound world there are no faults, and a report arrives", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab({ holdS: 0 });
  await useAll(tab.client);
  assert.deepEqual(tab.client.faults(), {});
  assert.equal(world.posts.length, 1);
});

const { collector, helpers } = PINS;
const OPTIONS: [string, Partial<Options>][] = [
  ["no endpoint", { endpoint: undefined as unknown as string }],
  ["an endpoint that is no URL", { endpoint: "collector.example" }],
  ["an endpoint with a path", { endpoint: "https://collector.example/v1" }],
  ["an endpoint with a password", { endpoint: "https://me:you@collector.example" }],
  ["an endpoint in plain HTTP", { endpoint: "http://collector.example" }],
  ["no pins", { config: undefined as unknown as typeof PINS }],
  ["one helper", { config: { collector, helpers: helpers.slice(1) } }],
  ["the same helper twice", { config: { collector, helpers: [helpers[0]!, helpers[0]!] } }],
  ["a helper that is the collector", { config: { collector, helpers: [helpers[0]!, collector] } }],
  ["a short identity", { config: { collector: "ab", helpers } }],
  ["no suite", { config: { ...PINS, suites: [] } }],
  ["an unknown suite", { config: { ...PINS, suites: [3] } }],
  ["an unknown scheme", { config: { ...PINS, scheme: "pairwise" as "oneshot" } }],
  ["a policy without sense", { policy: { epsilonRound: NaN } }],
  ["a delta of 1", { policy: { delta: 1 } }],
  ["a probability below 0", { policy: { participation: -0.5 } }],
  ["a misspelt policy", { policy: { epsilon: 1 } as object }],
  ["a retention without sense", { retention: { rowsMax: NaN } }],
];

for (const [what, options] of OPTIONS) {
  test(`${what}: the client is inert and says so`, async () => {
    const world = new World();
    world.rounds = [round()];
    const warned = silent.mock.callCount();
    const tab = world.tab({ ...options, holdS: 0 });
    await useAll(tab.client);
    assert.deepEqual(tab.client.faults(), { config: 1 });
    assert.equal(silent.mock.callCount(), warned + 1);
    assert.equal(world.listings, 0);
    assert.deepEqual(await world.idb.databases(), []);
  });
}

for (const endpoint of [
  "https://collector.example/",
  "http://localhost:8080",
  "http://127.0.0.1:1",
]) {
  test(`control: ${endpoint} can be used`, async () => {
    const world = new World();
    const tab = world.tab({ endpoint });
    await tab.client.ready;
    assert.deepEqual(tab.client.faults(), {});
    assert.equal(world.listings, 1);
  });
}

test("what `onReceipt` throws is swallowed and counted", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab({ holdS: 0, onReceipt: broken });
  await tab.client.ready;
  assert.equal(world.posts.length, 1);
  assert.deepEqual(tab.client.faults(), { onReceipt: 2 });
});

test("a plan that fails becomes zeros, a fault and a word in the receipt", async () => {
  const world = new World();
  await world.tab().client.ready;
  const db = await world.open();
  const events = db.transaction("events", "readwrite").objectStore("events");
  // A row that no version of this package has written.
  await new Promise((resolve) => {
    events.put({ event: "flight", at: 1_800_000_000, size: 1, row: null }).onsuccess = resolve;
  });
  db.close();
  world.rounds = [round()];
  const tab = world.tab({ holdS: 0 });
  await tab.client.flush({ early: true });
  assert.deepEqual(tab.client.faults(), { plan: 1 });
  assert.deepEqual([tab.told.at(-1)!.outcome, tab.told.at(-1)!.fault], ["accepted", "plan"]);
  assert.deepEqual(inside(world.rounds[0]!, world.posts[0]!.body, world.secrets), [0, 0]);
});

for (const [linf, vector, fault] of [
  [1, [0, 0], "gate"],
  [4, [2, 0], ""],
] as const) {
  test(`two rows where ${linf} is the most: ${fault || "the control, they leave"}`, () => {
    const { descriptor } = round();
    const admitted = {
      descriptor: { ...descriptor, linf },
      plan: parsePlan(descriptor.plan),
      rhoUnits: 1,
    };
    const secrets = new Secrets();
    const made = make(kernel, admitted, [AA, AA], promise(admitted, 0), (array) => {
      crypto.getRandomValues(array);
      secrets.drawn.push(new Uint8Array(array));
      return array;
    });
    assert.equal(made.report.receipt.fault, fault);
    assert.deepEqual(inside(round(), made.report.body, secrets), vector);
    assert.deepEqual([...made.values], vector);
  });
}

for (const holdS of [0, 300]) {
  test(`a page that wants to show what leaves is shown it before, held ${holdS} s`, async () => {
    const world = new World();
    world.rounds = [round()];
    const seen: [number, number[], Uint8Array][] = [];
    const tab = world.tab({
      holdS,
      onReport: ({ values, body }) => seen.push([world.posts.length, [...values], body]),
    });
    await tab.client.record("flight", { carrier: "UA" });
    await tab.client.ready;
    tab.leave();
    const { body } = world.posts[0]!;
    assert.deepEqual(seen, [[0, [0, 1], body]]);
  });
}

test("what `onReport` throws keeps nothing back", async () => {
  const world = new World();
  world.rounds = [round(1), round(2)];
  const tab = world.tab({ onReport: broken });
  await tab.client.ready;
  tab.leave();
  assert.equal(world.posts.length, 2);
  assert.deepEqual(tab.client.faults(), { onReport: 2 });
});

test("`events` shows what is kept, oldest first, and nothing without consent", async () => {
  const world = new World();
  const tab = world.tab();
  await tab.client.record("flight", { carrier: "UA" });
  await tab.client.record("visit", { page: "/" });
  const rows = (await tab.client.events()).map(({ event, row }) => [event, row]);
  assert.deepEqual(rows, [
    ["flight", { carrier: "UA" }],
    ["visit", { page: "/" }],
  ]);
  assert.deepEqual(await world.tab({ consent: "pending" }).client.events(), []);
});

test("closing sends what is held and stops everything else", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  await tab.client.ready;
  tab.client.close();
  await settle();
  assert.equal(world.posts.length, 1);
  assert.equal(tab.wakes, undefined);
  await tab.client.record("flight", { carrier: "AA" });
  assert.deepEqual(await world.all("events"), []);
  assert.deepEqual(inside(world.rounds[0]!, world.posts[0]!.body, world.secrets), [0, 0]);
});

test("`explain` says in words what a query makes this client do", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  await tab.client.ready;
  assert.equal(
    await tab.client.explain("carriers"),
    "The question, as asked: “SELECT carrier, COUNT(*) FROM flight GROUP BY carrier”. Your " +
      "client looks at its own records of “flight” and uses at most 4 records, drawn at " +
      "random if there are more. From each of them it takes that the record exists, for the " +
      "carrier it belongs to (AA, UA; a record with any other value is left out). The result " +
      "is a list of 2 numbers. If nothing matches it sends zeros, so taking part says " +
      "nothing about what is recorded. The list is masked before it is sent. Only its sum " +
      "over at least 1000 clients becomes readable, after 2 independent helpers have each " +
      "added random noise. The promise is epsilon 1, delta 1e-8: with your records or with " +
      "zeros in their place, any published result is at most 2.72 times as likely, except " +
      "with a probability of about 1e-8.",
  );
  assert.equal(await tab.client.explain("never heard of it"), "");
});

test("every operator of a plan has its words", () => {
  const plan = {
    ...PLAN,
    epsilon: "0.5",
    group: { column: "c", values: [..."abcdefgh"] },
    measures: [
      { op: "count", scale: 1 },
      { column: "delay", op: "count", scale: 1 },
      { centre: 0, column: "delay", hi: 60, lo: -60, op: "sum", scale: 1 },
      { bins: 4, column: "delay", hi: 60, lo: -60, op: "histogram", scale: 1 },
    ],
    rows_max: 1,
    where: [
      { column: "carrier", test: "ne", value: "UA" },
      { column: "delay", test: "ge", value: -3 },
    ],
  };
  const about = { outcome: "accepted", at: 0, helpers: 2, cohortMin: 1000 } as const;
  const words = explainReceipt(receipt({ ...about, plan: JSON.stringify(plan) }));
  for (const part of [
    "uses at most one record of those where carrier is not “UA” and delay is at least -3, drawn",
    "From that record it takes that the record exists, whether delay is known, delay, limited to " +
      "-60 to 60 and into which of 4 ranges from -60 to 60 delay falls, for the c it belongs to " +
      "(a, b, c, d, e, f and 2 more; a record with any other value is left out). The result is a " +
      "list of 56 numbers.",
    "at most 1.65 times as likely",
  ]) {
    assert.ok(words.includes(part), words);
  }
});

test("a receipt in words says what left, when and at what price", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab({ holdS: 0 });
  await tab.client.ready;
  const words = receiptInWords(tab.told.at(-1)!);
  const id = world.rounds[0]!.id.slice(0, 8);
  assert.ok(
    words.startsWith(
      `2027-01-15 08:00 UTC: the report for “carriers” (round ${id}) was sent and accepted. It ` +
        "was charged to this collector's allowance, whatever becomes of it: epsilon 1 at delta " +
        "1e-8. 57 bytes, sent once. The question, as asked:",
    ),
    words,
  );
  const refused = receipt({ outcome: "refused", at: 0, round: "ab", token: "bad_plan" });
  assert.equal(
    receiptInWords(refused),
    "1970-01-01 00:00 UTC: a report for round ab was not made: this client refuses the round. " +
      "Reason: bad_plan.",
  );
});
