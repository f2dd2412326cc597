// Consent, its withdrawal, and Global Privacy Control.
import assert from "node:assert/strict";
import { test } from "node:test";

import { round } from "./sdk_rounds.js";
import { settle, World, type Tab } from "./sdk_world.js";

/** Everything a page could do: record, wait, be left. */
async function use(tab: Tab): Promise<void> {
  await tab.client.record("flight", { carrier: "AA" });
  await tab.client.ready;
  await tab.client.flush({ early: true });
  tab.leave();
  await settle();
}

for (const consent of ["pending", "denied"] as const) {
  test(`consent ${consent}: nothing is stored, nothing is asked, nothing is sent`, async () => {
    const world = new World();
    world.rounds = [round()];
    await use(world.tab({ consent }));
    assert.equal(world.listings, 0);
    assert.deepEqual(await world.idb.databases(), []);
  });
}

test("control: with consent the same page asks and sends", async () => {
  const world = new World();
  world.rounds = [round()];
  await use(world.tab());
  assert.ok(world.listings > 0);
  assert.equal(world.posts.length, 1);
});

test("without a word consent is pending", async () => {
  const world = new World();
  const tab = world.tab({ consent: undefined as unknown as "pending" });
  await use(tab);
  assert.equal(world.listings, 0);
});

test("consent that is given later counts from then on", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab({ consent: "pending" });
  await tab.client.record("flight", { carrier: "AA" });
  await tab.client.setConsent(true);
  await tab.client.record("flight", { carrier: "UA" });
  assert.deepEqual(
    (await world.all<{ row: object }>("events")).map((each) => each.row),
    [{ carrier: "UA" }],
  );
  tab.leave();
  assert.equal(world.posts.length, 1);
});

test("a withdrawal deletes events, reports and receipts, and keeps what was charged", async () => {
  const world = new World();
  world.rounds = [round(1), round(2)];
  let first = true;
  world.onPost = () => {
    if (!first) throw new TypeError("gone");
    first = false;
    return world.take(world.posts.at(-1)!.body);
  };
  const tab = world.tab();
  await use(tab);
  assert.equal((await world.all("receipts")).length, 1);
  assert.equal((await world.all("reports")).length, 1);
  const spent = await world.spent();
  await tab.client.setConsent(false);
  for (const name of ["events", "reports", "receipts"]) {
    assert.deepEqual(await world.all(name), [], name);
  }
  assert.equal(await world.spent(), spent);
  assert.deepEqual(await tab.client.receipts(), []);
});

test("a withdrawal and a new consent are no way to answer a round twice", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  await use(tab);
  await tab.client.setConsent(false);
  await tab.client.setConsent(true);
  await tab.client.flush({ early: true });
  tab.leave();
  await settle();
  assert.equal(world.bodies(world.rounds[0]!).length, 1);
});

test("a withdrawal before the database is open", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  const recorded = tab.client.record("flight", { carrier: "AA" });
  await tab.client.setConsent(false);
  await recorded;
  await settle();
  tab.leave();
  await settle();
  assert.equal(world.posts.length, 0);
  assert.deepEqual(await world.all("events"), []);
});

test("a withdrawal stops what is under way", async () => {
  const world = new World();
  world.rounds = [round()];
  world.onPost = () => new Promise(() => {});
  const tab = world.tab({ holdS: 0 });
  await settle();
  assert.equal(world.posts.length, 1);
  await tab.client.setConsent(false);
  assert.ok(world.posts[0]!.init.signal!.aborted);
  await settle();
  assert.deepEqual(await world.all("reports"), []);
});

test("denied at the start deletes what an earlier page has kept", async () => {
  const world = new World();
  await use(world.tab());
  assert.equal((await world.all("events")).length, 1);
  await world.tab({ consent: "denied" }).client.ready;
  assert.deepEqual(await world.all("events"), []);
});

test("Global Privacy Control is a no, whatever the page says", async () => {
  const world = new World();
  world.gpc = true;
  world.rounds = [round()];
  const tab = world.tab();
  await use(tab);
  await tab.client.setConsent(true);
  await use(tab);
  assert.equal(world.listings, 0);
  assert.equal(world.posts.length, 0);
});

test("Global Privacy Control that is turned on later holds from then on", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  await tab.client.ready;
  world.gpc = true;
  await use(tab);
  assert.equal(world.posts.length, 0);
  assert.deepEqual(await world.all("events"), []);
});

test("control: a page that says so does not honour it", async () => {
  const world = new World();
  world.gpc = true;
  world.rounds = [round()];
  await use(world.tab({ honorGPC: false }));
  assert.equal(world.posts.length, 1);
});
