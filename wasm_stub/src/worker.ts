// The client in a dedicated worker, where there is no document. Nobody can say when a worker is
// left, so reports are made and sent at once, or when the page asks for it by `leave` or `flush`.

import type { Client } from "./sdk/api.js";
import { start } from "./sdk/client.js";
import type { Options } from "./sdk/config.js";
import { commonEnv } from "./sdk/env.js";

export type * from "./sdk/types.js";

/** Starts a client; see `init` of the page. `holdS` and `beacon` mean nothing here. */
export function init(options: Options): Client {
  return start(options, commonEnv(() => import("./sdk/joining.js")));
}
