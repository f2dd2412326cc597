// What a page can do with its client.

import type { Fields } from "./events.js";
import type { Receipt } from "./receipts.js";
import type { StoredEvent } from "./store.js";

/** One client of one collector. No method throws, none of its promises rejects. */
export interface Client {
  /** Settled when the first visit to the collector, if one was due, is over. */
  readonly ready: Promise<void>;
  /**
   * Keeps one row on this device. Without consent, or if the registry does not declare it, nothing
   * is kept. Settled when the row is stored.
   */
  record(event: string, fields: Fields): Promise<void>;
  /**
   * `true`: records and takes part from now on. `false`: stops, in all tabs of this origin, and
   * deletes events, waiting reports and receipts. What has been charged stays charged.
   */
  setConsent(granted: boolean): Promise<void>;
  /** What happened to each round: finished, waiting, or not answered; oldest first. */
  receipts(): Promise<Receipt[]>;
  /** What is kept on this device, oldest first. */
  events(): Promise<StoredEvent[]>;
  /** What a query makes this client do, in words; empty if it has never heard of it. */
  explain(query: string): Promise<string>;
  /**
   * Makes and sends everything now. With `early` it asks for rounds even if the collector named a
   * later time. Gives all receipts.
   */
  flush(how?: { readonly early?: boolean }): Promise<Receipt[]>;
  /** What happens by itself when a page is hidden or left. Synchronous. */
  leave(): void;
  /** How often what went wrong. */
  faults(): Readonly<Record<string, number>>;
  /** Leaves, and stops for good. */
  close(): void;
}
