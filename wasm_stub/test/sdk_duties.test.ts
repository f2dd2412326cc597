// The client's duties in their order (docs/protocol.md 14), and what breaks without them.
import assert from "node:assert/strict";
import { test } from "node:test";

import { hex } from "../src/protocol/encoding.js";
import type { Policy } from "../src/sdk/config.js";
import type { Fields } from "../src/sdk/events.js";
import { inside, noiseFor, PINS, PLAN, round, type Changes } from "./sdk_rounds.js";
import { kernel, listing, problem, settle, World, type Tab } from "./sdk_world.js";

/** Two rounds of epsilon 1 and a little more, but not three. */
const TWO_ROUNDS: Policy = { epsilonPeriod: 1.45 };
const NOW_MS = 1_800_000_000_000;

/** A page that records, joins and is left. */
async function visit(world: World, rows: Fields[] = []): Promise<Tab> {
  const tab = world.tab();
  for (const row of rows) await tab.client.record("flight", row);
  await tab.client.ready;
  tab.leave();
  await settle();
  return tab;
}

test("the report holds what the plan says of the recorded rows", async () => {
  const world = new World();
  world.rounds = [round()];
  await visit(world, [{ carrier: "UA" }, { carrier: "UA" }, { carrier: "AA" }, { carrier: "ZZ" }]);
  assert.equal(world.posts.length, 1);
  assert.deepEqual(inside(world.rounds[0]!, world.posts[0]!.body, world.secrets), [1, 2]);
});

for (const rows of [[], [{ carrier: "ZZ" }], [{ origin: "JFK" }], [{ carrier: null }]]) {
  test(`who takes part always sends: ${JSON.stringify(rows)} gives zeros`, async () => {
    const world = new World();
    world.rounds = [round()];
    await visit(world, rows);
    assert.equal(world.posts.length, 1);
    const { body } = world.posts[0]!;
    assert.equal(body.length, world.rounds[0]!.descriptor.reportBytes);
    assert.deepEqual(inside(world.rounds[0]!, body, world.secrets), [0, 0]);
  });
}

test("more rows than the plan allows: as many as it allows, drawn at random", async () => {
  const seen = new Set<string>();
  for (let turn = 0; turn < 24 && seen.size < 2; turn++) {
    const world = new World();
    world.rounds = [round()];
    const rows = ["AA", "AA", "AA", "UA", "UA", "UA"].map((carrier) => ({ carrier }));
    await visit(world, rows);
    const vector = inside(world.rounds[0]!, world.posts[0]!.body, world.secrets);
    assert.equal(vector[0]! + vector[1]!, PLAN.rows_max);
    seen.add(vector.join());
  }
  assert.ok(seen.size > 1, "the same rows were drawn 24 times");
});

test("participation does not depend on data", async () => {
  const outcomes = async (rows: { carrier: string }[]): Promise<string[]> => {
    const world = new World();
    world.rounds = Array.from({ length: 12 }, (_, i) => round(i + 1));
    // The same coins for both: every draw of one word is a half below, then above one half.
    let drawn = 0;
    const tab = world.tab(
      { policy: { participation: 0.5, epsilonPeriod: 100 }, holdS: 0 },
      {
        random: (array) => {
          crypto.getRandomValues(array);
          if (array instanceof Uint32Array) array[0] = (drawn++ * 0x9e3779b1) >>> 0;
          return array;
        },
      },
    );
    for (const row of rows) await tab.client.record("flight", row);
    await tab.client.ready;
    await settle();
    return tab.told.filter((each) => each.attempts === 0).map((each) => each.round + each.outcome);
  };
  const [full, empty] = [await outcomes([{ carrier: "AA" }]), await outcomes([])];
  assert.deepEqual(full, empty);
  assert.deepEqual(
    new Set(full.map((each) => each.slice(32))),
    new Set(["waiting", "skipped"]),
  );
});

/** One round is offered twenty times to a client that takes part in one of two. */
async function offers(forget: boolean): Promise<World> {
  const world = new World();
  world.rounds = [round()];
  let drawn = 0;
  const coin = [0.9, 0.9, 0.9, 0.1];
  const tab = world.tab(
    { policy: { participation: 0.5 } },
    {
      random: (array) => {
        crypto.getRandomValues(array);
        if (array instanceof Uint32Array) array[0] = coin[drawn++ % coin.length]! * 2 ** 32;
        return array;
      },
    },
  );
  await tab.client.ready;
  for (let offer = 0; offer < 20; offer++) {
    if (forget) {
      const db = await world.open();
      db.transaction("decisions", "readwrite").objectStore("decisions").clear();
      db.close();
    }
    await tab.client.flush({ early: true });
  }
  return world;
}

test("the coin of a round is tossed once: what was skipped stays skipped", async () => {
  const world = await offers(false);
  assert.equal(world.listings, 21);
  assert.equal(world.posts.length, 0);
});

test("control: a coin that is forgotten always falls in the end", async () => {
  const world = await offers(true);
  assert.ok(world.posts.length > 0);
});

test("the ledger is charged before the first send, whatever happens next", async () => {
  const world = new World();
  world.rounds = [round()];
  world.onPost = () => Promise.reject(new TypeError("gone"));
  const tab = await visit(world);
  assert.deepEqual(
    world.posts.map((each) => each.charged),
    [true],
  );
  assert.equal(await world.spent(), world.rounds[0]!.cost);
  assert.equal(tab.told.at(-1)!.outcome, "waiting");
});

for (const [token, status] of [
  ["round_closed", 409],
  ["internal", 500],
] as const) {
  test(`no answer of the collector refunds anything: ${token}`, async () => {
    const world = new World();
    world.rounds = [round()];
    world.onPost = () => problem(token, status);
    await visit(world);
    assert.equal(await world.spent(), world.rounds[0]!.cost);
  });
}

/** Reports a collector gets that refuses each one and opens the next round. */
async function farm(forget: boolean): Promise<number> {
  const world = new World();
  world.onPost = () => problem("round_closed", 409);
  for (let number = 1; number <= 6; number++) {
    world.rounds = [round(number)];
    if (forget && number > 1) {
      const db = await world.open();
      db.transaction("decisions", "readwrite").objectStore("decisions").clear();
      db.close();
    }
    const tab = world.tab({ policy: TWO_ROUNDS });
    await tab.client.flush({ early: true });
    tab.client.close();
  }
  return world.posts.length;
}

test("a refused report is made again only if the ledger pays again", async () => {
  assert.equal(await farm(false), 2);
});

test("control: without a ledger refused reports could be farmed", async () => {
  assert.equal(await farm(true), 6);
});

test("an exhausted budget says so and sends nothing", async () => {
  const world = new World();
  world.rounds = [round(1), round(2), round(3)];
  const tab = world.tab({ policy: TWO_ROUNDS });
  await tab.client.ready;
  tab.leave();
  await settle();
  assert.equal(world.posts.length, 2);
  const refused = tab.told.filter((each) => each.outcome === "refused");
  assert.deepEqual(
    refused.map((each) => [each.round, each.token]),
    [[world.rounds[2]!.id, "budget_exhausted"]],
  );
});

test("scopes of a collector share one allowance", async () => {
  const world = new World();
  world.rounds = [1, 2, 3, 4].map((number) => round(number, { scope: `scope-${number}` }));
  const tab = world.tab({ policy: TWO_ROUNDS });
  await tab.client.flush();
  assert.equal(world.posts.length, 2);
});

test("after a period old charges no longer count", async () => {
  const world = new World();
  world.rounds = [round(1), round(2)];
  await world.tab({ policy: { ...TWO_ROUNDS, periodS: 86_400 } }).client.flush();
  assert.equal(world.posts.length, 2);
  world.now += 86_400_000;
  const now = world.now / 1000;
  world.rounds = [round(4, { opens: now, closes: now + 60, expires: now + 90 })];
  const later = world.tab({ policy: { ...TWO_ROUNDS, periodS: 86_400 } });
  await later.client.flush({ early: true });
  assert.equal(world.posts.length, 3);
});

test("a round is answered once, however often it is listed", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = await visit(world);
  await tab.client.flush({ early: true });
  await world.tab().client.flush({ early: true });
  assert.equal(world.posts.length, 1);
  assert.equal(await world.spent(), world.rounds[0]!.cost);
});

test("a round that was answered is not judged again after its end", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = await visit(world);
  world.now = (world.rounds[0]!.descriptor.closes + 301) * 1000;
  await tab.client.flush({ early: true });
  assert.ok(!tab.told.some((each) => each.outcome === "refused"));
  world.rounds = [round(2)];
  await tab.client.flush({ early: true });
  assert.equal(tab.told.at(-1)!.token, "round_closed");
});

test("the ephemeral key is never stored, and the body is", async () => {
  const world = new World();
  world.rounds = [round()];
  world.onPost = () => Promise.reject(new TypeError("gone"));
  await visit(world, [{ carrier: "UA" }]);
  const names = ["decisions", "events", "reports", "receipts", "meta"];
  const kept = JSON.stringify(await Promise.all(names.map((name) => world.all(name))), (_, value) =>
    value instanceof Uint8Array ? hex(value) : (value as unknown),
  );
  assert.ok(kept.includes(hex(world.posts[0]!.body)));
  const secret = world.secrets.of(world.posts[0]!.body.subarray(17, 49));
  assert.ok(!kept.includes(hex(secret)));
});

test("every report has a key of its own", async () => {
  const world = new World();
  world.rounds = [round(1), round(2)];
  await visit(world, [{ carrier: "UA" }]);
  const other = new World();
  other.rounds = world.rounds;
  await visit(other, [{ carrier: "UA" }]);
  const keys = [...world.posts, ...other.posts].map(({ body }) => hex(body.subarray(17, 49)));
  assert.equal(new Set(keys).size, 4);
});

test("all bodies of one leaving page go out together, after all plans have run", async () => {
  const world = new World();
  world.rounds = [round(1), round(2), round(3)];
  const order: string[] = [];
  const tab = world.tab(
    {},
    {
      random: (array) => {
        if (array.byteLength === 32) order.push("mask");
        return crypto.getRandomValues(array);
      },
      fetch: ((_: string, init: RequestInit) => {
        if (init.method !== "POST") return Promise.resolve(listing(world.rounds));
        order.push("send");
        return Promise.resolve(Response.json({ result: "accepted" }, { status: 201 }));
      }) as typeof fetch,
    },
  );
  await tab.client.ready;
  tab.leave();
  assert.deepEqual(order, ["mask", "mask", "mask", "send", "send", "send"]);
  await settle();
});

for (const took of [0, 3, 400, 999]) {
  test(`on a page that stays, a plan of ${took} ms is sent at a whole second`, async () => {
    const world = new World();
    world.rounds = [round()];
    const tab = world.tab(
      { holdS: 0 },
      {
        random: (array) => {
          // The last thing before masking.
          if (array.byteLength === 32) world.now += took;
          return crypto.getRandomValues(array);
        },
      },
    );
    await tab.client.ready;
    assert.equal(world.posts.length, 1);
    assert.equal(world.now, NOW_MS + 1000);
  });
}

const WRONG: [string, Changes, string][] = [
  ["a helper of another name", { helpers: ["a", "mallory"] }, "pin_mismatch"],
  ["a helper more", { helpers: ["a", "b", "c"] }, "pin_mismatch"],
  ["another collector", { collector: "mallory" }, "pin_mismatch"],
  ["less noise than promised", { noiseVar: noiseFor(16) - 1 }, "floor_noise"],
  ["a small cohort", { cohortMin: 999 }, "floor_cohort"],
  ["a long life", { expires: 1_800_000_000 + 7 * 86_400 }, "floor_time"],
  ["a plan with other slots", { slots: 3 }, "bad_plan"],
  ["a plan beyond its bounds", { plan: { ...PLAN, rows_max: 5 } }, "bad_plan"],
  ["a promise that floats cannot hold", { plan: { ...PLAN, epsilon: "1e-99" } }, "bad_plan"],
  ["a plan of another kind", { plan: { ...PLAN, kind: "model" } }, "bad_plan"],
  ["a round of tomorrow", { opens: 1_800_000_301, closes: 1_800_000_600 }, "not_open"],
  ["a round of yesterday", { opens: 1_799_999_100, closes: 1_799_999_700 }, "round_closed"],
];

for (const [what, changes, token] of WRONG) {
  test(`${what} is refused with ${token}; nothing is read, charged or sent`, async () => {
    const world = new World();
    world.rounds = [round(1, changes), round(2)];
    const tab = await visit(world);
    const refused = tab.told.filter((each) => each.outcome === "refused");
    assert.deepEqual(
      refused.map((each) => each.token),
      [token],
    );
    // The control is the honest round beside it.
    assert.deepEqual(
      world.posts.map((each) => each.round),
      [world.rounds[1]!.id],
    );
    assert.equal(await world.spent(), world.rounds[1]!.cost);
  });
}

for (const [suites, sent] of [
  [undefined, 1],
  [[1], 0],
  [[1, 2], 1],
  [[2], 1],
] as const) {
  test(`a round of suite 2 where ${suites?.join(" or ") ?? "nothing"} is pinned`, async () => {
    const world = new World();
    world.rounds = [round(1, { suite: 2 })];
    let asked: readonly number[] = [];
    const tab = world.tab(
      { config: { ...PINS, ...(suites && { suites }) } },
      {
        kernel: (_, wanted) => {
          asked = wanted;
          return Promise.resolve(kernel);
        },
      },
    );
    await tab.client.flush();
    assert.equal(world.posts.length, sent);
    // What it may need is in the envelope, so that most pages load one kernel only.
    assert.deepEqual(asked, [2]);
  });
}

for (const changes of [
  { opens: 1_800_000_300, closes: 1_800_000_600 },
  { opens: 1_799_999_100, closes: 1_799_999_701 },
]) {
  test(`a clock may be five minutes off: ${JSON.stringify(changes)}`, async () => {
    const world = new World();
    world.rounds = [round(1, changes)];
    await world.tab().client.flush();
    assert.equal(world.posts.length, 1);
  });
}

test("another descriptor under the same id gets nothing; under its own it does", async () => {
  for (const [ids, token] of [
    [[round(2).id], "wrong_round"],
    [[round(1).id], ""],
  ] as const) {
    const world = new World();
    world.onListing = () => listing([round(1)], [...ids]);
    const tab = world.tab();
    await tab.client.flush();
    assert.equal(world.posts.length, token ? 0 : 1);
    assert.equal(tab.told[0]!.token, token);
  }
});

test("a page gets its turn before each signature that is verified", async () => {
  const world = new World();
  world.rounds = [round(1), round(2)];
  const tab = world.tab();
  await tab.client.ready;
  assert.equal(tab.pauses, 6);
});

test("any flipped bit of an envelope is refused", async () => {
  const honest = round();
  const seed = Math.floor(Math.random() * 2 ** 32);
  for (let turn = 0; turn < 40; turn++) {
    const at = (seed + turn * 7919) % honest.envelope.length;
    const envelope = honest.envelope.slice();
    envelope[at]! ^= 1 << turn % 8;
    const world = new World();
    world.onListing = () => listing([{ ...honest, envelope }]);
    const tab = world.tab();
    await tab.client.flush();
    assert.equal(world.posts.length, 0, `seed ${seed}, byte ${at}`);
    assert.equal(tab.told[0]!.outcome, "refused", `seed ${seed}, byte ${at}`);
  }
});
