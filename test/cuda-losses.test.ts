import { type PolicyBatch, policyLoss, policyLossSync, rlsd, type Tensor, tensor } from "../lib/index.js";
import { down, suite, up } from "./support/device-batch.js";
import { withEmulatedCuda } from "./support/emulated-cuda.js";
import { asTensor } from "./support/logits.js";
import {
  expectOfficial,
  inputsOf,
  loadVector,
  poisoned,
  relativeError,
  type VectorCase,
  vectorNames,
} from "./support/vectors.js";

const vectorUp = (values: ArrayLike<number>): Tensor => up(tensor(Float32Array.from(values), [values.length]));

/** The batch of a published case, every tensor on the device; per-token inputs there too when `deep`. */
function onDevice(v: VectorCase, deep: boolean): PolicyBatch {
  return {
    student: { logits: up(asTensor(v.studentLogits, [v.sequences, v.tokens / v.sequences, v.columns])) },
    teacher: { logits: up(asTensor(v.teacherLogits, [v.tokens, v.columns])) },
    ...inputsOf(v),
    ...(deep && {
      advantages: vectorUp(v.expected.advantages),
      oldLogProbs: vectorUp(v.oldLogProbs),
      refLogProbs: vectorUp(v.refLogProbs),
    }),
  };
}

suite("on a device", () => {
  withEmulatedCuda();

  describe.each(vectorNames)("policyLoss against the official code, %s, masked rows poisoned", (name) => {
    const vector = poisoned(loadVector(name));
    const { completionMask: mask, expected } = vector;
    const objective = rlsd(vector.fields);

    it("gives its log-probs, credit, loss and gradients over logits", () => {
      const got = policyLossSync(onDevice(vector, false), objective);
      expectOfficial(got, vector);
      expect(got.gradient.logits!.device).toBe("cuda:0");
      expect(relativeError(down(got.gradient.logits!), expected.dLogits)).toBeLessThan(5e-5);
    });

    it("gives its loss, token advantages and gradient over log-probs", async () => {
      const masked = (values: Float64Array) => vectorUp(values.map((value, i) => (mask[i] === 1 ? value : Number.NaN)));
      const student = { logProbs: masked(expected.logProbs) };
      const teacher = { logProbs: masked(expected.teacherLogProbs) };
      const got = await policyLoss({ ...onDevice(vector, true), student, teacher }, objective);
      expectOfficial(got, vector);
    });

    it("gives the same bits queued, over the logits, and with results that stay", async () => {
      const fresh = policyLossSync(onDevice(vector, false), objective);
      const gradient = down(fresh.gradient.logits!);
      const batch = onDevice(vector, true);
      const queued = await policyLoss(batch, objective);
      expect(down(queued.gradient.logits!)).toEqual(gradient);
      expect({ ...queued, gradient: queued.gradient.logProbs }).toEqual({
        ...fresh,
        gradient: fresh.gradient.logProbs,
      });
      using kept = await policyLoss(batch, objective, { results: "device" });
      expect(down(kept.loss)).toEqual(Float32Array.of(fresh.loss));
      expect(down(kept.logProbs)).toEqual(fresh.logProbs);
      expect(down(kept.teacherLogProbs!)).toEqual(fresh.teacherLogProbs);
      expect(down(kept.tokenAdvantages)).toEqual(fresh.tokenAdvantages);
      expect(down(kept.evidenceWeights)).toEqual(fresh.evidenceWeights);
      expect(down(kept.gradient.logProbs)).toEqual(fresh.gradient.logProbs);
      expect(down(kept.gradient.logits!)).toEqual(gradient);
      expect(await kept.stats()).toEqual(fresh.stats);
      const inPlace = policyLossSync(batch, objective, { inPlace: true });
      const { logits } = batch.student as { logits: Tensor };
      expect(inPlace.gradient.logits).toBe(logits);
      expect(down(logits)).toEqual(gradient);
      expect(inPlace.stats).toEqual(fresh.stats);
    });
  });
});
