import { resolveConfig } from "../lib/trainer/config.js";
import { merge, parseSet } from "../lib/trainer/config-file.js";

const base = { model: "m", data: { train: ["d.jsonl"] } };

test.each([
  // By its name in another section, and with that section's.
  ["learningRate", /There is no setting "learningRate"\. Did you mean "optimizer\.learningRate"\?$/],
  ["learning_rate", /"optimizer\.learningRate"\?$/],
  ["temperature", /Did you mean "rollout\.temperature" or "eval\.temperature"\?$/],
  ["every", /Did you mean "teacher\.every", "eval\.every" or "checkpoint\.every"\?$/],
  ["loraRank", /"lora\.rank"\?$/],
  ["creditMix", /"objective\.creditMix"\?$/],
  ["rollout.learningRate", /"rollout\.learningRate"\. Did you mean "optimizer\.learningRate"\?$/],
  // By another trainer's.
  ["num_generations", /"rollout\.count"\?$/],
  ["beta", /Did you mean "distill\.beta" or "objective\.klCoef"\?$/],
  ["epsilon_high", /"objective\.clipHigh"\?$/],
  ["reward_funcs", /"reward"\?$/],
  ["optimizer.lr", /"optimizer\.learningRate"\?$/],
  // Misspelt, where it belongs and elsewhere.
  ["rolout", /"rollout"\?$/],
  ["rollout.temprature", /"rollout\.temperature"\?$/],
  ["minibatchs", /"update\.minibatches"\?$/],
  // Nothing is near.
  ["xyzzyx", /Expected one of model, output, algorithm/],
])("a setting that is none, %s, is told by what was meant", async (name, message) => {
  const given = merge(base, await parseSet([`${name}=1`]));
  expect(() => resolveConfig(given)).toThrow(message);
});
