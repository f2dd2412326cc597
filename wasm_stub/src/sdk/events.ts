// What may be recorded: one row of a declared event (docs/protocol.md section 15.1).

import type { Registry } from "./config.js";
import type { StoredEvent } from "./store.js";

/** Bytes of a row as JSON. */
const ROW_BYTES_MAX = 16_384;

/** What a page records: strings, numbers, or null. What is not a finite number is null. */
export type Fields = Readonly<Record<string, string | number | null>>;

/**
 * The row as it is stored. `at` is Unix seconds.
 *
 * Undefined for a value of another type, too large a row, or a name that the registry does not
 * declare, so that a misspelt one is noticed where it is written.
 */
export function readRow(
  registry: Registry | undefined,
  event: string,
  fields: Fields,
  at: number,
): StoredEvent | undefined {
  // Names of the objects themselves, not what they inherit.
  const has = (object: object, name: string): boolean => Object.keys(object).includes(name);
  if (!event || (registry && !has(registry.events, event))) return undefined;
  const row: Record<string, string | number | null> = {};
  for (const [name, value] of Object.entries(fields) as [string, unknown][]) {
    if (registry && !has(registry.events[event]!.columns, name)) return undefined;
    if (value !== null && !/^(string|number)$/.test(typeof value)) return undefined;
    row[name] = typeof value === "number" && !isFinite(value) ? null : (value as string);
  }
  const size = new TextEncoder().encode(JSON.stringify(row)).length;
  return size > ROW_BYTES_MAX ? undefined : { event: `${event}`, at, size, row };
}
