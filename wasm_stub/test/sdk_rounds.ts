// A deployment that signs what it is told to, and what is inside the reports of its rounds.

import { createPrivateKey, createPublicKey, hash, sign, type KeyObject } from "node:crypto";

import { kernel } from "../src/kernel/fallback.js";
import { BASE_POINT, type Bytes } from "../src/kernel/kernel.js";
import { rhoUnits, rhoUnitsForEpsilon } from "../src/protocol/accounting.js";
import { canonicalJson, concat, hex, labelled } from "../src/protocol/encoding.js";
import { decodeDescriptor, type Descriptor } from "../src/protocol/descriptor.js";
import type { PinnedConfig } from "../src/sdk/config.js";

/** Unix seconds at which every story begins. */
export const NOW = 1_800_000_000;
export const ENDPOINT = "https://collector.example";

export const PLAN = {
  delta: "1e-8",
  epsilon: "1",
  event: "flight",
  group: { column: "carrier", values: ["AA", "UA"] },
  kind: "aggregate",
  measures: [{ op: "count", scale: 1 }],
  outputs: [{ measure: 0, name: "n", op: "count" }],
  query: "carriers",
  rows_max: 4,
  sql: "SELECT carrier, COUNT(*) FROM flight GROUP BY carrier",
};

/** What a round may be told to be. */
export interface Changes {
  suite?: number;
  opens?: number;
  closes?: number;
  expires?: number;
  width?: number;
  cohortMin?: number;
  noiseVar?: number;
  slots?: number;
  scope?: string;
  plan?: object;
  linf?: number;
  l2sq?: number;
  /** Names of the helpers, any number. */
  helpers?: string[];
  collector?: string;
}

/** An identity by name. */
function identity(name: string): { key: KeyObject; public: Uint8Array } {
  const seed = Buffer.from(hash("sha256", `${name} identity`), "hex");
  const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  const spki = createPublicKey(key).export({ format: "der", type: "spki" });
  return { key, public: new Uint8Array(spki.subarray(-32)) };
}

function uint(value: number, size: number): number[] {
  return Array.from({ length: size }, (_, i) => Math.floor(value / 256 ** (size - 1 - i)) % 256);
}

function sized(data: Uint8Array, size: number): Uint8Array {
  return concat(uint(data.length, size), data);
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);

/** The noise for which the plan's epsilon is just kept. */
export function noiseFor(l2sq: number): number {
  return Math.ceil((l2sq * 2 ** 39) / rhoUnitsForEpsilon(1, 1e-8));
}

/** A round with its envelope. */
export interface Round {
  readonly descriptor: Descriptor;
  readonly envelope: Bytes;
  readonly id: string;
  readonly ctx: string;
  readonly cost: number;
}

const made = new Map<string, Round>();

/** Round `number` of the deployment, signed by everybody in it. */
export function round(number = 1, changes: Changes = {}): Round {
  const key = JSON.stringify([number, changes]);
  const known = made.get(key) ?? signed(number, changes);
  made.set(key, known);
  return known;
}

function signed(number: number, changes: Changes): Round {
  const { suite = 1, opens = NOW - 60 + number } = changes;
  const { closes = NOW + 3600, expires = NOW + 7200 } = changes;
  const { width = 32, cohortMin = 1000, slots = 2, scope = "public", plan = PLAN } = changes;
  const { linf = 4, l2sq = 16, helpers = ["a", "b"], collector = "collector" } = changes;
  const noiseVar = changes.noiseVar ?? noiseFor(l2sq);
  const signer = identity(collector);
  const parties = helpers
    .map((name) => ({ name, ...identity(name) }))
    .sort((x, y) => Buffer.compare(x.public, y.public));
  const masks = parties.map(({ name }) => {
    const secret = Buffer.from(hash("sha256", `${name} mask ${number}`), "hex");
    return kernel.x25519(secret, BASE_POINT);
  });
  const bytes = concat(
    ascii("dandelion\x01"),
    [1, suite],
    ...[opens, closes, expires].map((each) => uint(each, 8)),
    uint(slots, 4),
    [width, 0],
    uint(cohortMin, 4),
    uint(10 * cohortMin, 4),
    ...[linf, l2sq, noiseVar].map((each) => uint(each, 8)),
    sized(ascii(scope), 1),
    [0],
    signer.public,
    [parties.length],
    ...parties.flatMap((each, i) => [each.public, masks[i]!]),
    [0, 0],
    sized(ascii(canonicalJson(plan)), 4),
  );
  const descriptor = decodeDescriptor(kernel, bytes);
  const statement = labelled("descriptor", descriptor.ctx);
  const signatures = [signer, ...parties].map(({ key }) => sign(null, statement, key));
  return {
    descriptor,
    envelope: concat(sized(bytes, 4), ...signatures),
    id: hex(descriptor.roundId),
    ctx: hex(descriptor.ctx),
    cost: Number(rhoUnits(l2sq, noiseVar)),
  };
}

/** The pins of the deployment. */
export const PINS: PinnedConfig = {
  collector: hex(identity("collector").public),
  helpers: [hex(identity("a").public), hex(identity("b").public)],
};

/** The vector inside a report, for whoever knows its ephemeral secret. */
export function inside({ descriptor }: Round, body: Uint8Array, secrets: Secrets): number[] {
  const secret = secrets.of(body.subarray(17, 49));
  const keys = concat(...descriptor.helpers.map((each) => each.maskKey));
  const zeros = new Float64Array(descriptor.slots);
  const { payload } = kernel.mask(descriptor, secret, keys, zeros);
  const masked = new Int32Array(body.slice(49).buffer);
  const masks = new Int32Array(payload.slice().buffer);
  return Array.from(masked, (word, slot) => (word - masks[slot]!) | 0);
}

/** Every 32 bytes that a client drew: ephemeral secrets, which it must not keep. */
export class Secrets {
  readonly drawn: Bytes[] = [];

  of(epk: Uint8Array): Bytes {
    const found = this.drawn.find((each) => hex(kernel.x25519(each, BASE_POINT)) === hex(epk));
    if (!found) throw new Error("a report under a key that was not drawn here");
    return found.slice();
  }
}
