// The client in the service worker of an extension (Manifest V3): no document, and the worker may
// be ended at any time.
//
// So nothing is held: a report is made and stored in the transaction that pays for it, and an alarm
// wakes the worker for what is waiting. Call `init` at the top level of the worker's script, each
// time it starts; the manifest needs the permission `alarms` and the collector's origin.

import { kernel } from "./kernel/fallback.js";
import type { Client } from "./sdk/api.js";
import { start } from "./sdk/client.js";
import type { Options } from "./sdk/config.js";
import { commonEnv } from "./sdk/env.js";
import { explainReceipt } from "./sdk/explain.js";
import * as joining from "./sdk/joining.js";

export type * from "./sdk/types.js";

/** What is used of `chrome.alarms`. */
interface Alarms {
  create(name: string, when: { when: number }): unknown;
  clear(name: string): unknown;
  readonly onAlarm: {
    addListener(heard: (alarm: { readonly name: string }) => void): void;
  };
}

/**
 * Starts a client; see `init` of the page. `holdS` and `beacon` mean nothing here. Await the
 * promise of `record` in the event handler that calls it, so that the worker is not ended before.
 */
export function init(options: Options): Client {
  const { chrome } = globalThis as { chrome?: { alarms?: Alarms } };
  const alarms = chrome?.alarms;
  // A service worker cannot load anything later: `import()` is forbidden there.
  const common = {
    ...commonEnv(() => Promise.resolve(joining)),
    kernel: (_: unknown, suites: readonly number[]) =>
      joining.loadKernel(suites).catch(() => kernel),
    words: () => Promise.resolve({ explainReceipt }),
  };
  if (!alarms) {
    console.warn("dandelion: without the permission `alarms` nothing wakes this worker");
    return start(options, common);
  }
  const name = `dandelion ${options.endpoint}`;
  let due = (): void => {};
  // Heard only if the listener is there before the script's first turn is over.
  alarms.onAlarm.addListener((alarm) => {
    if (alarm.name === name) due();
  });
  return start(options, {
    ...common,
    wake: (at, run) => {
      due = run;
      if (at) alarms.create(name, { when: at * 1000 });
      else alarms.clear(name);
    },
  });
}
