// The kernel of this page: compiled if WebAssembly may run here, else in TypeScript.

import type { Kernel } from "./kernel.js";
import { makeKernel } from "./make.js";
import { wasmLoops } from "./wasm.js";

/**
 * Loads the kernel that this page can run.
 *
 * @param suites those that it will be asked for. The compiled kernel has suite 1; with another the
 * kernel in TypeScript is loaded, too, and lends it its AES.
 */
export async function loadKernel(suites: readonly number[] = [1]): Promise<Kernel> {
  const fallback = () => import("./fallback.js");
  const other = suites.some((suite) => suite !== 1) ? await fallback() : undefined;
  try {
    return makeKernel(
      await wasmLoops((...call) => {
        if (!other) throw new RangeError("suite");
        other.loops.addStream(...call);
      }),
    );
  } catch {
    return (other ?? (await fallback())).kernel;
  }
}
