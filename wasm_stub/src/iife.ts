// The client of a page as one classic script, which one integrity hash covers: what other pages load
// when there is a round to answer is in it.

import type { Client } from "./sdk/api.js";
import { start } from "./sdk/client.js";
import type { Options } from "./sdk/config.js";
import { pageEnv } from "./sdk/env.js";
import * as joining from "./sdk/joining.js";

/** Starts a client; see `init` of the package. */
export function init(options: Options): Client {
  return start(options, pageEnv(options, () => Promise.resolve(joining)));
}
