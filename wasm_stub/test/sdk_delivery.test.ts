// Sending until an answer is final: the same bytes, patiently (docs/protocol.md 10, 12 and 14).
import assert from "node:assert/strict";
import { test } from "node:test";

import type { Report } from "../src/sdk/store.js";
import { backoff, visit } from "../src/sdk/transport.js";
import { round } from "./sdk_rounds.js";
import { listing, problem, settle, World, type Behaviour, type Tab } from "./sdk_world.js";

/** A page that sends its report and gets these answers, one after the other. */
async function sending(...answers: Behaviour[]): Promise<{ world: World; tab: Tab }> {
  const world = new World();
  world.rounds = [round()];
  world.onPost = () => (answers.shift() ?? (() => world.take(world.posts.at(-1)!.body)))();
  const tab = world.tab({ holdS: 0 });
  await tab.client.ready;
  return { world, tab };
}

const lost: Behaviour = () => Promise.reject(new TypeError("lost"));

test("a retry is the same bytes", async () => {
  const { world, tab } = await sending(lost, () => problem("overloaded", 503));
  await tab.wake();
  await tab.wake();
  assert.equal(world.posts.length, 3);
  assert.equal(world.bodies(world.rounds[0]!).length, 1);
  const last = tab.told.at(-1)!;
  assert.deepEqual([last.outcome, last.attempts], ["accepted", 3]);
  assert.deepEqual(await world.all("reports"), []);
});

test("a lost acknowledgement: the second answer says duplicate, and it counts once", async () => {
  const { world, tab } = await sending();
  assert.equal(tab.told.at(-1)!.outcome, "accepted");
  const other = new World();
  other.rounds = [round()];
  let answers = 0;
  other.onPost = () => {
    const answer = other.take(other.posts.at(-1)!.body);
    return answers++ ? answer : lost();
  };
  const page = other.tab({ holdS: 0 });
  await page.client.ready;
  await page.wake();
  assert.equal(page.told.at(-1)!.outcome, "duplicate");
  assert.equal(other.taken.size, world.taken.size);
});

for (const [token, status] of [
  ["round_closed", 409],
  ["unknown_round", 404],
  ["report_conflict", 409],
  ["bad_length", 400],
  ["forbidden", 403],
  ["expired", 410],
] as const) {
  test(`a final refusal ends it: ${token}`, async () => {
    const { world, tab } = await sending(() => problem(token, status));
    const last = tab.told.at(-1)!;
    assert.deepEqual([last.outcome, last.token], ["rejected", token]);
    assert.deepEqual(await world.all("reports"), []);
    await tab.client.flush({ early: true });
    assert.equal(world.posts.length, 1);
  });
}

for (const [token, status] of [
  ["overloaded", 503],
  ["draining", 503],
  ["store_unavailable", 503],
  ["internal", 500],
  ["not_open", 409],
  ["request_timeout", 408],
  ["too_many_keys", 429],
] as const) {
  test(`a passing refusal leaves it waiting: ${token}`, async () => {
    const { world, tab } = await sending(() => problem(token, status));
    const last = tab.told.at(-1)!;
    assert.deepEqual([last.outcome, last.token, last.attempts], ["waiting", token, 1]);
    await tab.wake();
    assert.equal(tab.told.at(-1)!.outcome, "accepted");
    assert.equal(world.bodies(world.rounds[0]!).length, 1);
  });
}

const html = { headers: { "content-type": "text/html" } };
const json = { headers: { "content-type": "application/json" } };
const NOT_FINAL: [string, () => Response][] = [
  ["a page that says 404", () => new Response("<h1>Not Found</h1>", { status: 404, ...html })],
  ["a login page that says 200", () => new Response("<form>", { status: 200, ...html })],
  ["200 without a result", () => Response.json({ result: "accepted" })],
  ["a token with another status", () => problem("round_closed", 400)],
  ["an unknown token", () => problem("go_away", 409)],
  ["an inherited name", () => problem("constructor", 409)],
  ["no token", () => problem("", 409)],
  ["a problem without its media type", () =>
    new Response(`{"type":"urn:dandelion:problem:round_closed"}`, { status: 409, ...json })],
  ["a problem of another kind", () =>
    new Response(`{"type":"about:blank"}`, {
      status: 409,
      headers: { "content-type": "application/problem+json" },
    })],
  ["nothing at all", () => new Response(null, { status: 204 })],
];

for (const [what, answer] of NOT_FINAL) {
  test(`not an answer of a collector, so the report waits: ${what}`, async () => {
    const { world, tab } = await sending(answer);
    const last = tab.told.at(-1)!;
    assert.deepEqual([last.outcome, last.token], ["waiting", ""]);
    assert.match(last.detail, /^status \d+$/);
    assert.equal((await world.all("reports")).length, 1);
  });
}

test("Retry-After is obeyed, with jitter on top", async () => {
  const waits = new Set<number>();
  for (let turn = 0; turn < 5; turn++) {
    const overloaded = (): Response => problem("overloaded", 503, { "retry-after": "77" });
    const { world } = await sending(overloaded);
    const [stored] = await world.all<Report>("reports");
    const wait = stored!.notBefore - world.now / 1000;
    assert.ok(wait >= 77 && wait <= 78, `${wait}`);
    waits.add(wait);
  }
  assert.ok(waits.size > 1);
});

test("a page that comes earlier than that leaves the collector alone", async () => {
  const { world, tab } = await sending(() => problem("draining", 503, { "retry-after": "1000" }));
  tab.kill();
  world.now += 500_000;
  await world.tab().client.flush();
  assert.equal(world.posts.length, 1);
  world.now += 600_000;
  await world.tab().client.flush();
  assert.equal(world.posts.length, 2);
});

test("a report that is never acknowledged is deleted when its round is over", async () => {
  const { world, tab } = await sending(lost);
  world.onPost = lost;
  world.now = world.rounds[0]!.descriptor.expires * 1000;
  await tab.client.flush();
  assert.equal(tab.told.at(-1)!.outcome, "lapsed");
  assert.equal(world.posts.length, 1);
  assert.deepEqual(await world.all("reports"), []);
});

test("so is one whose page was killed before it was made", async () => {
  const world = new World();
  world.rounds = [round()];
  const tab = world.tab();
  await tab.client.ready;
  tab.kill();
  world.now = world.rounds[0]!.descriptor.expires * 1000;
  world.rounds = [];
  const next = world.tab();
  await next.client.ready;
  const [about] = await next.client.receipts();
  assert.deepEqual([about!.outcome, about!.bytesSent], ["lapsed", 0]);
  assert.ok(about!.rhoUnits > 0);
});

test("the window says when to ask again, and no page asks before", async () => {
  const world = new World();
  world.window = "1800000100 1800000200";
  const tab = world.tab();
  await tab.client.ready;
  const at = tab.wakes!.at - 1_800_000_000;
  assert.ok(at >= 100 && at <= 201, `${at}`);
  await tab.client.flush();
  await world.tab().client.ready;
  assert.equal(world.listings, 1);
  await tab.client.flush({ early: true });
  assert.equal(world.listings, 2);
  await tab.wake();
  assert.equal(world.listings, 3);
});

test("a collector that names no window is asked again within a quarter of an hour", async () => {
  const times = new Set<number>();
  for (let turn = 0; turn < 5; turn++) {
    const world = new World();
    world.window = "whenever";
    const tab = world.tab();
    await tab.client.ready;
    const wait = tab.wakes!.at - world.now / 1000;
    assert.ok(wait <= 901);
    times.add(wait);
  }
  assert.ok(times.size > 1);
});

test("visits are spread evenly over the window", () => {
  const tenths = new Array<number>(10).fill(0);
  for (let i = 0; i < 20_000; i++) {
    const drawn = visit([1000, 2000], 0, (i * 0.618033988749895) % 1);
    tenths[Math.min(9, Math.floor((drawn - 1000) / 100))]!++;
  }
  assert.ok(Math.max(...tenths) < 2500);
});

test("a window that makes no sense is bounded: not the past, not more than a day away", () => {
  for (const window of [[0, 5], [900, 990], [2 ** 40, 2 ** 41]] as const) {
    const at = visit(window, 1000, 0.5);
    assert.ok(at >= 1000 && at <= 1000 + 86_400);
  }
});

test("back-off doubles its bound up to a minute; a day is the most a server can ask", () => {
  const bounds = [1, 2, 3, 6, 7, 500].map((attempt) => backoff(() => 1, attempt));
  assert.deepEqual(bounds, [1, 2, 4, 32, 60, 60]);
  assert.equal(backoff(() => 0, 5), 0);
  assert.equal(backoff(() => 1, 1, 10 ** 9), 86_401);
});

test("a list that cannot be had is asked for again, and a receipt says why", async () => {
  const world = new World();
  world.window = "never";
  world.onListing = () => new Response("busy", { status: 503, headers: { "retry-after": "9" } });
  const tab = world.tab();
  await tab.client.ready;
  assert.deepEqual(
    [tab.told[0]!.outcome, tab.told[0]!.detail],
    ["unreachable", "status 503"],
  );
  assert.deepEqual(tab.client.faults(), { listing: 1 });
  assert.ok(tab.wakes!.at - world.now / 1000 >= 9);
  for (let turn = 2; turn < 7; turn++) {
    await tab.wake();
    assert.equal(world.listings, turn);
  }
  world.onListing = () => listing([round()]);
  await tab.wake();
  assert.equal(tab.told.at(-1)!.outcome, "waiting");
});

test("receipts tell the whole story, oldest first", async () => {
  const world = new World();
  world.rounds = [round(1), round(2, { cohortMin: 5 })];
  const tab = world.tab();
  await tab.client.ready;
  tab.leave();
  await settle();
  world.now += 5000;
  world.rounds = [round(3)];
  await tab.client.flush({ early: true });
  const story = (await tab.client.receipts()).map((each) => [each.outcome, each.token]);
  assert.deepEqual(story.sort(), [
    ["accepted", ""],
    ["accepted", ""],
    ["refused", "floor_cohort"],
  ]);
  const [first] = await tab.client.receipts();
  assert.equal(first!.epsilon, "1");
});
