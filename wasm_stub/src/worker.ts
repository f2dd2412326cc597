// The client in a dedicated worker, where there is no document. Nobody can say when a worker is
// left, so reports are made and sent at once, or when the page asks for it by `leave` or `flush`.

import type { Client } from "./sdk/api.js";
import { start } from "./sdk/client.js";
import type { Options } from "./sdk/config.js";
import { commonEnv } from "./sdk/env.js";

export type { Client } from "./sdk/api.js";
export type {
  Consent,
  MadeReport,
  Options,
  PinnedConfig,
  Policy,
  Registry,
  Retention,
} from "./sdk/config.js";
export type { Fields } from "./sdk/events.js";
export type { Outcome, Receipt } from "./sdk/receipts.js";
export type { Row, StoredEvent } from "./sdk/store.js";

/** Starts a client; see `init` of the page. `holdS` and `beacon` mean nothing here. */
export function init(options: Options): Client {
  return start(options, commonEnv());
}
