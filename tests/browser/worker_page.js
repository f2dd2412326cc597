// A dedicated worker that does what the page tells it: code of a function, and its argument.
import { init } from "/sdk/worker.js";

self.init = init;
addEventListener("message", async ({ data: [code, argument] }) => {
  postMessage(await (0, eval)(code)(argument));
});
