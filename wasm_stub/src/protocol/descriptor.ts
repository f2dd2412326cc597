// The descriptor: everything a client must know of a round (docs/protocol.md section 3).
//
// A `Descriptor` that exists has passed every check of section 3.2. Left out: what its plan means
// (`plan`), who signed it (`envelope`) and whether to take part (`admit`).

import type { Kernel, MaskRound } from "../kernel/kernel.js";
import { hex, parseCanonicalJson, reader, type JsonObject } from "./encoding.js";
import { need } from "./errors.js";

const MAGIC = "dandelion\x01";

/** Limits of section 13. */
const DESCRIPTOR_BYTES_MAX = 131_072;
export const SLOTS_MAX = 1_048_576;
const SHARD_BITS_MAX = 8;
const COHORT_MAX_MAX = 4_194_304;
const HELPERS_MAX = 16;

const HEADER_BYTES = 49;
const NOISE_TAIL = 12;

/** One helper of a round, 32 bytes each. */
export interface Helper {
  /** Ed25519 identity. */
  readonly identity: Uint8Array;
  /** X25519 mask key of this round. */
  readonly maskKey: Uint8Array;
}

/** A round, as section 3.1 lays it out. Times in seconds of Unix time. */
export interface Descriptor extends MaskRound {
  readonly scheme: number;
  readonly opens: number;
  readonly closes: number;
  readonly expires: number;
  /** Words in a vector. */
  readonly slots: number;
  readonly shardBits: number;
  readonly cohortMin: number;
  readonly cohortMax: number;
  readonly linf: number;
  readonly l2sq: number;
  /** Integer variance, per slot, of each helper's noise. */
  readonly noiseVar: number;
  readonly scope: string;
  readonly issuer: Uint8Array;
  readonly collector: Uint8Array;
  readonly helpers: readonly Helper[];
  /** The plan's object, canonical but not yet understood: for `parsePlan`. */
  readonly plan: JsonObject;
  /** The first 16 bytes of `ctx`. */
  readonly roundId: Uint8Array;
  /** Length of a report of this round, section 5. */
  readonly reportBytes: number;
  /** How far the noise of all helpers may carry a slot (3.2, 8). */
  readonly noiseBound: number;
}

/**
 * The descriptor whose bytes are `data`; it keeps views of them.
 *
 * @throws DandelionError with a token of section 3.2, in its order.
 */
export function decodeDescriptor(kernel: Kernel, data: Uint8Array): Descriptor {
  need(data.length <= DESCRIPTOR_BYTES_MAX, "too_large");
  const { take, uint, sized, end } = reader(data);
  need(String.fromCharCode(...take(MAGIC.length)) === MAGIC, "bad_magic");
  const [scheme, suite] = [uint(1), uint(1)];
  const [opens, closes, expires] = [uint(8), uint(8), uint(8)];
  const [slots, width, shardBits] = [uint(4), uint(1), uint(1)];
  const [cohortMin, cohortMax] = [uint(4), uint(4)];
  const [linf, l2sq, noiseVar] = [uint(8), uint(8), uint(8)];
  const scope = String.fromCharCode(...sized(1));
  const [issuer, collector] = [sized(1), take(32)];
  const helpers: Helper[] = [];
  for (let left = uint(1); left > 0; left--) {
    helpers.push({ identity: take(32), maskKey: take(32) });
  }
  const [details, plan] = [sized(2), sized(4)];
  end();

  need(scheme === 1, "bad_scheme");
  need(suite === 1 || suite === 2, "bad_suite");
  need(opens < closes && closes <= expires, "bad_time");
  need(slots && slots <= SLOTS_MAX, "bad_slots");
  need([16, 24, 32, 64].includes(width), "bad_width");
  need(shardBits <= SHARD_BITS_MAX, "bad_shards");
  need(cohortMin && cohortMin <= cohortMax && cohortMax <= COHORT_MAX_MAX, "bad_cohort");
  // l2sq is below 2^53, so a product that is rounded compares like the exact one. linf is below
  // 2^26.5 from here on, and what is added up below fits a double.
  need(linf && linf * linf <= l2sq && l2sq <= slots * linf * linf, "bad_bounds");
  need(noiseVar, "bad_noise");
  const noiseBound = NOISE_TAIL * ceilSqrt(BigInt(helpers.length) * BigInt(noiseVar));
  need(cohortMax * linf + noiseBound + 1 <= 2 ** (width - 1), "overflow");
  need(/^[a-z0-9._-]{1,64}$/.test(scope), "bad_scope");
  need(issuer.length === 0 || issuer.length === 32, "bad_issuer");
  judgeHelpers(kernel, helpers, collector);
  need(details.length === 0, "bad_details");

  const ctx = kernel.sha256(data);
  return {
    scheme,
    suite,
    opens,
    closes,
    expires,
    slots,
    width,
    shardBits,
    cohortMin,
    cohortMax,
    linf,
    l2sq,
    noiseVar,
    scope,
    issuer,
    collector,
    helpers,
    plan: parseCanonicalJson(plan),
    ctx,
    roundId: ctx.subarray(0, 16),
    reportBytes: HEADER_BYTES + (slots * width) / 8,
    noiseBound,
  };
}

function judgeHelpers(kernel: Kernel, helpers: Helper[], collector: Uint8Array): void {
  const count = helpers.length;
  // Hexadecimal texts sort as the bytes do.
  const identities = helpers.map(({ identity }) => hex(identity));
  need(
    count > 1 &&
      count <= HELPERS_MAX &&
      identities.every((each, index) => !index || identities[index - 1]! < each) &&
      !identities.includes(hex(collector)) &&
      new Set(helpers.map(({ maskKey }) => hex(maskKey))).size === count,
    "bad_helpers",
  );
  need(
    helpers.every(({ maskKey }) => kernel.keyIsAcceptable(maskKey)),
    "bad_key",
  );
}

/** The least integer whose square is at least `value`, for values below 2^62. */
function ceilSqrt(value: bigint): number {
  // From just below, because a double may be off by a little.
  let root = BigInt(Math.max(0, Math.floor(Math.sqrt(Number(value))) - 1));
  while (root * root < value) root++;
  return Number(root);
}
