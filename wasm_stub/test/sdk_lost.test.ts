// What goes wrong around the client: a database that vanishes with its charges, a no from a tab that
// had not begun, options that are not what their types say (docs/protocol.md section 14).
import assert from "node:assert/strict";
import { test } from "node:test";

import { readConfig, type Options } from "../src/sdk/config.js";
import { ENDPOINT, PINS, round } from "./sdk_rounds.js";
import { settle, World } from "./sdk_world.js";

function drop(world: World): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = world.idb.deleteDatabase(`dandelion ${ENDPOINT}`);
    request.onsuccess = () => resolve();
    request.onerror = () => reject(request.error!);
  });
}

test("a round whose charge was deleted with the database is not sent", async () => {
  const world = new World();
  world.rounds = [round()];
  const first = world.tab();
  await first.client.ready;
  await drop(world);
  first.leave();
  await settle();
  assert.equal(world.posts.length, 0);
});

test("a database that is deleted while a round is held: two tabs, one body", async () => {
  const world = new World();
  world.rounds = [round()];
  const first = world.tab();
  await first.client.ready;
  await drop(world);
  const second = world.tab();
  await second.client.ready;
  first.leave();
  second.leave();
  await settle();
  assert.equal(world.bodies(world.rounds[0]!).length, 1);
});

test("a no in a tab that was never granted stops the others", async () => {
  const world = new World();
  world.rounds = [round()];
  const first = world.tab();
  await first.client.ready;
  const second = world.tab({ consent: "pending" });
  await second.client.setConsent(false);
  await settle();
  await first.client.record("flight", { carrier: "AA" });
  first.leave();
  await settle();
  assert.deepEqual([world.posts.length, (await world.all("events")).length], [0, 0]);
});

test("a tab that starts with a no stops the others", async () => {
  const world = new World();
  world.rounds = [round()];
  const first = world.tab();
  await first.client.ready;
  const second = world.tab({ consent: "denied" });
  await second.client.ready;
  await settle();
  await first.client.record("flight", { carrier: "AA" });
  first.leave();
  await settle();
  assert.deepEqual([world.posts.length, (await world.all("events")).length], [0, 0]);
});

for (const name of ["cohortMin", "periodS", "epsilonRound", "delta", "participation"]) {
  for (const value of [null, "", [], true, "7"]) {
    test(`a policy whose ${name} ${JSON.stringify(value)} is refused`, () => {
      const options = {
        endpoint: ENDPOINT,
        config: PINS,
        policy: { [name]: value },
      } as unknown as Options;
      assert.throws(() => readConfig(options));
    });
  }
}
