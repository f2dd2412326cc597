// What the running client needs of the world around it (`client`), and what a browser gives.

import type { Bytes, Kernel } from "../kernel/kernel.js";
import type { Options } from "./config.js";
import type { RandomBytes } from "./random.js";

export type Joining = typeof import("./joining.js");

/** The world around the client. */
export interface Env {
  readonly idb: IDBFactory | undefined;
  readonly fetch: typeof fetch;
  /** What it takes to answer a round. */
  readonly joining: () => Promise<Joining>;
  /** Loads a kernel that has these suites. */
  readonly kernel: (joining: Joining, suites: readonly number[]) => Promise<Kernel>;
  /** The words for receipts. */
  readonly words: () => Promise<Pick<typeof import("./explain.js"), "explainReceipt">>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly random: RandomBytes;
  readonly locks: LockManager | undefined;
  /** Whether the person's browser says no by Global Privacy Control. */
  readonly gpc: () => boolean;
  /** Whether somebody may leave, so that reports are held until then. */
  readonly holds: boolean;
  /** Whether that has happened already. */
  readonly hidden: () => boolean;
  /** Calls when the page is hidden or left; returns how to stop. */
  readonly onLeave: (leave: () => void) => () => void;
  /** Whether `fetch` can outlive the page, and what to use if it cannot. */
  readonly keepalive: boolean;
  readonly beacon: ((url: string, body: Bytes) => void) | undefined;
  /** Calls at a Unix time in seconds, and forgets the call before; with 0 it only forgets. */
  readonly wake: (at: number, run: () => void) => void;
  readonly sleep: (milliseconds: number) => Promise<void>;
  readonly channel: ((name: string) => BroadcastChannel) | undefined;
}

/** A timer takes no more than 2^31 - 1 milliseconds. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** What page, worker and extension have in common. Nobody leaves, so nothing is held. */
export function commonEnv(joining: Env["joining"]): Env {
  let timer: ReturnType<typeof setTimeout> | undefined;
  // In an insecure context there is no storage worth the name and no way to keep a promise.
  const secure = globalThis.isSecureContext !== false;
  return {
    idb: secure ? globalThis.indexedDB : undefined,
    fetch: (...call) => fetch(...call),
    joining,
    kernel: ({ loadKernel }, suites) => loadKernel(suites),
    words: () => import("./explain.js"),
    now: () => Date.now(),
    random: (array) => crypto.getRandomValues(array),
    locks: navigator.locks,
    gpc: () => !!(navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl,
    holds: false,
    hidden: () => false,
    onLeave: () => () => {},
    keepalive: "keepalive" in Request.prototype,
    beacon: undefined,
    wake: (at, run) => {
      clearTimeout(timer);
      const wait = Math.min(Math.max(0, at * 1000 - Date.now()), TIMER_MAX_MS);
      if (at) timer = setTimeout(run, wait);
    },
    sleep: (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds)),
    channel: globalThis.BroadcastChannel && ((name) => new BroadcastChannel(name)),
  };
}

/** A page: reports are held until it is hidden or left. */
export function pageEnv({ beacon }: Options, joining: Env["joining"]): Env {
  return {
    ...commonEnv(joining),
    holds: true,
    hidden: () => document.visibilityState === "hidden",
    // Never `unload` or `beforeunload`: a page that listens to them is not kept for going back.
    onLeave: (leave) => {
      const hide = (): void => {
        if (document.visibilityState === "hidden") leave();
      };
      document.addEventListener("visibilitychange", hide);
      addEventListener("pagehide", leave);
      return () => {
        document.removeEventListener("visibilitychange", hide);
        removeEventListener("pagehide", leave);
      };
    },
    beacon: beacon
      ? (url, body) => void navigator.sendBeacon(url, new Blob([body], { type: "text/plain" }))
      : undefined,
  };
}
