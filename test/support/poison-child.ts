/** Reads memory that is not the device's, and says what each later call answers: calls fail, disposal does not. */
import { empty, grpo, policyLoss, policyLossSync, RlsdError, type Tensor, toHost } from "../../lib/index.js";
import { fromPointer } from "../../lib/interop.js";

const say = (error: unknown): string =>
  error instanceof RlsdError ? `${error.code}: ${error.message}` : String(error);

function answer(call: () => unknown): string {
  try {
    call();
    return "done";
  } catch (error) {
    return say(error);
  }
}

const logits = empty([2, 4], "f32", "cuda:0");
const batch = {
  student: { logits },
  tokenIds: Int32Array.of(0, 1),
  cuSeqlens: Int32Array.of(0, 2),
  advantages: Float32Array.of(1),
};
const kept = policyLossSync(batch, grpo(), { results: "device" });
const read = (t: Tensor) => answer(() => toHost(t));
const answers = [
  read(logits),
  read(fromPointer(4096n, { shape: [4], dtype: "f32", device: "cuda:0" })),
  read(kept.loss),
  await policyLoss(batch, grpo()).catch(say),
  answer(() => policyLossSync(batch, grpo(), { results: "device" })),
  answer(() => kept[Symbol.dispose]()),
  answer(() => logits[Symbol.dispose]()),
];
process.stdout.write(JSON.stringify(answers));
