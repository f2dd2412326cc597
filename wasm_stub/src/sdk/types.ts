// The types that every entry point shows.

export type { Client } from "./api.js";
export type {
  Consent,
  MadeReport,
  Options,
  PinnedConfig,
  Policy,
  Registry,
  Retention,
} from "./config.js";
export type { Fields } from "./events.js";
export type { Outcome, Receipt } from "./receipts.js";
export type { Row, StoredEvent } from "./store.js";
