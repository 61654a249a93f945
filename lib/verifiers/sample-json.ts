import type { Sample } from "./verifier.js";

/** A sample as JSON, with 64-bit integers of a data row as decimal texts. */
export const sampleJson = (sample: Sample): string =>
  JSON.stringify(sample, (_, value: unknown) => (typeof value === "bigint" ? value.toString() : value));

/** Bytes of an answer at most: a verdict is small, and what never ends must not fill the memory of who trains. */
export const MOST_BYTES = 1 << 20;
