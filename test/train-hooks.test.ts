import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { RlsdError } from "../lib/errors.js";
import { loadTokenizer } from "../lib/policy/tokenizer.js";
import type { TrainConfig } from "../lib/trainer/config.js";
import type { Stage } from "../lib/trainer/stage.js";
import { train } from "../lib/trainer/train.js";
import type { TrainHooks } from "../lib/trainer/train-hooks.js";
import type { Sample } from "../lib/verifiers/verifier.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

/** What a run of one step says of privileged text at its start. */
async function started(change: TrainConfig, privileged?: TrainHooks["privileged"]): Promise<(number | null)[]> {
  const { settings } = tinyTask();
  const data = { train: settings.data?.train };
  const seen: (number | null)[] = [];
  await train(
    { ...settings, steps: 1, data, ...change },
    {
      loadPolicy: TinyPolicy.load,
      onStart: (start) => seen.push(start.withoutPrivileged),
      privileged,
    },
  );
  return seen;
}

test("a run says at the start which rows bring no privileged text, where the rows are to bring it", async () => {
  const source = (source: "document" | "sibling") => ({ privileged: { ...tinyTask().settings.privileged, source } });
  expect(await started({})).toEqual([0]);
  expect(await started(source("document"))).toEqual([12]);
  expect(await started(source("sibling"))).toEqual([null]);
  expect(await started({ algorithm: "grpo" })).toEqual([null]);
  expect(await started({}, () => "x")).toEqual([null]);
});

test("hooks that would never be called, or are none, are refused before anything is loaded", async () => {
  const { settings } = tinyTask();
  const cases: [object, RegExp][] = [
    [{ onSteps: () => {} }, /Unknown field hooks\.onSteps\. Did you mean onStep\?/],
    [{ onEval: "log" }, /Expected a function for hooks\.onEval but received "log"/],
    [{ signal: {} }, /Expected an AbortSignal for hooks\.signal/],
    [{ resume: "" }, /Expected a run folder for hooks\.resume/],
  ];
  for (const [hooks, message] of cases) {
    const error = await train({ ...settings, model: "/nowhere" }, hooks as TrainHooks).catch((e: Error) => e);
    expect(error).toMatchObject({ code: "ERR_RLSD_INVALID_ARGUMENT", message: expect.stringMatching(message) });
  }
});

test("what a hook promises is waited for, and a promise that rejects ends the run", async () => {
  const { settings } = tinyTask();
  const rest = { steps: 2, eval: { every: 1, atStart: false } };
  const seen: string[] = [];
  const slowly = (what: string) => async () => {
    await new Promise((done) => setTimeout(done, 20));
    seen.push(what);
  };
  const onStage = ({ doing }: Stage) => {
    if (seen.at(-1) !== doing && (doing === "rollout" || doing === "evaluation")) seen.push(doing);
  };
  const hooks = { onStart: slowly("start"), onStep: slowly("step"), onEval: slowly("eval"), onStage };
  await train({ ...settings, ...rest }, { loadPolicy: TinyPolicy.load, ...hooks });
  const one = ["rollout", "step", "evaluation", "eval"];
  expect(seen).toEqual(["start", ...one, ...one]);
  for (const name of ["onStart", "onStep", "onEval"]) {
    const failing = { [name]: async () => Promise.reject(new Error(`${name} is down`)) };
    const run = train({ ...tinyTask().settings, ...rest }, { loadPolicy: TinyPolicy.load, ...failing });
    await expect(run).rejects.toThrow(`${name} is down`);
  }
});

test("hooks of privileged text that give none are told with their row", async () => {
  const cases: [unknown, RegExp][] = [
    [
      async () => Promise.reject(new Error("late")),
      /text, null or undefined for what hooks\.privileged returns for .*train\.jsonl:\d+ but received a promise/,
    ],
    [() => 5, /but received 5/],
    [() => JSON.parse("{"), /hooks\.privileged failed on a completion of .*train\.jsonl:\d+: .*JSON/],
    [
      () => {
        throw Object.create(null);
      },
      /hooks\.privileged failed on a completion of .*train\.jsonl:\d+: something without a text/,
    ],
  ];
  for (const [privileged, message] of cases) {
    const error = await started({}, privileged as TrainHooks["privileged"]).catch((e: Error) => e);
    expect(error).toMatchObject({ code: "ERR_RLSD_INVALID_ARGUMENT", message: expect.stringMatching(message) });
  }
  expect(await started({}, () => undefined)).toEqual([null]);
});

test("a run says what it is doing, and after each verdict how far it has come", async () => {
  const { settings } = tinyTask();
  const seen: Stage[] = [];
  const rest = {
    steps: 1,
    eval: { every: 1, atStart: false, samples: 2 },
    rollout: { prompts: 2, count: 2, maxTokens: 2 },
  };
  await train({ ...settings, ...rest }, { loadPolicy: TinyPolicy.load, onStage: (stage) => seen.push(stage) });
  const counted = (doing: Stage["doing"], done: number, total: number) => ({ step: 1, doing, done, total });
  // Where the machine is slow, words about tokens come between.
  const places = seen
    .map(({ tokens: _, ...rest }) => rest)
    .filter((one, i, all) => !isDeepStrictEqual(one, all[i - 1]));
  expect(places).toEqual([
    { step: 1, doing: "rollout", total: 4 },
    ...[1, 2, 3, 4].map((done) => counted("verify", done, 4)),
    { step: 1, doing: "teacher", total: 4 },
    { step: 1, doing: "update", total: 4 },
    // Six greedy ones, then two of each of six rows.
    ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18].map((done) =>
      counted("evaluation", done, 18),
    ),
  ]);
});

test("a run says how many tokens are drawn where drawing lasts", async () => {
  const { settings } = tinyTask();
  const seen: Stage[] = [];
  const pause = async () => new Promise((done) => setTimeout(done, 110));
  /** Draws as its model does, and is told to be slow at it. */
  const loadPolicy = async (...where: Parameters<typeof TinyPolicy.load>) => {
    const policy = await TinyPolicy.load(...where);
    const generate = policy.generate.bind(policy);
    policy.generate = async (prompts, options) => {
      const drawn = await generate(prompts, { ...options, onToken: undefined });
      for (const [i, completions] of drawn.entries()) {
        await pause();
        for (const [j, one] of completions.entries()) {
          one.tokenIds.forEach((id, at) => {
            options.onToken?.(i, j, id, one.logProbs[at]!);
          });
        }
      }
      return drawn;
    };
    return policy;
  };
  const rest = {
    steps: 1,
    eval: { every: 1, atStart: false },
    rollout: { prompts: 2, count: 2, maxTokens: 2 },
  };
  await train({ ...settings, ...rest }, { loadPolicy, onStage: (stage) => seen.push(stage) });
  for (const doing of ["rollout", "evaluation"]) {
    const counts = seen.flatMap((stage) => (stage.doing === doing && stage.tokens !== undefined ? [stage.tokens] : []));
    expect(counts.length).toBeGreaterThan(1);
    expect(counts).toEqual([...counts].sort((a, b) => a - b));
    expect(counts[0]).toBeGreaterThan(0);
  }
});

test("a verifier is given what was drawn without special tokens and with them, but for the one that ended it", async () => {
  const { settings, folder } = tinyTask();
  const { encode, decode } = await loadTokenizer(join(folder, "model"));
  const special = decode([0]);
  const ids = [...encode("ab"), 0, ...encode("c"), 1];
  const loadPolicy = async (...where: Parameters<typeof TinyPolicy.load>) => {
    const policy = await TinyPolicy.load(...where);
    const one = {
      tokenIds: Int32Array.from(ids),
      logProbs: new Float32Array(ids.length).fill(-1),
      finish: "stop",
    } as const;
    policy.generate = async (prompts, o) => prompts.map(() => Array.from({ length: o.count ?? 1 }, () => one));
    return Object.assign(policy, { endTokenIds: [1] });
  };
  const seen: (readonly [string, string | undefined])[] = [];
  const reward = ({ completion, raw }: Sample) => seen.push([completion, raw]) % 2;
  await train({ ...settings, steps: 1, reward, data: { train: settings.data?.train } }, { loadPolicy });
  expect(new Set(seen.map((one) => JSON.stringify(one)))).toEqual(new Set([JSON.stringify(["abc", `ab${special}c`])]));
});

test("a run that does not fit into the memory says by which settings it would take less", async () => {
  const { settings } = tinyTask();
  const loadPolicy: TrainHooks["loadPolicy"] = async () => {
    throw new RlsdError("ERR_RLSD_OUT_OF_MEMORY", "The weights need 9 bytes; 8 are free.");
  };
  await expect(train(settings, { loadPolicy })).rejects.toMatchObject({
    code: "ERR_RLSD_OUT_OF_MEMORY",
    message: expect.stringMatching(
      /^The weights need 9 bytes; 8 are free\. A run takes less with "lora\.rank", .*--dry-run/,
    ),
  });
});
