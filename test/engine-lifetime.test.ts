import { spawnSync } from "node:child_process";
import { createPolicy, type EnginePolicy, rlsd } from "../lib/index.js";
import { program } from "./support/child.js";
import { ids, prompts, TINY, tinyPolicy } from "./support/small-policy.js";

/** Runs a mode of engine-child.ts in a process of its own. */
function child(
  mode: string,
  flags: readonly string[] = [],
  env = process.env,
): { stdout: string; status: number | null } {
  const args = [...flags, program("engine-child.ts"), mode];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: "utf8", timeout: 200_000, env });
  if (stderr !== "") process.stderr.write(stderr);
  return { stdout, status };
}

const sampling = { maxTokens: 12, seed: 5, count: 3 };
const sequences = prompts(6).map((prompt, i) => ({ prompt, completion: ids(1 + i, 2, 3, 4, 5) }));
const batch = { sequences, advantages: new Float32Array(6).fill(1) };

describe("several models in one process", () => {
  test("do not disturb each other, calls interleaved", async () => {
    const shapes = [{}, { hiddenSize: 32, modelType: "qwen3" as const }, { tieEmbeddings: true }];
    const alone: unknown[] = [];
    for (const shape of shapes) {
      const policy = await tinyPolicy(shape);
      alone.push([await policy.generate(prompts(3), sampling), await policy.score(sequences)]);
      await policy.dispose();
    }
    const policies = await Promise.all(shapes.map((shape) => tinyPolicy(shape)));
    const calls = policies.flatMap((policy) => [policy.generate(prompts(3), sampling), policy.score(sequences)]);
    const results = await Promise.all(calls);
    expect([results.slice(0, 2), results.slice(2, 4), results.slice(4)]).toEqual(alone);
    await Promise.all(policies.map((policy) => policy.dispose()));
  });

  test("a snapshot does not follow, and copyFrom moves towards the other", async () => {
    const policy = await tinyPolicy();
    const teacher = await policy.snapshot();
    const start = await teacher.score(sequences);
    expect(await policy.score(sequences)).toEqual(start);
    await policy.accumulate(batch, rlsd({ creditMix: 0 }));
    await policy.step({ learningRate: 0.01 });
    expect(await teacher.score(sequences)).toEqual(start);
    const name = "model.embed_tokens.weight";
    const [old, now] = [await teacher.readParameter(name), await policy.readParameter(name)];
    await teacher.copyFrom(policy, 0.75);
    const mixed = await teacher.readParameter(name);
    for (const [i, w] of mixed.entries()) expect(w).toBeCloseTo(0.75 * old[i]! + 0.25 * now[i]!, 6);
    await teacher.copyFrom(policy);
    expect(await teacher.score(sequences)).toEqual(await policy.score(sequences));
    await teacher.copyFrom(policy, 1);
    expect(await teacher.readParameter(name)).toEqual(now);
    const other = await tinyPolicy({ hiddenSize: 32 });
    await expect(teacher.copyFrom(other)).rejects.toThrow(/Expected a policy of the same shape/);
    for (const p of [policy, teacher, other]) await p.dispose();
  });
});

describe("order", () => {
  test("calls on one policy run first in, first out, also beside a streamed generation", async () => {
    const policy = await tinyPolicy();
    const order: string[] = [];
    const first = policy
      .generate(prompts(2), { ...sampling, onToken: () => order.push("token") })
      .then(() => order.push("generated"));
    const second = policy.accumulate(batch, rlsd({ creditMix: 0 })).then(() => order.push("accumulated"));
    const third = policy.step({ learningRate: 0.01 }).then(() => order.push("stepped"));
    await Promise.all([first, second, third]);
    expect(order.slice(-3)).toEqual(["generated", "accumulated", "stepped"]);
    expect(order.lastIndexOf("token")).toBe(order.length - 4);
    await policy.dispose();
  });

  test("a call that fails does not stop the next", async () => {
    const policy = await tinyPolicy();
    const bad = policy.accumulate({ ...batch, oldLogProbs: new Float32Array(30).fill(Number.NaN) }, rlsd());
    const good = policy.score(sequences);
    await expect(bad).rejects.toMatchObject({ code: "ERR_RLSD_NON_FINITE" });
    expect(await good).toHaveLength(6);
    await policy.dispose();
  });

  test("the event loop runs on while the engine works", async () => {
    const policy = await createPolicy({ ...TINY, hiddenSize: 64, numLayers: 4 });
    let ticks = 0;
    // An engine that held the thread would never let it tick; a busy machine may run it late, so it has several tries.
    for (let attempt = 0; attempt < 20 && ticks <= 5; attempt++) {
      const timer = setInterval(() => ticks++, 1);
      await policy.generate(prompts(40), { maxTokens: 80, seed: 0, count: 8 });
      clearInterval(timer);
    }
    expect(ticks).toBeGreaterThan(5);
    await policy.dispose();
  });
});

describe("memory", () => {
  test("a limit makes a typed error, says the sizes, and leaves the policy usable", async () => {
    const weights = (await tinyPolicy()).parameterCount * 4;
    const policy = await tinyPolicy({}, { memoryLimit: 6 << 20 });
    const many = Array.from({ length: 3000 }, (_, i) => sequences[i % 6]!);
    const call = policy.accumulate({ sequences: many, advantages: new Float32Array(3000).fill(1) }, rlsd());
    await expect(call).rejects.toMatchObject({
      code: "ERR_RLSD_OUT_OF_MEMORY",
      message: expect.stringMatching(
        /^Activations need \d+ bytes; \d+ of the 6291456 that this model may use are free/,
      ),
    });
    const few = { sequences: sequences.slice(0, 1), advantages: Float32Array.of(1) };
    expect((await policy.accumulate(few, rlsd())).stats.tokens).toBe(5);
    await policy.dispose();
    await expect(tinyPolicy({}, { memoryLimit: weights - 1 })).rejects.toMatchObject({
      code: "ERR_RLSD_OUT_OF_MEMORY",
    });
  });

  test("activation memory is bounded by batchTokens whatever the batch", async () => {
    const policy = await tinyPolicy({}, { batchTokens: 32 });
    const long = Array.from({ length: 2000 }, (_, i) => sequences[i % 6]!);
    await policy.accumulate({ sequences: long, advantages: new Float32Array(2000).fill(1) }, rlsd({ creditMix: 0 }));
    const rows = long.reduce((total, s) => total + s.prompt.length + s.completion.length - 1, 0);
    const used = await policy.memoryBytes();
    expect(used).toBeGreaterThan(policy.activationBytes(32, true));
    // What is left grows with the batch, but by a score of numbers a token: arrays and one chunk of logits.
    expect(used).toBeLessThan(policy.activationBytes(rows, true) / 4);
    await policy.dispose();
  });

  test("disposal gives the memory back to the machine", () => {
    const { held, first, last } = JSON.parse(child("memory", ["--expose-gc"]).stdout) as Record<string, number>;
    // Weights, gradient and two moments of 13.6 million parameters take 218 MB.
    expect(held! - first!).toBeGreaterThan(180);
    expect(last! - first!).toBeLessThan(25);
  });

  test("policies that share weights take their memory once, and the last of them gives it back", () => {
    const { alone, together, last, after } = JSON.parse(child("shared", ["--expose-gc"]).stdout) as Record<
      string,
      number
    >;
    // The weights take 54 MB.
    expect(together! - alone!).toBeLessThan(27);
    expect(Math.abs(last! - together!)).toBeLessThan(27);
    expect(last! - after!).toBeGreaterThan(40);
  });
});

describe("endings", () => {
  test("a disposed policy refuses every call, disposing twice is fine, pending calls finish first", async () => {
    const policy = await tinyPolicy();
    const pending = policy.score(sequences);
    const disposed = policy.dispose();
    expect(await pending).toHaveLength(6);
    await disposed;
    await policy.dispose();
    for (const call of [
      () => policy.score(sequences),
      () => policy.generate(prompts(1), sampling),
      () => policy.accumulate(batch, rlsd()),
      () => policy.step({ learningRate: 1 }),
      () => policy.snapshot(),
      () => policy.save("/nowhere"),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: "ERR_RLSD_DISPOSED" });
    }
  });

  test("await using disposes", async () => {
    let kept: EnginePolicy;
    {
      await using policy = await tinyPolicy();
      kept = policy;
    }
    await expect(kept.score([])).rejects.toMatchObject({ code: "ERR_RLSD_DISPOSED" });
  });

  test("a process exits with calls pending", () => {
    expect(child("exit")).toEqual({ stdout: "leaving", status: 7 });
  });

  test("a worker is terminated while the engine works, again and again, and the process lives", () => {
    expect(child("terminate")).toEqual({ stdout: "alive", status: 0 });
  });

  test("a worker cancels calls that waited, while it exits", () => {
    // Without a cache of freed blocks glibc ends a process that has written one.
    const env = { ...process.env, GLIBC_TUNABLES: "glibc.malloc.tcache_count=0" };
    expect(child("leave", [], env)).toEqual({ stdout: "5", status: 0 });
  });
});
