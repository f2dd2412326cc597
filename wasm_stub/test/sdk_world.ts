// A browser in memory: tabs over one IndexedDB, locks, a clock, and a collector that is told how to
// behave. A tab can be killed at any step; nothing of it reaches the world afterwards.

import { IDBFactory } from "fake-indexeddb";

import type { Kernel } from "../src/kernel/kernel.js";
import { loadKernel } from "../src/kernel/load.js";
import { hex } from "../src/protocol/encoding.js";
import type { Client } from "../src/sdk/api.js";
import { start } from "../src/sdk/client.js";
import type { Options } from "../src/sdk/config.js";
import type { Env } from "../src/sdk/env.js";
import type { Receipt } from "../src/sdk/receipts.js";
import { ENDPOINT, NOW, PINS, Secrets, type Round } from "./sdk_rounds.js";

// A request of a killed tab waits for ever. Its timer must not keep the process.
const setTimer = globalThis.setTimeout;
globalThis.setTimeout = ((...call: Parameters<typeof setTimeout>) =>
  setTimer(...call).unref()) as typeof setTimeout;

const verified = new Map<string, boolean>();

const loaded = await loadKernel([1, 2]);

/** A kernel that need not verify the same signature in story after story. */
export const kernel: Kernel = {
  ...loaded,
  ed25519Verify: (...signed) => {
    const key = signed.map(hex).join();
    const known = verified.get(key) ?? loaded.ed25519Verify(...signed);
    verified.set(key, known);
    return known;
  },
};

/** How a collector answers one request. */
export type Behaviour = () => Response | Promise<Response>;

export interface Post {
  readonly round: string;
  readonly body: Uint8Array;
  readonly init: RequestInit;
  /** Whether the round's charge was durable when the request left. */
  readonly charged: boolean;
}

export function problem(
  token: string,
  status: number,
  headers: Record<string, string> = {},
): Response {
  return new Response(JSON.stringify({ type: `urn:dandelion:problem:${token}`, status }), {
    status,
    headers: { "content-type": "application/problem+json", ...headers },
  });
}

/** The rounds as `GET /v1/rounds` lists them, under their own ids or others. */
export function listing(rounds: readonly Round[], ids = rounds.map((each) => each.id)): Response {
  const listed = rounds.map(({ envelope }, i) => ({
    round: ids[i],
    envelope: Buffer.from(envelope).toString("base64"),
  }));
  return Response.json({ now: NOW, rounds: listed });
}

/** Lets everything happen that waits for no clock. */
export async function settle(turns = 60): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
}

export class World {
  now = NOW * 1000;
  rounds: Round[] = [];
  readonly idb = new IDBFactory();
  readonly secrets = new Secrets();
  readonly posts: Post[] = [];
  listings = 0;
  window = `${NOW + 600} ${NOW + 1200}`;
  /** Called when a report arrives, before it is answered. */
  onPost: Behaviour | undefined;
  onListing: Behaviour | undefined;
  /** ctx of every round whose charge is durable. */
  readonly charged = new Set<string>();
  readonly taken = new Set<string>();
  /** Steps so far at which a tab may be killed, and the one at which the next tab is. */
  steps = 0;
  cut = Infinity;
  /** Whether it is told that it is being left, just before. */
  told = false;
  gpc = false;
  readonly tabs: Tab[] = [];
  readonly locks = new Map<string, Tab>();
  readonly bus = new Set<{ name: string; tab: Tab; channel: BroadcastChannel }>();

  tab(options: Partial<Options> = {}, changes: Partial<Env> = {}): Tab {
    const made = new Tab(this, options, changes);
    this.tabs.push(made);
    return made;
  }

  /** Distinct bodies that have left for a round. */
  bodies(round: Round): string[] {
    const sent = this.posts.filter((each) => each.round === round.id);
    return [...new Set(sent.map((each) => hex(each.body)))];
  }

  /** A connection of the story's own. */
  open(): Promise<IDBDatabase> {
    return new Promise((resolve, reject) => {
      const request = this.idb.open(`dandelion ${ENDPOINT}`);
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error!);
    });
  }

  /** Everything in a store of the database. */
  async all<T>(name: string): Promise<T[]> {
    const db = await this.open();
    const request = db.transaction(name).objectStore(name).getAll();
    const found = await new Promise<T[]>((resolve) => {
      request.onsuccess = () => resolve(request.result as T[]);
    });
    db.close();
    return found;
  }

  /** What has been charged, in units. */
  async spent(): Promise<number> {
    const all = await this.all<{ units: number }>("decisions");
    return all.reduce((sum, each) => sum + each.units, 0);
  }

  async answer(url: string, init: RequestInit, tab: Tab): Promise<Response> {
    if (init.method !== "POST") {
      tab.step();
      if (tab.dead) return never();
      this.listings++;
      const answer = await (this.onListing ?? (() => listing(this.rounds)))();
      if (!answer.headers.has("dandelion-window")) {
        answer.headers.set("dandelion-window", this.window);
      }
      tab.step();
      return tab.dead ? never() : answer;
    }
    const body = new Uint8Array(init.body as Uint8Array<ArrayBuffer>);
    const id = url.split("/")[5]!;
    tab.step();
    if (tab.dead) return never();
    const charged = [...this.charged].some((ctx) => ctx.startsWith(id));
    this.posts.push({ round: id, body, init, charged });
    const answer = await (this.onPost ?? (() => this.take(body)))();
    tab.step();
    return tab.dead ? never() : answer;
  }

  take(body: Uint8Array): Response {
    const again = this.taken.has(hex(body));
    this.taken.add(hex(body));
    const result = again ? "duplicate" : "accepted";
    return Response.json({ result }, { status: again ? 200 : 201 });
  }
}

export class Tab {
  readonly client: Client;
  readonly told: Receipt[] = [];
  readonly slept: number[] = [];
  /** How often the page got its turn in between. */
  pauses = 0;
  hidden = false;
  dead = false;
  wakes: { at: number; run: () => void } | undefined;
  private leaving: (() => void) | undefined;
  private readonly live = new Set<IDBTransaction>();

  constructor(
    readonly world: World,
    options: Partial<Options>,
    changes: Partial<Env>,
  ) {
    const all: Options = {
      endpoint: ENDPOINT,
      config: PINS,
      consent: "granted",
      onReceipt: (receipt) => void this.told.push(receipt),
      ...options,
    };
    this.client = start(all, { ...this.env(), ...changes });
  }

  /** Hides or leaves the page, as a browser tells it. */
  leave(): void {
    this.hidden = true;
    if (!this.dead) this.leaving?.();
  }

  /** A point at which a process may end. */
  step(): void {
    if (this.dead || this.world.steps++ !== this.world.cut) return;
    this.world.cut = Infinity;
    if (this.world.told) this.leave();
    this.kill();
  }

  kill(): void {
    this.dead = true;
    this.world.cut = Infinity;
    for (const transaction of this.live) {
      try {
        transaction.abort();
      } catch {
        // It is over already.
      }
    }
    const { locks, bus } = this.world;
    for (const [name, holder] of locks) if (holder === this) locks.delete(name);
    for (const each of bus) if (each.tab === this) bus.delete(each);
  }

  /** Lets the timer go off that the client has set. */
  async wake(): Promise<void> {
    const due = this.wakes;
    this.wakes = undefined;
    if (due && !this.dead) {
      this.world.now = Math.max(this.world.now, due.at * 1000);
      due.run();
    }
    await settle();
  }

  private env(): Env {
    const { world } = this;
    return {
      idb: this.watchedIdb(),
      fetch: ((url: string, init: RequestInit) => {
        if (this.dead) return never<Response>();
        const stopped = new Promise<Response>((_, reject) => {
          init.signal?.addEventListener("abort", () => reject(new Error("aborted")));
        });
        return Promise.race([world.answer(url, init, this), stopped]);
      }) as typeof fetch,
      joining: () => import("../src/sdk/joining.js"),
      kernel: () => Promise.resolve(kernel),
      words: () => import("../src/sdk/explain.js"),
      now: () => world.now,
      random: (array) => {
        crypto.getRandomValues(array);
        if (array.byteLength === 32) world.secrets.drawn.push(new Uint8Array(array));
        return array;
      },
      locks: {
        request: async (
          name: string,
          _: LockOptions,
          work: (lock: object | null) => Promise<void> | undefined,
        ) => {
          if (world.locks.has(name)) return work(null);
          world.locks.set(name, this);
          try {
            await work({});
          } finally {
            if (world.locks.get(name) === this) world.locks.delete(name);
          }
        },
      } as unknown as LockManager,
      gpc: () => world.gpc,
      holds: true,
      hidden: () => this.hidden,
      onLeave: (leave) => {
        this.leaving = leave;
        return () => (this.leaving = undefined);
      },
      keepalive: true,
      beacon: undefined,
      wake: (at, run) => {
        this.wakes = at ? { at, run } : undefined;
      },
      sleep: async (milliseconds) => {
        if (milliseconds) this.slept.push(milliseconds);
        else this.pauses++;
        world.now += milliseconds;
        if (this.dead) await never();
      },
      channel: (name) => this.channel(name),
    };
  }

  private channel(name: string): BroadcastChannel {
    const { bus } = this.world;
    const made = { postMessage, close, onmessage: null } as unknown as BroadcastChannel;
    const entry = { name, tab: this, channel: made };
    bus.add(entry);
    return made;

    function postMessage(data: unknown): void {
      for (const other of bus) {
        if (other === entry || other.name !== name) continue;
        const event = { data: structuredClone(data) } as MessageEvent;
        queueMicrotask(() => other.channel.onmessage?.call(other.channel, event));
      }
    }
    function close(): void {
      bus.delete(entry);
    }
  }

  /** IndexedDB with a step before every transaction, and one between its end and its news. */
  private watchedIdb(): IDBFactory {
    const open = (...call: Parameters<IDBFactory["open"]>): IDBOpenDBRequest => {
      const request = this.world.idb.open(...call);
      request.addEventListener("success", () => this.watch(request.result));
      return request;
    };
    return { open } as IDBFactory;
  }

  private watch(db: IDBDatabase): void {
    const begin = db.transaction.bind(db);
    db.transaction = (...call) => {
      this.step();
      if (this.dead) throw new Error("the page is gone");
      const transaction = begin(...call);
      const charges: string[] = [];
      this.live.add(transaction);
      const objectStore = transaction.objectStore.bind(transaction);
      transaction.objectStore = (name) => {
        const found = objectStore(name);
        if (name !== "decisions") return found;
        const put = found.put.bind(found);
        found.put = (value: { ctx: string; at: number }) => {
          if (value.at) charges.push(value.ctx);
          return put(value);
        };
        return found;
      };
      // Added before the client's own, so it runs before the client hears of it.
      transaction.addEventListener("complete", () => {
        this.live.delete(transaction);
        for (const ctx of charges) this.world.charged.add(ctx);
        this.step();
      });
      transaction.addEventListener("abort", () => this.live.delete(transaction));
      return transaction;
    };
  }
}

function never<T>(): Promise<T> {
  return new Promise(() => {});
}
