// The loops of a kernel in WebAssembly: `dandelion/kernel/` compiled for pages.

import { chacha20State } from "./chacha20.js";
import { KEY_BYTES } from "./kernel.js";
import type { Loops } from "./make.js";
import packed from "wasm:kernel";

const PAGE_BYTES = 65536;

/** What `dandelion/kernel/src/wasm.rs` exports; pointers and lengths are its to name. */
interface Exports {
  readonly memory: WebAssembly.Memory;
  readonly __heap_base: WebAssembly.Global<"i32">;
  x25519(scalar: number, point: number, output: number): void;
  add_stream(state: number, words: number, count: number, wide: boolean): void;
}

/** The bytes of the module: a third less to download than they are in base64 alone. */
async function inflate(): Promise<ArrayBuffer> {
  const deflated = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([deflated]).stream();
  return new Response(stream.pipeThrough(new DecompressionStream("deflate-raw"))).arrayBuffer();
}

/**
 * Makes an instance.
 *
 * @param addStream that of another kernel, for suites other than 1.
 * @throws what the engine says where WebAssembly may not or cannot run.
 */
export async function wasmLoops(addStream: Loops["addStream"]): Promise<Loops> {
  const { instance } = await WebAssembly.instantiate(await inflate());
  const exports = instance.exports as unknown as Exports;
  const heap = exports.__heap_base.value as number;

  /** Lays out the inputs, calls, reads `count` words, and erases all memory: it holds no data. */
  const run = (inputs: Uint8Array[], call: () => void, at: number, output: Uint8Array): void => {
    const { memory } = exports;
    const end = inputs.reduce((sum, input) => sum + input.length, heap) + KEY_BYTES;
    const missing = end - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES));
    const all = new Uint8Array(memory.buffer);
    let to = heap;
    for (const input of inputs) {
      all.set(input, to);
      to += input.length;
    }
    call();
    output.set(all.subarray(at, at + output.length));
    all.fill(0);
  };

  return {
    name: "wasm",
    x25519(scalar, point) {
      const output = new Uint8Array(KEY_BYTES);
      const at = [heap, heap + KEY_BYTES, heap + 2 * KEY_BYTES] as const;
      run([scalar, point], () => exports.x25519(...at), at[2], output);
      return output;
    },
    addStream(suite, seed, words, wide) {
      if (suite !== 1) return addStream(suite, seed, words, wide);
      const state = chacha20State(seed);
      const bytes = (from: Uint32Array): Uint8Array =>
        new Uint8Array(from.buffer, from.byteOffset, from.byteLength);
      const at = heap + state.byteLength;
      run(
        [bytes(state), bytes(words)],
        () => exports.add_stream(heap, at, words.length, wide),
        at,
        bytes(words),
      );
      state.fill(0);
    },
  };
}
