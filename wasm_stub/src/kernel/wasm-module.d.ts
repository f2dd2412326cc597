/** The compiled kernel, deflated, in base64; `build.mjs` puts it there. */
declare module "wasm:kernel" {
  const packed: string;
  export default packed;
}
