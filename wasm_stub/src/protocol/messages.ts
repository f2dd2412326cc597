// Report, ask and answer as others read them (docs/protocol.md sections 5 and 6).
//
// A page sends reports and reads none of the three; these are for those who check what was said
// about a round. Left out: what a helper judges before it answers, which needs its secrets.

import type { Kernel } from "../kernel/kernel.js";
import type { Descriptor } from "./descriptor.js";
import { concat, labelled, reader, same, type Reader } from "./encoding.js";
import { need } from "./errors.js";
import { verify } from "./signatures.js";

/** A masked vector under its key. */
export interface Report {
  readonly epk: Uint8Array;
  readonly payload: Uint8Array;
}

/** What a collector asked of the helpers for one release shard. */
export interface Ask {
  readonly ctx: Uint8Array;
  readonly shard: number;
  /** Number of keys. */
  readonly n: number;
  /** SHA-256 of Y. */
  readonly sum: Uint8Array;
  readonly signature: Uint8Array;
  /** n times 32 bytes. */
  readonly keys: Uint8Array;
}

/**
 * What a helper signs about one release shard: shard 2, n 4 and set 32 are one view of 38 bytes,
 * as they lie in every message.
 */
export interface Statement {
  readonly party: number;
  readonly head: Uint8Array;
  /** SHA-256 of Y. */
  readonly sum: Uint8Array;
  readonly r: Uint8Array;
  readonly signature: Uint8Array;
}

/** Reads a report. Throws `bad_length`, `bad_version`, `wrong_round`, `bad_key`, in this order. */
export function decodeReport(kernel: Kernel, descriptor: Descriptor, body: Uint8Array): Report {
  need(body.length === descriptor.reportBytes, "bad_length");
  need(body[0] === 1, "bad_version");
  need(same(body.subarray(1, 17), descriptor.roundId), "wrong_round");
  const epk = body.subarray(17, 49);
  need(kernel.keyIsAcceptable(epk), "bad_key");
  return { epk, payload: body.subarray(49) };
}

/** Release shard of a report key (section 4.1). */
export function shardOf(kernel: Kernel, descriptor: Descriptor, epk: Uint8Array): number {
  return kernel.sha256(labelled("shard", descriptor.ctx, epk))[0]! >> (8 - descriptor.shardBits);
}

/** Reads the layout of an ask. Throws `bad_version`, `truncated`, `trailing`. */
export function decodeAsk(body: Uint8Array): Ask {
  const source = reader(body);
  readVersion(source);
  const [ctx, shard, n] = [source.take(32), source.uint(2), source.uint(4)];
  const [sum, signature] = [source.take(32), source.take(64)];
  const keys = source.take(n * 32);
  source.end();
  return { ctx, shard, n, sum, signature, keys };
}

/** Takes the version off the front of a message. Throws `truncated`, `bad_version`. */
export function readVersion(source: Reader): void {
  need(source.uint(1) === 1, "bad_version");
}

/**
 * Holds an answer against the ask it must belong to, as helper `party` gave it.
 *
 * @throws DandelionError `bad_version`, `truncated`, `trailing`, `bad_answer`, `bad_signature`.
 */
export function checkAnswer(
  kernel: Kernel,
  descriptor: Descriptor,
  ask: Ask,
  party: number,
  answer: Uint8Array,
): void {
  const source = reader(answer);
  readVersion(source);
  const said = source.take(32 + 1 + 38 + 32);
  const [r, signature] = [source.take(payloadBytes(descriptor)), source.take(64)];
  source.end();
  const head = concat(u16(ask.shard), u32(ask.n), setDigest(kernel, ask));
  need(same(said, concat(ask.ctx, [party], head, ask.sum)), "bad_answer");
  verifyStatement(kernel, descriptor, { party, head, sum: ask.sum, r, signature });
}

/** Checks helper `party`'s signature. Throws `bad_signature`. */
export function verifyStatement(kernel: Kernel, descriptor: Descriptor, said: Statement): void {
  const { party, head, sum, r, signature } = said;
  const body = concat(descriptor.ctx, [party], head, sum, kernel.sha256(r));
  const { identity } = descriptor.helpers[party - 1]!;
  verify(kernel, identity, "answer", body, signature, `helper ${party}`);
}

/** Length of a packed vector. */
export function payloadBytes(descriptor: Descriptor): number {
  return (descriptor.slots * descriptor.width) / 8;
}

/** `set` of section 6. */
function setDigest(kernel: Kernel, { ctx, shard, n, keys }: Ask): Uint8Array {
  return kernel.sha256(labelled("set", ctx, u16(shard), u32(n), keys));
}

function u16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value);
}

function u32(value: number): Uint8Array {
  return concat(u16(value >>> 16), u16(value));
}
