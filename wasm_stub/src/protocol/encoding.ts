// Bytes: a reader that refuses, labelled statements and canonical JSON
// (docs/protocol.md sections 1 to 3.3).
//
// Left out: the layout of any message, and all arithmetic on curves (`kernel`).

import type { Bytes } from "../kernel/kernel.js";
import { fail, need } from "./errors.js";

/** Integers end here, so that a double holds each of them exactly. */
export const INTEGER_END = 2 ** 53;

/** Limits of section 13, in bytes and levels. */
const PLAN_BYTES_MAX = 65_536;
const PLAN_DEPTH_MAX = 8;

/** What canonical JSON can hold. */
export type Json = string | number | readonly Json[] | JsonObject;

/** An object of canonical JSON; its keys ascend. */
export interface JsonObject {
  readonly [key: string]: Json;
}

/** Takes fields off the front of a message. */
export interface Reader {
  /** The next `size` bytes, as a view. Throws `truncated` if the field ends beyond the input. */
  take(size: number): Uint8Array;
  /** A big-endian integer of `size` bytes. Throws `truncated`; `bad_integer` from 2^53 on. */
  uint(size: number): number;
  /** A field with its own length of `size` bytes in front. Throws `truncated`. */
  sized(size: number): Uint8Array;
  /** Bytes taken so far. */
  at(): number;
  /** Throws `trailing` if bytes are left. */
  end(): void;
}

/** A reader from the first byte of `data` on. */
export function reader(data: Uint8Array): Reader {
  let at = 0;
  const take = (size: number): Uint8Array => {
    need(size <= data.length - at, "truncated");
    return data.subarray(at, (at += size));
  };
  const uint = (size: number): number => {
    // Rounding keeps order: what is 2^53 or more never comes out smaller.
    const value = take(size).reduce((sum, byte) => sum * 256 + byte, 0);
    need(value < INTEGER_END, "bad_integer");
    return value;
  };
  return {
    take,
    uint,
    sized: (size) => take(uint(size)),
    at: () => at,
    end: () => need(at === data.length, "trailing"),
  };
}

/** The parts, one after another. */
export function concat(...parts: ArrayLike<number>[]): Bytes {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** `L(s) || body` of section 1: what is signed or digested. */
export function labelled(name: string, ...body: Uint8Array[]): Bytes {
  return concat(new TextEncoder().encode(`dandelion/v1/${name}\0`), ...body);
}

/** Lower-case hexadecimal. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Whether two byte strings are the same. Not for secrets: its time tells where they differ. */
export function same(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && left.every((byte, index) => byte === right[index]);
}

/**
 * The object whose canonical form (section 3.3) is exactly `data`.
 *
 * Writing again settles order, duplicates, white space, escapes and number forms at once.
 * Throws `bad_plan` if there is none.
 */
export function parseCanonicalJson(data: Uint8Array): JsonObject {
  need(data.length <= PLAN_BYTES_MAX, "bad_plan");
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
    value = JSON.parse(text);
  } catch {
    fail("bad_plan");
  }
  need(text[0] === "{" && canonicalJson(value) === text, "bad_plan");
  return value as JsonObject;
}

/** The canonical text of a value. Throws `bad_plan` if it has none. */
export function canonicalJson(value: unknown, level = 1): string {
  if (Number.isSafeInteger(value)) return `${value as number}`;
  if (typeof value === "string") {
    // With the flag u a class matches half a surrogate pair only where the other half is missing.
    need(!/[\ud800-\udfff]/u.test(value), "bad_plan");
    return JSON.stringify(value);
  }
  need(value && typeof value === "object" && level <= PLAN_DEPTH_MAX, "bad_plan");
  if (Array.isArray(value)) {
    return `[${value.map((item) => canonicalJson(item, level + 1)).join()}]`;
  }
  const members = Object.keys(value)
    .sort()
    .map((key) => {
      need(/^[a-z_]+$/.test(key), "bad_plan");
      return `"${key}":${canonicalJson((value as JsonObject)[key], level + 1)}`;
    });
  return `{${members.join()}}`;
}
