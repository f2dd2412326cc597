// Statements under Ed25519 identities (docs/protocol.md section 2). The strictness is the kernel's.

import type { Kernel } from "../kernel/kernel.js";
import { labelled } from "./encoding.js";
import { need } from "./errors.js";

/**
 * Checks a signature over the statement `name` with this body.
 *
 * @param identity 32 bytes.
 * @param signature 64 bytes.
 * @param signer who that is, for the detail of the error.
 * @throws DandelionError `bad_signature`.
 */
export function verify(
  kernel: Kernel,
  identity: Uint8Array,
  name: string,
  body: Uint8Array,
  signature: Uint8Array,
  signer?: string,
): void {
  need(kernel.ed25519Verify(identity, labelled(name, body), signature), "bad_signature", signer);
}
