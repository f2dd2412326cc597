// Runs the published vectors (docs/protocol.md section 17) against a kernel and `src/protocol`.
//
// Nothing here is Node's: the same bundle runs in a page. The files come in as data.
import { stream } from "../src/kernel/fallback.js";
import { BASE_POINT, type Kernel } from "../src/kernel/kernel.js";
import { maskSeed } from "../src/kernel/sha256.js";
import { epsilonOf, rhoUnits } from "../src/protocol/accounting.js";
import { decodeDescriptor, type Descriptor } from "../src/protocol/descriptor.js";
import { canonicalJson, hex, parseCanonicalJson } from "../src/protocol/encoding.js";
import { decodeEnvelope } from "../src/protocol/envelope.js";
import { DandelionError } from "../src/protocol/errors.js";
import { execute, type Row } from "../src/protocol/execute.js";
import { checkAnswer, decodeAsk, decodeReport, shardOf } from "../src/protocol/messages.js";
import { parsePlan } from "../src/protocol/plan.js";
import { verifyRelease } from "../src/protocol/release.js";
import { gate, mask } from "../src/protocol/report.js";
import { verify } from "../src/protocol/signatures.js";

/** One vector: what goes in, what comes out, and `valid` or the token of the error. */
export interface Vector {
  readonly name: string;
  readonly input: Readonly<Record<string, unknown>>;
  readonly output: Readonly<Record<string, unknown>>;
  readonly expect: string;
}

/** The vectors of each file, by the file's name without `.json`. */
export type VectorFiles = Readonly<Record<string, readonly Vector[]>>;

/** The files that are no business of a browser, and why. */
export const NOT_A_BROWSERS: Readonly<Record<string, string>> = {
  noise: "only helpers draw noise; a page has no sampler",
  answer: "only a helper has the root and the identity with which an answer is made",
  ask: "only a helper judges asks; a verifier reads one to hold an answer against it",
};

/** Reads fields of an input as what the operation needs them to be. */
class Input {
  constructor(private readonly fields: Readonly<Record<string, unknown>>) {}

  bytes(name: string): Uint8Array {
    const text = this.text(name);
    return Uint8Array.from({ length: text.length / 2 }, (_, at) =>
      parseInt(text.slice(2 * at, 2 * at + 2), 16),
    );
  }

  text(name: string): string {
    const value = this.fields[name];
    if (typeof value !== "string") throw new TypeError(`${name} is not a string`);
    return value;
  }

  number(name: string): number {
    const value = this.fields[name];
    if (typeof value !== "number") throw new TypeError(`${name} is not a number`);
    return value;
  }

  list<Item>(name: string): readonly Item[] {
    const value = this.fields[name];
    if (!Array.isArray(value)) throw new TypeError(`${name} is not an array`);
    return value as readonly Item[];
  }

  any(name: string): unknown {
    return this.fields[name];
  }
}

type Operation = (kernel: Kernel, input: Input) => Record<string, unknown>;

const OPERATIONS: Readonly<Record<string, Operation>> = {
  prg: (_, input) => {
    // The fallback's; that of the other kernel shows in the reports of `mask`.
    const source = stream(input.number("suite"), input.bytes("seed"));
    const words = new Uint32Array(16);
    let text = "";
    while (text.length < 2 * input.number("length")) {
      source.next(words);
      text += hex(new Uint8Array(words.buffer));
    }
    return { stream: text.slice(0, 2 * input.number("length")) };
  },
  keys: (kernel, input) => {
    if (!kernel.keyIsAcceptable(input.bytes("key"))) throw new DandelionError("bad_key");
    return {};
  },
  signatures: (kernel, input) => {
    const [identity, body, signature] = ["identity", "body", "signature"].map((name) =>
      input.bytes(name),
    );
    verify(kernel, identity!, input.text("label"), body!, signature!);
    return {};
  },
  plan_bytes: (_, input) => {
    parseCanonicalJson(input.bytes("bytes"));
    return {};
  },
  descriptor: (kernel, input) => {
    const descriptor = descriptorOf(kernel, input);
    return {
      ctx: hex(descriptor.ctx),
      round: hex(descriptor.roundId),
      report_bytes: descriptor.reportBytes,
      rho_units: integer(rhoUnits(descriptor.l2sq, descriptor.noiseVar)),
    };
  },
  envelope: (kernel, input) => ({
    round: hex(decodeEnvelope(kernel, input.bytes("envelope")).roundId),
  }),
  mask: (kernel, input) => {
    const descriptor = descriptorOf(kernel, input);
    const secret = input.bytes("ephemeral_secret");
    const epk = kernel.x25519(secret, BASE_POINT);
    const seeds = descriptor.helpers.map(({ maskKey }, index) =>
      hex(maskSeed(kernel.x25519(secret, maskKey), epk, maskKey, descriptor.ctx, index + 1)),
    );
    const values = Float64Array.from(input.list<number>("values"));
    if (!gate(descriptor, values)) throw new TypeError("the gate refuses the values");
    return { seeds, report: hex(mask(kernel, descriptor, secret, values)) };
  },
  report: (kernel, input) => {
    const descriptor = descriptorOf(kernel, input);
    const { epk } = decodeReport(kernel, descriptor, input.bytes("report"));
    return { epk: hex(epk), shard: shardOf(kernel, descriptor, epk) };
  },
  answer_check: (kernel, input) => {
    const descriptor = descriptorOf(kernel, input);
    const ask = decodeAsk(input.bytes("ask"));
    checkAnswer(kernel, descriptor, ask, input.number("party"), input.bytes("answer"));
    return {};
  },
  release: (kernel, input) => {
    const { n, values } = verifyRelease(kernel, input.bytes("release"));
    return { n, values: Array.from(values, Number) };
  },
  accounting: (_, input) => {
    const units = rhoUnits(input.number("l2sq"), input.number("noise_var"));
    const epsilon = epsilonOf(units, +input.text("delta"));
    return { rho_units: integer(units), epsilon: epsilon.toFixed(6) };
  },
  plan: (_, input) => {
    const text = canonicalJson(input.any("plan"));
    const plan = parsePlan(parseCanonicalJson(new TextEncoder().encode(text)));
    const vector = execute(plan, input.list<Row>("rows"), () => input.list<number>("chosen"));
    return { vector: Array.from(vector), linf: plan.linf, l2sq: plan.l2sq };
  },
};

/**
 * Runs every vector and returns what went wrong, a sentence each; nothing if nothing did.
 *
 * A file that is neither run nor listed in `NOT_A_BROWSERS` is a failure, and so is one missing.
 */
export function runVectors(kernel: Kernel, files: VectorFiles): string[] {
  const expected = [...Object.keys(OPERATIONS), ...Object.keys(NOT_A_BROWSERS)].sort().join();
  const given = Object.keys(files).sort().join();
  const failures = given === expected ? [] : [`the files are ${given}, not ${expected}`];
  for (const [file, operation] of Object.entries(OPERATIONS)) {
    const vectors = files[file] ?? [];
    if (vectors.length === 0) failures.push(`${file}: no vectors`);
    for (const vector of vectors) {
      const found = outcome(() => operation(kernel, new Input(vector.input)));
      const wanted = show(vector.expect, vector.output);
      if (found !== wanted) failures.push(`${file}, ${vector.name}: ${found}, not ${wanted}`);
    }
  }
  return failures;
}

/** `valid` and the output, or the token; whatever else is thrown is told apart from both. */
function outcome(operation: () => Record<string, unknown>): string {
  try {
    return show("valid", operation());
  } catch (error) {
    return error instanceof DandelionError ? show(error.token, {}) : `thrown: ${String(error)}`;
  }
}

function show(verdict: string, output: Readonly<Record<string, unknown>>): string {
  return `${verdict} ${JSON.stringify(Object.entries(output).sort())}`;
}

function descriptorOf(kernel: Kernel, input: Input): Descriptor {
  return decodeDescriptor(kernel, input.bytes("descriptor"));
}

/** A JSON number below 2^53; from there on a decimal string. */
function integer(value: bigint): number | string {
  return value < 2n ** 53n ? Number(value) : String(value);
}
