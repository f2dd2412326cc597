// The envelope: a descriptor and everybody's signature of it (docs/protocol.md section 3.4).

import type { Kernel } from "../kernel/kernel.js";
import { decodeDescriptor, type Descriptor } from "./descriptor.js";
import { reader, type Reader } from "./encoding.js";
import { verify } from "./signatures.js";

/** A descriptor and its signatures, the collector's first, 64 bytes each. */
export interface Envelope {
  readonly descriptor: Descriptor;
  readonly signatures: readonly Uint8Array[];
}

/**
 * Reads an envelope and verifies every signature in it.
 *
 * @throws DandelionError a token of section 3.2, `trailing`, or `bad_signature` naming the signer.
 */
export function decodeEnvelope(kernel: Kernel, data: Uint8Array): Descriptor {
  const envelope = wholeEnvelope(kernel, data);
  verifyEnvelope(kernel, envelope);
  return envelope.descriptor;
}

/** The envelope whose bytes are `data`, without looking at its signatures. */
export function wholeEnvelope(kernel: Kernel, data: Uint8Array): Envelope {
  const source = reader(data);
  const envelope = readEnvelope(kernel, source);
  source.end();
  return envelope;
}

/** Takes an envelope off the front of a message, without looking at its signatures. */
export function readEnvelope(kernel: Kernel, source: Reader): Envelope {
  const descriptor = decodeDescriptor(kernel, source.sized(4));
  const signatures = [source.take(64), ...descriptor.helpers.map(() => source.take(64))];
  return { descriptor, signatures };
}

/** Verifies the signatures in their order. Throws `bad_signature` naming the signer. */
export function verifyEnvelope(kernel: Kernel, envelope: Envelope): void {
  Array.from(verifying(kernel, envelope));
}

/** As `verifyEnvelope`; pauses before each signature, since one takes milliseconds. */
export function* verifying(
  kernel: Kernel,
  { descriptor, signatures }: Envelope,
): Generator<void, void> {
  const { collector, helpers, ctx } = descriptor;
  const signers = [collector, ...helpers.map((helper) => helper.identity)];
  for (const [party, identity] of signers.entries()) {
    yield;
    const signer = party ? `helper ${party}` : "collector";
    verify(kernel, identity, "descriptor", ctx, signatures[party]!, signer);
  }
}
