// What the printed examples take from the reader's own program.
import type * as api from "../../lib/index.js";

declare global {
  const logProbs: Float32Array;
  const oldLogProbs: Float32Array;
  const teacherLogProbs: Float32Array;
  const cuSeqlens: Int32Array;
  const rewards: readonly (number | null)[];
  const groupIds: Int32Array;
  const tokenIds: Int32Array;
  const ids: Int32Array;
  const drawn: Uint8Array;
  const teacherRows: Int32Array;
  const step: number;
  const advantages: Float32Array;
  const logits: api.Tensor;
  const teacherLogits: api.Tensor;
  const row: Readonly<Record<string, unknown>>;
  const sample: api.Sample;
  const signal: AbortSignal;
  function backward(gradient: Float32Array): void;
  const createStream: typeof api.createStream;
  const createVerifier: typeof api.createVerifier;
  const policyLoss: typeof api.policyLoss;
  const policyLossSync: typeof api.policyLossSync;
  const rlsd: typeof api.rlsd;
}
