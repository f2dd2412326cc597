// Hostile envelopes and plans (docs/protocol.md sections 3 and 15), made by fast-check.
//
// Whatever comes in, what comes out is a descriptor that everybody signed or a DandelionError, and
// the work is bounded: counted in calls of the kernel, since a clock proves nothing.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import fc from "fast-check";

import { kernel as fallback } from "../src/kernel/fallback.js";
import type { Kernel } from "../src/kernel/kernel.js";
import { decodeDescriptor } from "../src/protocol/descriptor.js";
import {
  canonicalJson,
  concat,
  parseCanonicalJson,
  type JsonObject,
} from "../src/protocol/encoding.js";
import { decodeEnvelope } from "../src/protocol/envelope.js";
import { DandelionError, type Token } from "../src/protocol/errors.js";
import { execute, type Row } from "../src/protocol/execute.js";
import { parsePlan } from "../src/protocol/plan.js";
import { gate } from "../src/protocol/report.js";
import { bytesOf, SEED } from "./cases.js";
import type { Vector } from "./vectors.js";

// fast-check prints the seed of a failure; SEED replays the whole file.
fc.configureGlobal({ seed: SEED | 0, endOnFailure: false });

function vector(file: string, name: string): Vector {
  const all = JSON.parse(readFileSync(`../tests/vectors/${file}.json`, "utf8")) as Vector[];
  return all.find((each) => each.name === name)!;
}

const ENVELOPE = bytesOf(vector("envelope", "two helpers").input["envelope"]);
const PLAN = vector("plan", "a group").input["plan"] as JsonObject;
const DESCRIPTOR = ENVELOPE.subarray(4, ENVELOPE.length - 3 * 64);

/** A kernel that counts its calls, with or without its defence. */
function counting(base: Kernel): { kernel: Kernel; calls: Record<string, number> } {
  const calls = { sha256: 0, keyIsAcceptable: 0, ed25519Verify: 0 };
  const kernel: Kernel = {
    ...base,
    sha256: (data) => (calls.sha256++, base.sha256(data)),
    keyIsAcceptable: (key) => (calls.keyIsAcceptable++, base.keyIsAcceptable(key)),
    ed25519Verify: (...all) => (calls.ed25519Verify++, base.ed25519Verify(...all)),
  };
  return { kernel, calls };
}

/** Signatures and keys are taken for good: the attacks reach all that lies behind. */
const CREDULOUS: Kernel = { ...fallback, ed25519Verify: () => true, keyIsAcceptable: () => true };

/** The token, or undefined if it was accepted. Anything else that is thrown goes on. */
function refusal(operation: () => unknown): Token | undefined {
  try {
    operation();
  } catch (error) {
    if (error instanceof DandelionError) return error.token;
    throw error;
  }
  return undefined;
}

type Edit = readonly [kind: "set" | "insert" | "remove", at: number, bytes: Uint8Array];

const edits: fc.Arbitrary<Edit[]> = fc.array(
  fc.tuple(
    fc.constantFrom("set", "insert", "remove"),
    fc.nat(),
    fc.uint8Array({ minLength: 1, maxLength: 4 }),
  ),
  { minLength: 1, maxLength: 3 },
);

function edited(source: Uint8Array, changes: readonly Edit[]): Uint8Array {
  return changes.reduce((data: Uint8Array, [kind, place, bytes]) => {
    const at = place % (data.length + 1);
    const removed = kind === "insert" ? 0 : bytes.length;
    const added = kind === "remove" ? new Uint8Array(0) : bytes;
    return concat(data.subarray(0, at), added, data.subarray(at + removed));
  }, source);
}

test("the envelope that is changed below is accepted as it is", () => {
  assert.equal(refusal(() => decodeEnvelope(fallback, ENVELOPE)), undefined);
});

test("arbitrary bytes, bare or behind a good beginning, end in an error of the list", () => {
  const bytes = fc.uint8Array({ maxLength: 600 });
  const good = fc.nat({ max: ENVELOPE.length }).map((size) => ENVELOPE.subarray(0, size));
  fc.assert(
    fc.property(fc.oneof(fc.constant(new Uint8Array(0)), good), bytes, (front, back) => {
      const data = concat(front, back);
      const same = data.length === ENVELOPE.length && data.every((b, at) => b === ENVELOPE[at]);
      assert.equal(refusal(() => decodeEnvelope(fallback, data)) === undefined, same);
    }),
    { numRuns: 2_000 },
  );
});

/** Runs `decode` over changed envelopes and counts those that are taken although they changed. */
function taken(kernel: Kernel, numRuns: number): number {
  let accepted = 0;
  fc.assert(
    fc.property(edits, (changes) => {
      const data = edited(ENVELOPE, changes);
      if (data.length === ENVELOPE.length && data.every((b, at) => b === ENVELOPE[at])) return;
      if (refusal(() => decodeEnvelope(kernel, data)) === undefined) accepted++;
    }),
    { numRuns },
  );
  return accepted;
}

test("an envelope in which anything was changed is never accepted", () => {
  assert.equal(taken(fallback, 400), 0);
});

test("control: without the signatures many changed envelopes are accepted", () => {
  assert.ok(taken(CREDULOUS, 400) > 20);
});

test("a changed descriptor is refused or has another ctx: no two texts mean the same", () => {
  const { ctx } = decodeDescriptor(CREDULOUS, DESCRIPTOR);
  fc.assert(
    fc.property(edits, (changes) => {
      const data = edited(DESCRIPTOR, changes);
      fc.pre(data.length !== DESCRIPTOR.length || data.some((b, at) => b !== DESCRIPTOR[at]));
      refusal(() => {
        const changed = decodeDescriptor(CREDULOUS, data);
        assert.notDeepEqual(changed.ctx, ctx);
      });
    }),
    { numRuns: 2_000 },
  );
});

test("the work for one envelope is bounded: one hash, one check per key and signature", () => {
  fc.assert(
    fc.property(edits, (changes) => {
      const { kernel, calls } = counting(CREDULOUS);
      refusal(() => decodeEnvelope(kernel, edited(ENVELOPE, changes)));
      assert.ok(calls["sha256"]! <= 1 && calls["keyIsAcceptable"]! <= 16);
      assert.ok(calls["ed25519Verify"]! <= 17);
    }),
    { numRuns: 1_000 },
  );
});

test("the first bad signature ends the checks of signatures", () => {
  const { kernel, calls } = counting({ ...CREDULOUS, ed25519Verify: () => false });
  assert.equal(refusal(() => decodeEnvelope(kernel, ENVELOPE)), "bad_signature");
  assert.equal(calls["ed25519Verify"], 1);
});

test("huge inputs are refused before anything is hashed", () => {
  const { kernel, calls } = counting(fallback);
  const long = new Uint8Array(32 * 1024 * 1024);
  assert.equal(refusal(() => decodeEnvelope(kernel, long)), "truncated");
  new DataView(long.buffer).setUint32(0, long.length - 4);
  assert.equal(refusal(() => decodeEnvelope(kernel, long)), "too_large");
  new DataView(long.buffer).setUint32(0, 0xffff_ffff);
  assert.equal(refusal(() => decodeEnvelope(kernel, long)), "truncated");
  assert.equal(refusal(() => decodeDescriptor(kernel, long.subarray(0, 131_072))), "bad_magic");
  assert.deepEqual(calls, { sha256: 0, keyIsAcceptable: 0, ed25519Verify: 0 });
});

test("255 helpers cost no more than the list of them", () => {
  const at = DESCRIPTOR.length - 4 - 2 - 2 - 2 * 64 - 1;
  assert.equal(DESCRIPTOR[at], 2);
  const many = concat(
    DESCRIPTOR.subarray(0, at),
    [255],
    new Uint8Array(255 * 64),
    DESCRIPTOR.subarray(DESCRIPTOR.length - 8),
  );
  const { kernel, calls } = counting(fallback);
  assert.equal(refusal(() => decodeDescriptor(kernel, many)), "bad_helpers");
  assert.equal(calls["keyIsAcceptable"], 0);
});

test("plan bytes nested, repeated or numbered without end are `bad_plan`", () => {
  const text = (source: string): Uint8Array => new TextEncoder().encode(source);
  const half = 32_767;
  for (const source of [
    "[".repeat(65_536),
    `{"a":`.repeat(13_000),
    `{"a":${"[".repeat(half)}${"]".repeat(half - 6)}}`,
    `{"a":${"9".repeat(65_000)}}`,
    `{"a":${"[".repeat(65_000)}`,
    `{"a":"${"\\ud800".repeat(10_000)}"}`,
    `{${'"a":1,'.repeat(10_000)}"a":1}`,
    " ".repeat(65_537),
  ]) {
    assert.equal(refusal(() => parseCanonicalJson(text(source))), "bad_plan");
  }
});

const json = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 5, withCrossShrink: true },
    fc.constantFrom("eq", "sum", "count", "1", "", 0, 1, -1, 2, 2 ** 53 - 1, 65_536),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom(..."abcdefgh", "__proto__", "op", "scale"), tie("value")),
  ),
})).value;

/** A good plan with some of its members replaced by anything. */
const strange = fc
  .dictionary(fc.constantFrom(...Object.keys(PLAN), "where", "kind", "__proto__"), json)
  .map((changes) => ({ ...PLAN, ...changes }));

const rows: fc.Arbitrary<Row[]> = fc.array(
  fc.dictionary(
    fc.constantFrom("load", "country", "toString", "x"),
    fc.oneof(fc.constantFrom("DE", "FR", ""), fc.double(), fc.integer(), fc.anything()),
  ),
  { maxLength: 6 },
);

test("strange plans over strange rows: an error of the list, or a vector within the bounds", () => {
  let accepted = 0;
  fc.assert(
    fc.property(strange, rows, (document, found) => {
      const token = refusal(() => {
        const text = new TextEncoder().encode(canonicalJson(document));
        const plan = parsePlan(parseCanonicalJson(text));
        const vector = execute(plan, found, (_, k) => Array.from({ length: k }, (__, at) => at));
        assert.ok(gate(plan, vector));
      });
      assert.ok(token === undefined || token === "bad_plan");
      accepted += Number(token === undefined);
    }),
    { numRuns: 3_000 },
  );
  assert.ok(accepted > 30, `${accepted} of 3,000 plans were accepted`);
});

test("canonical text is read back as what was written, and from no other text", () => {
  fc.assert(
    fc.property(json, fc.nat(), fc.string({ minLength: 1, maxLength: 2 }), (value, at, extra) => {
      let text: string;
      try {
        text = canonicalJson({ a: value });
      } catch {
        return;
      }
      const parsed = parseCanonicalJson(new TextEncoder().encode(text));
      assert.equal(canonicalJson(parsed), text);
      const place = at % (text.length + 1);
      const other = text.slice(0, place) + extra + text.slice(place);
      const bytes = new TextEncoder().encode(other);
      refusal(() => {
        const again = canonicalJson(parseCanonicalJson(bytes));
        assert.deepEqual(new TextEncoder().encode(again), bytes);
      });
    }),
    { numRuns: 2_000 },
  );
});
