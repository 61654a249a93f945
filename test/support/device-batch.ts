/** One small batch, on the CPU or on a device, with every kind of input. */
import { grpo, type PolicyBatch, rlsd, type Tensor, tensor, toDevice, toHost } from "../../lib/index.js";
import { hasDevice } from "./emulated-cuda.js";
import { randomLogits } from "./logits.js";

/** `describe`, where a device can be tested. */
export const suite = hasDevice ? describe : describe.skip;
if (!hasDevice)
  process.stdout.write("not run: calls on an emulated device (no C++ compiler, or one without makecontext)\n");

export const N = 6;
export const V = 37;
export const tokenIds = Int32Array.from({ length: N }, (_, i) => (7 * i) % V);
export const wave = (scale: number) => Float32Array.from({ length: N }, (_, i) => -1.5 + scale * Math.sin(3 * i));
export const values = (seed: number): Float32Array => Float32Array.from(randomLogits((N + 2) * V, 2, seed));
/** Every row but 1 and 4, backwards. */
export const rows = Int32Array.of(7, 6, 5, 3, 2, 0);

export const up = (t: Tensor): Tensor => toDevice(t, "cuda:0");
export const vector = (numbers: Float32Array): Tensor => up(tensor(numbers, [numbers.length]));
export const down = (t: Tensor): Float32Array => toHost(t).data as Float32Array;

export const small = {
  tokenIds,
  cuSeqlens: Int32Array.of(0, 2, 2, N),
  completionMask: Uint8Array.of(1, 1, 0, 1, 1, 1),
  spanMask: Uint8Array.of(1, 1, 1, 1, 0, 1),
  advantages: Float32Array.of(1.5, 0, -0.7),
};
export const hostVectors = { oldLogProbs: wave(0.3), refLogProbs: wave(0.5), samplerLogProbs: wave(0.2) };
export const objective = rlsd({ klCoef: 0.1, importanceCorrection: "token-truncate" }, grpo());

/** Logits of N + 2 rows, the last two columns padding. */
export const scores = (seed: number, place: (t: Tensor) => Tensor) => ({
  logits: place(tensor(values(seed), [N + 2, V])),
  rows,
  vocabSize: V - 2,
});
export const same = (t: Tensor): Tensor => t;
export function batchOn(place: (t: Tensor) => Tensor): PolicyBatch {
  const views = { student: scores(1, place), teacher: scores(2, place), contrast: scores(3, place) };
  return { ...views, ...small, ...hostVectors, tokenIds: tokenIds.map((id) => id % (V - 2)) };
}

/** The rows that the tokens name: the others stay as they were where the gradient goes over the logits. */
export const named = (numbers: ArrayLike<number>): number[] =>
  [...rows].flatMap((row) => Array.from({ length: V }, (_, column) => numbers[row * V + column]!));

export const codeOf = (call: () => unknown): string => {
  try {
    call();
    return "nothing";
  } catch (error) {
    return (error as { code: string }).code;
  }
};

export function close(got: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(got.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) expect(got[i]).toBeCloseTo(expected[i]!, 5);
}
