// Offline check of a release from its published bytes alone (docs/protocol.md section 8).
//
// What it cannot check: that reports were honest, and that none was left out. A page that only
// contributes does not need this module.

import type { Kernel } from "../kernel/kernel.js";
import { keepsPromise, rhoUnits } from "./accounting.js";
import type { Descriptor } from "./descriptor.js";
import { hex, reader, type Reader } from "./encoding.js";
import { readEnvelope, verifyEnvelope } from "./envelope.js";
import { need } from "./errors.js";
import { payloadBytes, readVersion, verifyStatement } from "./messages.js";
import { verify } from "./signatures.js";

/** A release whose every check passed. */
export interface VerifiedRelease {
  readonly descriptor: Descriptor;
  /** Reports in all shards. */
  readonly n: number;
  /** Release shards in it. */
  readonly shards: number;
  /** Released words, one per slot, of all shards added up. */
  readonly values: BigInt64Array;
}

/** Whom a verifier trusts, in lower-case hexadecimal. What is absent is taken from the release. */
export interface Expected {
  readonly collector?: string;
  /** The exact identities of all helpers, in any order. */
  readonly helpers?: readonly string[];
}

interface Shard {
  readonly shard: number;
  readonly n: number;
  /** shard 2, n 4, set 32. */
  readonly head: Uint8Array;
  readonly y: Uint8Array;
  readonly answers: readonly { readonly r: Uint8Array; readonly signature: Uint8Array }[];
}

/**
 * Checks everything section 8 lists, in its order.
 *
 * @throws DandelionError the first check that fails; `detail` says whose signature it was.
 */
export function verifyRelease(
  kernel: Kernel,
  data: Uint8Array,
  expected: Expected = {},
): VerifiedRelease {
  const source = reader(data);
  readVersion(source);
  const envelope = readEnvelope(kernel, source);
  const { descriptor } = envelope;
  const count = source.uint(2);
  need(count && count <= 1 << descriptor.shardBits, "bad_release", "number of shards");
  const shards = Array.from({ length: count }, () => readShard(descriptor, source));
  const signed = data.subarray(0, source.at());
  const signature = source.take(64);
  source.end();
  shards.forEach(({ shard }, index) => {
    const before = index ? shards[index - 1]!.shard : -1;
    need(before < shard && shard >> descriptor.shardBits === 0, "bad_release", "order of shards");
  });

  verifyEnvelope(kernel, envelope);
  const { collector, helpers } = descriptor;
  need((expected.collector ?? hex(collector)) === hex(collector), "bad_release", "collector");
  const listed = helpers.map(({ identity }) => hex(identity));
  need([...(expected.helpers ?? listed)].sort().join() === listed.join(), "bad_release", "helpers");
  verify(kernel, collector, "release", kernel.sha256(signed), signature, "collector");

  const values = new BigInt64Array(descriptor.slots);
  for (const shard of shards) {
    const { cohortMin, cohortMax } = descriptor;
    need(cohortMin <= shard.n && shard.n <= cohortMax, "bad_release", "number of reports");
    const sum = kernel.sha256(shard.y);
    shard.answers.forEach((answer, index) => {
      verifyStatement(kernel, descriptor, { party: index + 1, head: shard.head, sum, ...answer });
    });
    addReleased(descriptor, shard, values);
  }
  const { l2sq, noiseVar, plan } = descriptor;
  need(keepsPromise(rhoUnits(l2sq, noiseVar), plan), "bad_release", "promise");
  return { descriptor, n: shards.reduce((sum, { n }) => sum + n, 0), shards: count, values };
}

function readShard(descriptor: Descriptor, source: Reader): Shard {
  const head = source.take(38);
  const numbers = reader(head);
  const size = payloadBytes(descriptor);
  return {
    shard: numbers.uint(2),
    n: numbers.uint(4),
    head,
    y: source.take(size),
    answers: descriptor.helpers.map(() => ({ r: source.take(size), signature: source.take(64) })),
  };
}

/** Adds Y minus all R, lifted, of one shard. Throws `implausible`. */
function addReleased(descriptor: Descriptor, shard: Shard, values: BigInt64Array): void {
  const { n, y, answers } = shard;
  const { width, linf, noiseBound } = descriptor;
  const bound = BigInt(n) * BigInt(linf) + BigInt(noiseBound);
  const words = wordsOf(width, y);
  const masks = answers.map(({ r }) => wordsOf(width, r));
  values.forEach((before, slot) => {
    const word = masks.reduce((left, mask) => left - mask(slot), words(slot));
    const value = BigInt.asIntN(width, word);
    need(-bound <= value && value <= bound, "implausible", "released values");
    values[slot] = before + value;
  });
}

/** Reads words of a packed vector by slot, low byte first. */
function wordsOf(width: number, packed: Uint8Array): (slot: number) => bigint {
  if (width === 64) {
    const view = new DataView(packed.buffer, packed.byteOffset, packed.length);
    return (slot) => view.getBigUint64(slot * 8, true);
  }
  const size = width / 8;
  return (slot) => {
    let word = 0;
    for (let at = size; at-- > 0; ) word = word * 256 + packed[slot * size + at]!;
    return BigInt(word);
  };
}
