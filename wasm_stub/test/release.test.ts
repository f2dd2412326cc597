// What a verifier of a release refuses (docs/protocol.md section 8), beyond the vectors.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { kernel } from "../src/kernel/fallback.js";
import type { Kernel } from "../src/kernel/kernel.js";
import { hex } from "../src/protocol/encoding.js";
import { DandelionError } from "../src/protocol/errors.js";
import { verifyRelease, type Expected, type VerifiedRelease } from "../src/protocol/release.js";
import { bytesOf, SEED } from "./cases.js";
import type { Vector } from "./vectors.js";

const VECTORS = JSON.parse(readFileSync("../tests/vectors/release.json", "utf8")) as Vector[];

function release(name: string): Uint8Array {
  return bytesOf(VECTORS.find((each) => each.name === name)!.input["release"]);
}

const RELEASE = release("five reports");

function refusal(data: Uint8Array, expected?: Expected, of: Kernel = kernel): string {
  try {
    verifyRelease(of, data, expected);
  } catch (error) {
    if (error instanceof DandelionError) return `${error.token}, ${error.detail}`;
    throw error;
  }
  return "none";
}

/** The identities that the release names. */
function named({ descriptor }: VerifiedRelease): { collector: string; helpers: string[] } {
  const helpers = descriptor.helpers.map(({ identity }) => hex(identity));
  return { collector: hex(descriptor.collector), helpers };
}

test("a release is verified against the identities that are expected, helpers in any order", () => {
  const { collector, helpers } = named(verifyRelease(kernel, RELEASE));
  assert.equal(refusal(RELEASE, { collector, helpers: [...helpers].reverse() }), "none");
  const other = "00".repeat(32);
  assert.equal(refusal(RELEASE, { collector: other }), "bad_release, collector");
  for (const wrong of [[helpers[0]!], [...helpers, other], [helpers[0]!, other], []]) {
    assert.equal(refusal(RELEASE, { helpers: wrong }), "bad_release, helpers");
  }
});

test("shards add up, and their number is said because the noise adds up with them", () => {
  const two = verifyRelease(kernel, release("two shards"));
  assert.deepEqual([two.shards, two.n], [2, 11]);
  assert.equal(verifyRelease(kernel, release("one shard of two")).shards, 1);
});

test("the detail of a bad signature names the signer", () => {
  const details = VECTORS.filter(({ expect }) => expect === "bad_signature").map(({ name }) => [
    name,
    refusal(release(name)),
  ]);
  const said = new Map(details as [string, string][]);
  const signed = "changed, signed again";
  for (const signer of ["collector", "helper 1", "helper 2"]) {
    const who = signer === "collector" ? "the collector" : signer;
    const found = said.get(`the descriptor signature of ${who} ${signed}`);
    assert.equal(found, `bad_signature, ${signer}`);
  }
  assert.equal(said.get(`the answer of helper 2 ${signed}`), "bad_signature, helper 2");
  assert.equal(said.get("signed by another collector"), "bad_signature, collector");
});

/** A bit of every eleventh byte, from a place of the seed on. */
function* flipped(): Generator<Uint8Array> {
  for (let at = SEED % 11; at < RELEASE.length; at += 11) {
    const data = RELEASE.slice();
    data[at]! ^= 1 << (SEED >>> 3) % 8;
    yield data;
  }
}

test(`no bit of a release can be changed (SEED=${SEED})`, () => {
  for (const data of flipped()) assert.notEqual(refusal(data), "none");
});

test("control: without signatures many changed releases are taken for good", () => {
  const credulous = { ...kernel, ed25519Verify: () => true };
  const taken = [...flipped()].filter((data) => refusal(data, {}, credulous) === "none");
  assert.ok(taken.length > 10, `${taken.length}`);
});

test("a release that ends anywhere is truncated, and costs no check of a signature", () => {
  const mute: Kernel = { ...kernel, ed25519Verify: () => assert.fail("a signature was checked") };
  for (let size = 0; size < RELEASE.length; size += 9) {
    assert.equal(refusal(RELEASE.subarray(0, size), {}, mute), "truncated, ");
  }
});
