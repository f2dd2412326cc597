// The client of a page (docs/protocol.md section 14).

import type { Client } from "./sdk/api.js";
import { start } from "./sdk/client.js";
import type { Options } from "./sdk/config.js";
import { pageEnv } from "./sdk/env.js";

export type * from "./sdk/types.js";

/**
 * Starts a client of one collector and returns it at once.
 *
 * It throws nothing: with options that cannot be used the client does nothing, says why on the
 * console and counts the fault `config`. Before consent is `granted` nothing is stored or sent.
 */
export function init(options: Options): Client {
  return start(options, pageEnv(options, () => import("./sdk/joining.js")));
}
