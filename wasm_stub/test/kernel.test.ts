// Every vector of docs/protocol.md section 17 that a kernel can be asked, and RFC 7748's own.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { kernel as fallback, stream } from "../src/kernel/fallback.js";
import { BASE_POINT, type Kernel, type MaskRound } from "../src/kernel/kernel.js";
import { loadKernel } from "../src/kernel/load.js";

const KERNELS: Kernel[] = [fallback, await loadKernel([1, 2])];

interface Vector {
  readonly name: string;
  readonly input: Record<string, unknown>;
  readonly output: Record<string, unknown>;
  readonly expect: string;
}

function vectors(name: string): Vector[] {
  return JSON.parse(readFileSync(`../tests/vectors/${name}.json`, "utf8")) as Vector[];
}

const bytes = (hex: unknown): Uint8Array => new Uint8Array(Buffer.from(hex as string, "hex"));
const hex = (data: Uint8Array): string => Buffer.from(data).toString("hex");
const ascii = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "latin1"));

/** What `mask` needs of a descriptor, read at the places of docs/protocol.md section 3.1. */
function roundOf(descriptor: Uint8Array): { round: MaskRound; maskKeys: Uint8Array } {
  let at = 75 + descriptor[74]!;
  at += 1 + descriptor[at]! + 32;
  const keys = Array.from({ length: descriptor[at]! }, (_, helper) =>
    descriptor.subarray(at + 33 + 64 * helper, at + 65 + 64 * helper),
  );
  const ctx = createHash("sha256").update(descriptor).digest();
  return {
    round: { suite: descriptor[11]!, width: descriptor[40]!, ctx },
    maskKeys: new Uint8Array(Buffer.concat(keys)),
  };
}

test("the streams of the fallback are those of the vectors", () => {
  for (const { name, input, output } of vectors("prg")) {
    const made = stream(input["suite"] as number, bytes(input["seed"]));
    const words = new Uint32Array(16);
    const read: Buffer[] = [];
    while (64 * read.length < (input["length"] as number)) {
      made.next(words);
      read.push(Buffer.from(words.slice().buffer));
    }
    const all = Buffer.concat(read).subarray(0, input["length"] as number);
    assert.equal(hex(all), output["stream"], name);
  }
});

for (const kernel of KERNELS) {
  test(`${kernel.name}: SHA-256 of every length around a block`, () => {
    for (const length of [0, 1, 31, 32, 55, 56, 63, 64, 65, 119, 120, 128, 1000, 131072]) {
      const data = Uint8Array.from({ length }, (_, i) => 7 * i);
      const expected = createHash("sha256").update(data).digest("hex");
      assert.equal(hex(kernel.sha256(data)), expected, `${length} bytes`);
    }
  });

  test(`${kernel.name}: the multiplications of RFC 7748 section 5.2`, () => {
    for (const [scalar, point, output] of [
      [
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
      ],
      [
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
      ],
    ]) {
      assert.equal(hex(kernel.x25519(bytes(scalar), bytes(point))), output);
    }
    let [scalar, point] = [BASE_POINT, BASE_POINT];
    for (let i = 0; i < 1000; i++) [scalar, point] = [kernel.x25519(scalar, point), scalar];
    const known = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
    assert.equal(hex(scalar), known, "after 1,000 iterations");
  });

  test(`${kernel.name}: values that are not reduced, and edges of the field`, () => {
    // u = p + 9 stands for 9, and the top bit is ignored.
    const unreduced = bytes("f6ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
    const topBit = bytes("0900000000000000000000000000000000000000000000000000000000000080");
    const scalar = kernel.sha256(ascii("scalar"));
    const expected = hex(kernel.x25519(scalar, BASE_POINT));
    assert.equal(hex(kernel.x25519(scalar, unreduced)), expected);
    assert.equal(hex(kernel.x25519(scalar, topBit)), expected);
    assert.equal(hex(kernel.x25519(scalar, new Uint8Array(32))), "00".repeat(32));
  });

  test(`${kernel.name}: which keys are acceptable`, () => {
    for (const { name, input, expect } of vectors("keys")) {
      assert.equal(kernel.keyIsAcceptable(bytes(input["key"])), expect === "valid", name);
    }
    assert.equal(kernel.keyIsAcceptable(BASE_POINT.subarray(1)), false);
  });

  test(`${kernel.name}: which signatures verify`, () => {
    for (const { name, input, expect } of vectors("signatures")) {
      const label = ascii(`dandelion/v1/${input["label"] as string}\0`);
      const message = new Uint8Array([...label, ...bytes(input["body"])]);
      const verified = kernel.ed25519Verify(
        bytes(input["identity"]),
        message,
        bytes(input["signature"]),
      );
      assert.equal(verified, expect === "valid", name);
    }
  });

  test(`${kernel.name}: masked vectors, and the key is consumed`, () => {
    for (const { name, input, output } of vectors("mask")) {
      const { round, maskKeys } = roundOf(bytes(input["descriptor"]));
      const secret = bytes(input["ephemeral_secret"]);
      const values = input["values"] as number[];
      const { epk, payload } = kernel.mask(round, secret, maskKeys, values);
      const head = `01${hex(round.ctx.subarray(0, 16))}`;
      assert.equal(head + hex(epk) + hex(payload), output["report"], name);
      assert.equal(hex(secret), "00".repeat(32), `${name}: the secret`);
      assert.throws(() => kernel.mask(round, secret, maskKeys, values), RangeError);
    }
  });

  test(`${kernel.name}: arguments without a meaning are refused, and cost the secret`, () => {
    const { round, maskKeys } = roundOf(bytes(vectors("mask")[0]!.input["descriptor"]));
    const secret = (): Uint8Array => kernel.sha256(ascii("secret"));
    const zeroKey = new Uint8Array(64);
    zeroKey.set(maskKeys.subarray(0, 32));
    const calls: [string, MaskRound, Uint8Array, Uint8Array][] = [
      ["suite", { ...round, suite: 3 }, secret(), maskKeys],
      ["width", { ...round, width: 8 }, secret(), maskKeys],
      ["ctx", { ...round, ctx: round.ctx.subarray(1) }, secret(), maskKeys],
      ["secret", round, secret().subarray(1), maskKeys],
      ["no key", round, secret(), maskKeys.subarray(64)],
      ["half a key", round, secret(), maskKeys.subarray(16)],
      ["256 keys", round, secret(), new Uint8Array(256 * 32).fill(9)],
      ["zero result", round, secret(), zeroKey],
    ];
    for (const [name, badRound, badSecret, badKeys] of calls) {
      assert.throws(() => kernel.mask(badRound, badSecret, badKeys, [1]), RangeError, name);
      assert.ok(badSecret.every((byte) => byte === 0), `${name}: the secret`);
    }
  });
}

test("wasm: no memory remembers a secret or a value", async (t) => {
  const memories: WebAssembly.Memory[] = [];
  const { instantiate } = WebAssembly;
  t.mock.method(WebAssembly, "instantiate", async (bytes: BufferSource) => {
    const made = await instantiate(bytes);
    memories.push(made.instance.exports["memory"] as WebAssembly.Memory);
    return made;
  });
  const kernel = await loadKernel();
  const { round, maskKeys } = roundOf(bytes(vectors("mask")[0]!.input["descriptor"]));
  kernel.mask(round, kernel.sha256(ascii("secret")), maskKeys, new Array<number>(50_000).fill(7));
  assert.equal(memories.length, 1);
  assert.ok(new Uint8Array(memories[0]!.buffer).every((byte) => byte === 0));
});
