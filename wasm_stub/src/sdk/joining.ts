// What a page needs only when there is a round to answer, and loads then: the kernel, and the
// protocol from the envelope to the report. Most visits to a page end before that.

export { loadKernel } from "../kernel/load.js";
export { consider } from "./consider.js";
export { make, promise, receiptOf } from "./contribute.js";
