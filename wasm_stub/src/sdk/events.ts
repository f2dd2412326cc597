// What may be recorded: one row of a declared event (docs/protocol.md section 15.1).

import type { Registry } from "./config.js";
import type { Row, StoredEvent } from "./store.js";

/** Bytes of a row as JSON. */
const ROW_BYTES_MAX = 16_384;

/** What a page records: strings, numbers, or null. What is not a finite number is null. */
export type Fields = Readonly<Record<string, string | number | null>>;

/**
 * The row as it is stored. `at` is Unix seconds.
 *
 * @throws Error `schema_refused`: a value of another type, too large a row, or a name that the
 * registry does not declare, so that a misspelt one is noticed where it is written.
 */
export function readRow(
  registry: Registry | undefined,
  event: string,
  fields: Fields,
  at: number,
): StoredEvent {
  const columns = registry && own(registry.events, event)?.columns;
  const row: Record<string, string | number | null> = {};
  let fits = typeof event === "string" && event !== "" && !(registry && !columns);
  for (const [name, value] of Object.entries(fields) as [string, unknown][]) {
    fits &&= !columns || own(columns, name) !== undefined;
    fits &&= value === null || typeof value === "string" || typeof value === "number";
    row[name] = Number.isFinite(value) || typeof value === "string" ? (value as string) : null;
  }
  const size = new TextEncoder().encode(JSON.stringify(row)).length;
  if (!fits || size > ROW_BYTES_MAX) throw new Error("schema_refused");
  return { event, at, size, row: row as Row };
}

/** A member of the object itself, not of what it inherits from. */
function own<T>(object: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}
