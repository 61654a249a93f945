import type { EnginePolicy, NewModelConfig } from "../../lib/index.js";
import type { LoraOptions } from "../../lib/policy/lora.js";
import { randomNumbers } from "./logits.js";
import { tinyPolicy } from "./small-policy.js";

/** Overwrites the parameters that `wanted` picks with uniform numbers in +-size. */
async function randomize(policy: EnginePolicy, wanted: (name: string) => boolean, size: number): Promise<void> {
  for (const [i, name] of policy.parameterNames.entries()) {
    if (!wanted(name)) continue;
    const next = randomNumbers(100 + i);
    await policy.writeParameter(
      name,
      (await policy.readParameter(name)).map(() => size * (2 * next() - 1)),
    );
  }
}

/** A small random model whose biases, if it has any, are not 0. */
export async function biasedPolicy(config: Partial<NewModelConfig> = {}, batchTokens?: number): Promise<EnginePolicy> {
  const policy = await tinyPolicy(config, { batchTokens });
  await randomize(policy, (name) => name.endsWith(".bias"), 0.5);
  return policy;
}

/** Adapters that change what the model computes: B random, where new ones have 0. */
export async function adapted(base: EnginePolicy, options: LoraOptions = {}): Promise<EnginePolicy> {
  const policy = await base.withLora(options);
  await randomize(policy, (name) => name.includes(".lora_B."), 0.3);
  return policy;
}

/** One parameter after another, in the order of parameterNames. */
export async function allOf(policy: EnginePolicy, what: "weights" | "gradient" = "weights"): Promise<Float32Array[]> {
  const parts: Float32Array[] = [];
  for (const name of policy.parameterNames) parts.push(await policy.readParameter(name, what));
  return parts;
}

/** The sum over k of a(i, k) b(k, j) for each i and j: n x m numbers in float64. */
function product(
  n: number,
  m: number,
  inner: number,
  a: (i: number, k: number) => number,
  b: (k: number, j: number) => number,
) {
  return Float64Array.from({ length: n * m }, (_, at) => {
    let sum = 0;
    for (let k = 0; k < inner; k++) sum += a(Math.floor(at / m), k) * b(k, at % m);
    return sum;
  });
}

/** What the chain rule makes of the gradient dW (out, in) of W + scale B A: dA = scale B^T dW, dB = scale dW A^T. */
export function chainRule(dW: Float32Array, a: Float32Array, b: Float32Array, rank: number, scale: number) {
  const inputs = a.length / rank;
  const outputs = b.length / rank;
  const dA = product(
    rank,
    inputs,
    outputs,
    (i, k) => scale * b[k * rank + i]!,
    (k, j) => dW[k * inputs + j]!,
  );
  const dB = product(
    outputs,
    rank,
    inputs,
    (i, k) => scale * dW[i * inputs + k]!,
    (k, j) => a[j * inputs + k]!,
  );
  return { dA, dB };
}
