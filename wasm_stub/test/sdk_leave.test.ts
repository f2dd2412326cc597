// A page that is hidden or left: what is made and sent in that one turn.
import assert from "node:assert/strict";
import { test } from "node:test";

import { hex } from "../src/protocol/encoding.js";
import type { Env } from "../src/sdk/env.js";
import type { Report } from "../src/sdk/store.js";
import { inside, PLAN, round, type Round } from "./sdk_rounds.js";
import { settle, World, type Tab } from "./sdk_world.js";

/** A round whose reports have so many words of four bytes. */
function wide(number: number, slots: number): Round {
  const measure = { bins: slots, column: "delay", hi: slots, lo: 0, op: "histogram", scale: 1 };
  const outputs = [{ measure: 0, name: "n", op: "histogram" }];
  const { group, ...rest } = PLAN;
  assert.ok(group);
  return round(number, { slots, plan: { ...rest, measures: [measure], outputs } });
}

test("the request is on its way before the turn ends", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  await tab.client.ready;
  assert.equal(world.posts.length, 0);
  tab.leave();
  // No await in between: a promise would not be kept.
  assert.equal(world.posts.length, 1);
});

test("what is recorded in the same turn is in the report", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  await tab.client.ready;
  void tab.client.record("flight", { carrier: "AA" });
  void tab.client.record("other", { carrier: "AA" });
  tab.leave();
  assert.deepEqual(inside(world.rounds[0]!, world.posts[0]!.body, world.secrets), [1, 0]);
});

test("rows of earlier visits are in the report, too", async () => {
  const world = new World();
  const first = world.tab();
  await first.client.record("flight", { carrier: "AA" });
  first.kill();
  world.rounds = [round()];
  world.now += 1_300_000;
  const tab = world.tab();
  await tab.client.ready;
  await tab.client.record("flight", { carrier: "UA" });
  tab.leave();
  assert.deepEqual(inside(world.rounds[0]!, world.posts[0]!.body, world.secrets), [1, 1]);
});

test("hidden, then left: one report", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  await tab.client.ready;
  tab.leave();
  tab.leave();
  await settle();
  tab.leave();
  await settle();
  assert.equal(world.posts.length, 1);
});

test("nothing identifies the sender, and no preflight is needed", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  await tab.client.ready;
  tab.leave();
  const { init } = world.posts[0]!;
  assert.equal(init.credentials, "omit");
  assert.equal(init.referrerPolicy, "no-referrer");
  assert.equal(init.redirect, "error");
  assert.equal(init.keepalive, true);
  assert.deepEqual(init.headers, { "content-type": "text/plain" });
});

test("the same bytes are stored, for the case that they are lost on the way", async () => {
  const world = new World();
  world.rounds = [round()];
  world.onPost = () => new Promise(() => {});
  const tab = world.tab();
  await tab.client.ready;
  tab.leave();
  await settle();
  tab.kill();
  const [stored] = await world.all<Report>("reports");
  assert.equal(hex(stored!.body!), hex(world.posts[0]!.body));
  assert.deepEqual([stored!.attempts, stored!.receipt.attempts], [1, 1]);
  // Too early: the answer may be on its way to the page that was left.
  world.onPost = undefined;
  world.now += 10_000;
  await world.tab().client.ready;
  assert.equal(world.posts.length, 1);
  world.now += 25_000;
  const next = world.tab();
  await next.client.ready;
  assert.equal(world.posts.length, 2);
  assert.equal(world.bodies(world.rounds[0]!).length, 1);
  assert.equal(next.told.at(-1)!.outcome, "accepted");
});

test("reports beyond 60,000 bytes are not held: they go from the living page", async () => {
  const world = new World();
  world.rounds = [wide(1, 8000), wide(2, 8000), wide(3, 16_000)];
  const tab = world.tab({ policy: { epsilonPeriod: 10 } });
  await tab.client.ready;
  const size = (each: { body: Uint8Array }): number => each.body.length;
  assert.deepEqual(world.posts.map(size).sort(), [32_049, 64_049]);
  tab.leave();
  assert.equal(size(world.posts[2]!), 32_049);
});

test("of unanswered reports as many leave with the page as fit", async () => {
  const world = new World();
  world.rounds = [wide(1, 8000), wide(2, 8000)];
  world.onPost = () => new Promise(() => {});
  const tab = world.tab({ holdS: 0 });
  await settle();
  assert.equal(world.posts.length, 1);
  tab.leave();
  // The second one has not been sent at all yet, but both together would exceed the quota.
  assert.equal(world.posts.length, 2);
  const sum = world.posts.slice(1).reduce((bytes, each) => bytes + each.body.length, 0);
  assert.ok(sum <= 60_000);
});

test("a report that is under way when the page is left goes again", async () => {
  const world = new World();
  world.rounds = [round()];
  world.onPost = () => new Promise(() => {});
  const tab = world.tab({ holdS: 0 });
  await settle();
  // This request may be cut.
  assert.equal(world.posts[0]!.init.keepalive, false);
  tab.leave();
  assert.equal(world.posts[1]!.init.keepalive, true);
  tab.leave();
  assert.equal(world.posts.length, 2);
  assert.equal(world.bodies(world.rounds[0]!).length, 1);
});

/** Does something whenever a client draws a number: for its next visit, its due time, its coin. */
function onDraw(world: World, act: (draw: number) => unknown): Partial<Env> {
  let draws = 0;
  return {
    random: (array) => {
      if (array instanceof Uint32Array) act(++draws);
      crypto.getRandomValues(array);
      if (array.byteLength === 32) world.secrets.drawn.push(new Uint8Array(array));
      return array;
    },
  };
}

test("what is recorded while the page joins is in the report, once", async () => {
  const world = new World();
  world.rounds = [round()];
  const draws: number[] = [];
  const tab: Tab = world.tab(
    {},
    onDraw(world, (draw) => {
      draws.push(draw);
      // The third falls inside the transaction that has begun to read.
      if (draw <= 3) void tab.client.record("flight", { carrier: "AA" });
    }),
  );
  await tab.client.ready;
  assert.equal(draws.length, 3);
  tab.leave();
  assert.deepEqual(inside(world.rounds[0]!, world.posts[0]!.body, world.secrets), [3, 0]);
});

test("a page that is left while it joins sends when it has joined", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab: Tab = world.tab(
    {},
    onDraw(world, (draw) => draw === 3 && tab.leave()),
  );
  await tab.client.ready;
  assert.equal(world.posts.length, 1);
});

test("a page that joins while it is hidden sends at once", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  tab.leave();
  await tab.client.ready;
  assert.equal(world.posts.length, 1);
});

test("a page that is left before it has joined owes nothing", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  tab.leave();
  tab.kill();
  await settle();
  assert.equal(world.posts.length, 0);
  assert.equal(world.charged.size, 0);
});

for (const allowed of [true, false]) {
  const who = allowed ? "a beacon if it is allowed" : "else the next page";
  test(`without keepalive: ${who}`, async () => {
    const world = new World();
    world.rounds = [round()];
    const beacons: string[] = [];
    const beacon = (url: string, body: Uint8Array): void => {
      beacons.push(`${url} ${hex(body)}`);
    };
    const tab = world.tab({}, { keepalive: false, beacon: allowed ? beacon : undefined });
    await tab.client.ready;
    tab.leave();
    await settle();
    tab.kill();
    assert.equal(world.posts.length, 0);
    assert.equal(beacons.length, allowed ? 1 : 0);
    world.now += 60_000;
    await world.tab().client.ready;
    const [body] = world.bodies(world.rounds[0]!);
    const path = `/v1/rounds/${world.rounds[0]!.id}/reports`;
    if (allowed) assert.deepEqual(beacons, [`https://collector.example${path} ${body}`]);
    else assert.ok(body);
  });
}

test("a page that stays sends by itself, at a time that was drawn when it joined", async () => {
  const dues = new Set<number>();
  for (let turn = 0; turn < 5; turn++) {
    const world = new World();
    world.rounds = [round()];
    const tab = world.tab({ holdS: 100 });
    await tab.client.ready;
    const due = tab.wakes!.at - 1_800_000_000;
    assert.ok(due >= 50 && due <= 100, `${due}`);
    dues.add(due);
    await tab.wake();
    assert.equal(world.posts.length, 1);
    assert.deepEqual(tab.slept, [1000]);
  }
  assert.ok(dues.size > 1);
});

test("a round that closes soon is not held beyond half of what is left of it", async () => {
  const world = new World();
  world.rounds = [round(1, { closes: 1_800_000_060 })];
  const tab = world.tab({ holdS: 300 });
  await tab.client.ready;
  assert.ok(tab.wakes!.at <= 1_800_000_030);
});

test("a store that cannot write at the last moment does not keep the report back", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  await tab.client.ready;
  const put = IDBObjectStorePrototype(await world.open());
  const original = put.put;
  put.put = () => {
    throw new Error("disk full");
  };
  try {
    tab.leave();
  } finally {
    put.put = original;
  }
  assert.equal(world.posts.length, 1);
  await settle();
  assert.deepEqual(tab.client.faults(), { store: 1 });
});

/** What all object stores inherit from. */
function IDBObjectStorePrototype(db: IDBDatabase): IDBObjectStore {
  const found = Object.getPrototypeOf(
    db.transaction("reports").objectStore("reports"),
  ) as IDBObjectStore;
  db.close();
  return found;
}
