// A page that is killed at any moment: one body per round, and none without a durable charge.
//
// A story is told again and again; each time the page is killed one step later: before a
// transaction begins, after it is stored but before the page hears of it, before a request has
// arrived, before its answer comes back. Then the person comes back in another page.
import assert from "node:assert/strict";
import { test } from "node:test";

import type { Report } from "../src/sdk/store.js";
import { round } from "./sdk_rounds.js";
import { settle, World, type Tab } from "./sdk_world.js";

const ROUNDS = [round(1), round(2)];

type Story = (world: World) => Promise<unknown>;

interface Ending {
  readonly world: World;
  /** Whether the story came to its own end. */
  readonly whole: boolean;
}

/** Tells the story up to a step, then lets the person come back until nothing is waiting. */
async function tellUpTo(step: number, story: Story, told = false): Promise<Ending> {
  const world = new World();
  world.told = told;
  world.rounds = ROUNDS;
  world.cut = step;
  void story(world);
  await settle(120);
  const whole = world.cut === step;
  world.cut = Infinity;
  world.onPost = undefined;
  for (const each of world.tabs) each.kill();
  for (let visits = 0; visits < 3; visits++) {
    world.now += 1_300_000;
    const tab = world.tab();
    await tab.client.ready;
    await tab.client.record("flight", { carrier: "AA" });
    tab.leave();
    await settle();
    tab.kill();
  }
  return { world, whole };
}

/** What must hold after each of them. */
async function check({ world }: Ending, step: number): Promise<void> {
  for (const each of world.rounds) {
    assert.ok(world.bodies(each).length <= 1, `step ${step}: two bodies for one round`);
  }
  assert.ok(
    world.posts.every((post) => post.charged),
    `step ${step}: sent before the charge was durable`,
  );
  const spent = await world.spent();
  assert.ok([0, 1, 2].some((rounds) => spent === rounds * world.rounds[0]!.cost), `step ${step}`);
  const stored = (await world.all<Report>("reports")).filter((each) => each.body);
  assert.equal(stored.length, 0, `step ${step}: a stored body was not delivered`);
}

async function everyStep(story: Story, told = false): Promise<number[]> {
  const delivered: number[] = [];
  for (let step = 0; ; step++) {
    assert.ok(step < 100, "the story has no end");
    const ending = await tellUpTo(step, story, told);
    await check(ending, step);
    delivered.push(ending.world.taken.size);
    if (ending.whole) return delivered;
  }
}

async function open(world: World, holdS: number): Promise<Tab> {
  const tab = world.tab({ holdS });
  await tab.client.record("flight", { carrier: "UA" });
  await tab.client.ready;
  await tab.client.record("flight", { carrier: "UA" });
  return tab;
}

test("a page that is left", async () => {
  const delivered = await everyStep(async (world) => {
    (await open(world, 300)).leave();
  });
  // Killed between charge and leaving, a round of this page is lost; never more than that.
  assert.equal(delivered.at(-1), 2);
  assert.ok(delivered.every((each) => each <= 2));
});

test("a page that is left at any moment while it joins, and is gone at once", async () => {
  const delivered = await everyStep((world) => open(world, 300), true);
  assert.ok(delivered.some((each) => each === 2));
});

test("a worker that is told to leave at any moment, and is gone at once", async () => {
  await everyStep((world) => open(world, 0), true);
});

test("a page that stays until its reports are due", async () => {
  const delivered = await everyStep(async (world) => {
    const tab = await open(world, 60);
    world.now += 61_000;
    await tab.wake();
  });
  assert.equal(delivered.at(-1), 2);
});

test("a worker, which makes its reports at once, loses none", async () => {
  const delivered = await everyStep((world) => open(world, 0));
  assert.deepEqual(new Set(delivered), new Set([2]));
});

test("a page that is left while the collector does not answer", async () => {
  await everyStep(async (world) => {
    let vain = 4;
    world.onPost = () => {
      if (vain-- > 0) throw new TypeError("gone");
      return world.take(world.posts.at(-1)!.body);
    };
    const tab = await open(world, 300);
    tab.leave();
    await settle(20);
    await tab.wake();
  });
});

test("a page that is hidden, comes back and is left", async () => {
  await everyStep(async (world) => {
    const tab = await open(world, 300);
    tab.leave();
    await settle(10);
    tab.hidden = false;
    await tab.client.record("flight", { carrier: "AA" });
    await tab.client.flush({ early: true });
    tab.leave();
  });
});

test("two tabs, the first of which is killed", async () => {
  await everyStep(async (world) => {
    const other = world.tab();
    await other.client.ready;
    const tab = await open(world, 300);
    tab.leave();
    other.leave();
  });
});

test("control: a client that forgets its charges sends two bodies for one round", async () => {
  const world = new World();
  world.rounds = [round(1)];
  (await open(world, 300)).leave();
  await settle();
  const db = await world.open();
  for (const name of ["decisions", "reports"]) {
    db.transaction(name, "readwrite").objectStore(name).clear();
  }
  db.close();
  await world.tab().client.flush({ early: true });
  assert.equal(world.bodies(world.rounds[0]!).length, 2);
});

test("control: a step that is never reached leaves the page alone", async () => {
  const { whole, world } = await tellUpTo(10_000, async (told) => (await open(told, 300)).leave());
  assert.ok(whole);
  assert.equal(world.taken.size, 2);
});
