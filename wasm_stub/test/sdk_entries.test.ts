// The entry points in worlds that have just what a page, a worker and an extension have.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { IDBFactory } from "fake-indexeddb";

import { init as initExtension } from "../src/extension.js";
import { init as initPage } from "../src/index.js";
import type { Options } from "../src/sdk/config.js";
import { init as initWorker } from "../src/worker.js";
import { ENDPOINT, PINS, round, type Round } from "./sdk_rounds.js";
import { listing, settle } from "./sdk_world.js";

const saved = new Map<string, PropertyDescriptor | undefined>();

/** Defines a global for one story. */
function define(name: string, value: unknown): void {
  if (!saved.has(name)) saved.set(name, Object.getOwnPropertyDescriptor(globalThis, name));
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}

let posts: RequestInit[] = [];
let open: Round;

beforeEach(() => {
  posts = [];
  const now = Math.floor(Date.now() / 1000);
  open = round(1, { opens: now - 60, closes: now + 3600, expires: now + 7200 });
  define("navigator", {});
  define("indexedDB", new IDBFactory());
  define("fetch", (_: string, init: RequestInit) => {
    if (init.method !== "POST") return Promise.resolve(listing([open]));
    posts.push(init);
    return Promise.resolve(Response.json({ result: "accepted" }, { status: 201 }));
  });
});

afterEach(() => {
  for (const [name, before] of saved) {
    if (before) Object.defineProperty(globalThis, name, before);
    else delete (globalThis as Record<string, unknown>)[name];
  }
  saved.clear();
});

const OPTIONS: Options = { endpoint: ENDPOINT, config: PINS, consent: "granted" };

/** A document that can be hidden, and a window that can be left. */
function page(): { document: EventTarget & { visibilityState: string }; window: EventTarget } {
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const window = new EventTarget();
  define("document", document);
  define("addEventListener", window.addEventListener.bind(window));
  define("removeEventListener", window.removeEventListener.bind(window));
  return { document, window };
}

test("a page sends when it is hidden, not when it is shown", async () => {
  const { document } = page();
  const client = initPage(OPTIONS);
  await client.ready;
  document.dispatchEvent(new Event("visibilitychange"));
  assert.equal(posts.length, 0);
  document.visibilityState = "hidden";
  document.dispatchEvent(new Event("visibilitychange"));
  assert.equal(posts.length, 1);
  assert.equal(posts[0]!.keepalive, true);
  await settle();
  client.close();
});

test("a page sends when it is left, and a closed client hears of nothing", async () => {
  const { window } = page();
  const client = initPage(OPTIONS);
  await client.ready;
  window.dispatchEvent(new Event("pagehide"));
  assert.equal(posts.length, 1);
  await settle();
  client.close();
  window.dispatchEvent(new Event("pagehide"));
  assert.equal(posts.length, 1);
});

test("a beacon carries the bytes as text, so that no preflight is needed", async () => {
  const { window } = page();
  const beacons: [string, Blob][] = [];
  define("navigator", { sendBeacon: (url: string, blob: Blob) => beacons.push([url, blob]) });
  define("Request", class {});
  const client = initPage({ ...OPTIONS, beacon: true });
  await client.ready;
  window.dispatchEvent(new Event("pagehide"));
  assert.equal(posts.length, 0);
  const [[url, blob]] = beacons as [[string, Blob]];
  assert.equal(url, `${ENDPOINT}/v1/rounds/${open.id}/reports`);
  assert.deepEqual([blob.type, blob.size], ["text/plain", open.descriptor.reportBytes]);
  client.close();
});

test("an insecure page keeps and sends nothing", async () => {
  page();
  define("isSecureContext", false);
  const client = initPage(OPTIONS);
  await client.record("flight", { carrier: "AA" });
  await client.ready;
  client.leave();
  assert.equal(posts.length, 0);
  assert.deepEqual(client.faults(), { store: 1 });
  client.close();
});

test("Global Privacy Control of the browser is heard", async () => {
  const { window } = page();
  define("navigator", { globalPrivacyControl: true });
  const client = initPage(OPTIONS);
  await client.ready;
  window.dispatchEvent(new Event("pagehide"));
  assert.equal(posts.length, 0);
  client.close();
});

test("a worker has no document, holds nothing, and sends at a whole second", async () => {
  const client = initWorker(OPTIONS);
  await client.record("flight", { carrier: "AA" });
  await client.ready;
  assert.equal(posts.length, 1);
  assert.deepEqual(client.faults(), {});
  client.close();
});

interface Alarm {
  readonly name: string;
  readonly when: number;
}

/** `chrome.alarms` of an extension. */
function alarms(): { set: Alarm[]; ring: (name: string) => void; cleared: string[] } {
  const set: Alarm[] = [];
  const cleared: string[] = [];
  const heard: ((alarm: { name: string }) => void)[] = [];
  define("chrome", {
    alarms: {
      create: (name: string, { when }: { when: number }) => set.push({ name, when }),
      clear: (name: string) => cleared.push(name),
      onAlarm: {
        addListener: (listener: (alarm: { name: string }) => void) => heard.push(listener),
      },
    },
  });
  return { set, ring: (name) => heard.forEach((each) => each({ name })), cleared };
}

test("an extension's worker is woken by an alarm, and only by its own", async () => {
  const clock = alarms();
  const client = initExtension(OPTIONS);
  await client.ready;
  assert.equal(posts.length, 1);
  const { name, when } = clock.set.at(-1)!;
  assert.ok(when > Date.now());
  const asked = clock.set.length;
  clock.ring("another");
  await settle();
  assert.equal(clock.set.length, asked);
  clock.ring(name);
  await settle();
  assert.equal(clock.set.length, asked + 1);
  client.close();
  assert.deepEqual(clock.cleared, [name]);
});

test("a row that an extension has recorded outlives its worker", async () => {
  alarms();
  const first = initExtension({ ...OPTIONS, consent: "granted" });
  await first.record("flight", { carrier: "AA" });
  // The worker ends here; the next one finds the row.
  const request = indexedDB.open(`dandelion ${ENDPOINT}`);
  const db = await new Promise<IDBDatabase>((resolve) => {
    request.onsuccess = () => resolve(request.result);
  });
  const rows = db.transaction("events").objectStore("events").count();
  await new Promise((resolve) => (rows.onsuccess = resolve));
  assert.equal(rows.result, 1);
  db.close();
  first.close();
});

test("an extension without alarms works while it runs, and says so", async () => {
  const warnings: unknown[] = [];
  const { warn } = console;
  console.warn = (...words) => void warnings.push(...words);
  try {
    const client = initExtension(OPTIONS);
    await client.ready;
    assert.equal(posts.length, 1);
    assert.match(String(warnings[0]), /alarms/);
    client.close();
  } finally {
    console.warn = warn;
  }
});
