// Random cases from the Python implementation, and the seed with which to see them again.
import { execFileSync } from "node:child_process";

/** One case of `random_cases.py`; its members depend on the kind. */
export type Case = Readonly<Record<string, unknown>>;

const PYTHON = process.env["PYTHON"] ?? "../.venv/bin/python";

/** The seed of this run: SEED from the environment, or a new one. */
export const SEED = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));

/** `count` cases of a kind. */
export function cases(kind: string, count: number): Case[] {
  const lines = execFileSync(PYTHON, ["test/random_cases.py", kind, `${SEED}`, `${count}`], {
    encoding: "utf8",
    maxBuffer: 2 ** 30,
    timeout: 120_000,
  });
  return lines
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Case);
}

/** Bytes of hexadecimal text. */
export function bytesOf(text: unknown): Uint8Array {
  return new Uint8Array(Buffer.from(text as string, "hex"));
}

/** What to say of a case that failed. */
export function told(kind: string, index: number): string {
  return `case ${index} of ${kind}; replay with SEED=${SEED}`;
}
