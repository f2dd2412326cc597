// Several tabs of one origin: one client.
import assert from "node:assert/strict";
import { test } from "node:test";

import { inside, round } from "./sdk_rounds.js";
import { settle, World, type Tab } from "./sdk_world.js";

/** Opens tabs at the same moment and leaves them one after the other. */
async function together(world: World, count: number, locks: boolean): Promise<Tab[]> {
  const changes = locks ? {} : { locks: undefined };
  const tabs = Array.from({ length: count }, () => world.tab({}, changes));
  await Promise.all(tabs.map((each) => each.client.ready));
  for (const each of tabs) each.leave();
  await settle();
  return tabs;
}

for (const locks of [true, false]) {
  test(`three tabs make one report and one charge, locks: ${locks}`, async () => {
    const world = new World();
    world.rounds = [round(1), round(2)];
    await together(world, 3, locks);
    assert.equal(world.posts.length, 2);
    for (const each of world.rounds) assert.equal(world.bodies(each).length, 1);
    assert.equal(await world.spent(), 2 * world.rounds[0]!.cost);
  });
}

test("with locks one tab asks for the list, and the others leave it at that", async () => {
  const world = new World();
  await together(world, 3, true);
  assert.equal(world.listings, 1);
});

test("control: without locks each of them asks", async () => {
  const world = new World();
  await together(world, 3, false);
  assert.ok(world.listings > 1);
});

test("what one tab records is in the report that another one holds, once", async () => {
  const world = new World();
  world.rounds = [round()];
  const [first, second] = [world.tab(), world.tab()];
  await Promise.all([first.client.ready, second.client.ready]);
  await second.client.record("flight", { carrier: "UA" });
  await settle();
  first.leave();
  second.leave();
  await settle();
  assert.equal(world.posts.length, 1);
  assert.deepEqual(inside(world.rounds[0]!, world.posts[0]!.body, world.secrets), [0, 1]);
});

test("a withdrawal in one tab stops the others, and what they hold is gone", async () => {
  const world = new World();
  world.rounds = [round()];
  const [first, second] = [world.tab(), world.tab()];
  await Promise.all([first.client.ready, second.client.ready]);
  const late = first.client.record("flight", { carrier: "AA" });
  await second.client.setConsent(false);
  await late;
  await settle();
  first.leave();
  await first.client.record("flight", { carrier: "AA" });
  await settle();
  assert.equal(world.posts.length, 0);
  assert.deepEqual(await world.all("events"), []);
  assert.deepEqual(await world.all("reports"), []);
});

test("control: a tab that is not told sends what it holds", async () => {
  const world = new World();
  world.rounds = [round()];
  const first = world.tab({}, { channel: undefined });
  await first.client.ready;
  const second = world.tab();
  await second.client.setConsent(false);
  first.leave();
  assert.equal(world.posts.length, 1);
});

test("a tab that finds another one at work comes back in a while", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  await tab.client.ready;
  world.locks.set("dandelion https://collector.example", tab);
  world.now += 1_300_000;
  await tab.client.flush();
  assert.equal(world.posts.length, 0);
  assert.ok(tab.wakes!.at - world.now / 1000 <= 10);
  world.locks.clear();
  await tab.wake();
  assert.equal(world.posts.length, 1);
});
