// Checked by `tsc -p test --noEmit`; nothing here runs.
import { expectTypeOf } from "expect-type";
import {
  backendInfo,
  createEnvironment,
  createVerifier,
  creditMixAt,
  type DevicePolicyResult,
  distillLoss,
  distillLossSync,
  type dryRun,
  type EnginePolicy,
  type EnvironmentSetting,
  empty,
  groupAdvantages,
  grpo,
  type MadeVerifier,
  type NewModelConfig,
  type Objective,
  type ObjectiveFields,
  type Policy,
  type PolicyBatch,
  type PolicyGradient,
  type PolicyResult,
  packTokens,
  policyLoss,
  policyLossSync,
  type ResolvedConfig,
  type RlsdError,
  rlsd,
  rlsdCredit,
  type SamplingOptions,
  type Scores,
  type Stats,
  type Tensor,
  type Tools,
  type TrainBatch,
  type TrainConfig,
  tensor,
  toHost,
  tokenLogProbs,
  tokenLogProbsSync,
  train,
  type WorkerVerifier,
} from "../../lib/index.js";

declare const batch: PolicyBatch;
declare const either: boolean;
declare const teacher: Scores;

expectTypeOf(policyLoss(batch, grpo())).resolves.toEqualTypeOf<PolicyResult>();
expectTypeOf(policyLossSync(batch, grpo(), { results: "host" })).toEqualTypeOf<PolicyResult>();
expectTypeOf(policyLoss(batch, grpo(), { results: "device" })).resolves.toEqualTypeOf<DevicePolicyResult>();
expectTypeOf(policyLossSync(batch, grpo(), { results: "device" })).toEqualTypeOf<DevicePolicyResult>();
expectTypeOf<PolicyResult["gradient"]["logProbs"]>().toEqualTypeOf<Float32Array>();
expectTypeOf<PolicyResult["evidenceWeights"]>().toEqualTypeOf<Float32Array>();
expectTypeOf<PolicyResult["teacherLogProbs"]>().toEqualTypeOf<Float32Array | undefined>();
expectTypeOf<Stats["klMean"]>().toEqualTypeOf<number | undefined>();
expectTypeOf<Stats["loss"]>().toEqualTypeOf<number>();
expectTypeOf(groupAdvantages).returns.toEqualTypeOf<Float32Array>();
expectTypeOf(creditMixAt).returns.toEqualTypeOf<number>();
expectTypeOf(backendInfo().cpu.available).toEqualTypeOf<boolean>();
expectTypeOf<RlsdError["code"]>().toEqualTypeOf<`ERR_RLSD_${string}`>();
expectTypeOf<RlsdError["index"]>().toEqualTypeOf<number | undefined>();
expectTypeOf<RlsdError["count"]>().toEqualTypeOf<number | undefined>();
expectTypeOf<ObjectiveFields["reduction"]>().toEqualTypeOf<
  "token-mean" | "sequence-mean" | "sequence-sum" | "token-sum"
>();

// The swap in a trainer: a batch gains a teacher, the objective is wrapped, nothing else changes.
expectTypeOf(policyLoss({ ...batch, teacher }, rlsd({}, grpo()))).resolves.toEqualTypeOf<PolicyResult>();
// An absent field may be written as undefined.
policyLossSync({ ...batch, teacher: undefined }, grpo({ klCoef: undefined }), { signal: undefined, threads: 2 });
// Rewards may hold null, and any list of numbers will do.
groupAdvantages([1, null], Int32Array.of(0, 0), { baseline: "leave-one-out" });

// @ts-expect-error an objective is made by a factory: its fields alone are not one
const handMade: Objective = { ...({} as ObjectiveFields) };
// @ts-expect-error an objective is frozen
grpo().clipLow = 0.1;
// @ts-expect-error an objective is rlsd's second argument
rlsd(grpo());
// @ts-expect-error unknown field
grpo({ clip_low: 0.1 });
// @ts-expect-error not a surrogate
grpo({ objective: "ppo" });
// @ts-expect-error cuSeqlens and advantages are required
policyLossSync({ student: { logProbs: new Float32Array(1) } }, grpo());
// @ts-expect-error plain numbers are no log-probs
const listed: Scores = { logProbs: [1, 2] };
// @ts-expect-error credit has no ratio to clip
rlsdCredit({} as never, { clipHigh: 0.2 });
// @ts-expect-error a schedule has a peak
creditMixAt(1, { decay: 60 });
expectTypeOf(packTokens([new Int32Array(1)]).values).toEqualTypeOf<Int32Array>();
expectTypeOf(packTokens([new Uint8Array(1)]).values).toEqualTypeOf<Uint8Array>();
expectTypeOf(packTokens([[1], new Float32Array(1)]).values).toEqualTypeOf<Float32Array>();
expectTypeOf([handMade, listed]).toBeArray();

// What may be left out may be undefined: options are often passed on from optional ones.
declare const rows: Int32Array | undefined;
declare const t: Tensor;
const view: Scores = { logits: t, rows, vocabSize: undefined };
policyLossSync({ ...batch, student: view }, grpo(), { out: { logits: t, head: undefined } });
const sampling: SamplingOptions = { maxTokens: 8, seed: 1, temperature: undefined, signal: undefined };
const fresh: NewModelConfig = {
  vocabSize: 8,
  hiddenSize: 8,
  numLayers: 1,
  numHeads: 1,
  maxLength: 8,
  headDim: undefined,
};

// Settings: any part of them; a reward's sample is typed; what `train` reports has every setting.
const settings: TrainConfig = { data: { train: ["a.jsonl"] }, rollout: { count: 4 }, objective: { creditMix: 1 } };
train(
  { ...settings, reward: ({ completion, row }) => completion.includes(String(row.answer)) },
  { onStart: ({ config }) => expectTypeOf(config).toEqualTypeOf<ResolvedConfig>(), signal: undefined },
);
expectTypeOf<Parameters<typeof dryRun>[0]>().toEqualTypeOf<TrainConfig>();
expectTypeOf<ResolvedConfig["rollout"]["count"]>().toEqualTypeOf<number>();
// @ts-expect-error no such setting
train({ rollout: { cout: 4 } });
// @ts-expect-error no such algorithm
train({ algorithm: "ppo" });
// @ts-expect-error no such field of an objective
train({ objective: { creditMux: 1 } });
// @ts-expect-error no such preset
train({ objective: { preset: "ppo" } });
// @ts-expect-error rollout.temperature says that
train({ objective: { temperature: 1 } });
train({ objective: { preset: "grpo", objective: "gspo-token", clipLow: undefined } });
// What a run logs is a number where its name is known. A hook may return anything; a promise is waited for.
declare const log: (value: number | undefined) => Promise<void>;
train(settings, { onStep: ({ reward }) => log(reward), onEval: ({ accuracy, "pass@8": best }) => [accuracy, best] });
// A verifier's name may come from data.
declare const named: { type: string };
createVerifier(named);
// Those that run in workers say how that goes.
expectTypeOf(createVerifier("math").stats.timeouts).toEqualTypeOf<number>();
expectTypeOf(createVerifier({ type: "regex", pattern: "x" })).toEqualTypeOf<WorkerVerifier>();
expectTypeOf(createVerifier("numeric")).toEqualTypeOf<MadeVerifier>();
expectTypeOf(createVerifier(() => 1)).toEqualTypeOf<MadeVerifier>();
rlsdCredit({} as never, rlsd({}, grpo()));
// @ts-expect-error a reward judges: a function that does not is none
train({ reward: () => "right" });
expectTypeOf([sampling, fresh]).toBeArray();

// An environment's options are known, and absent ones may be undefined.
declare const tools: Tools;
declare const deadlineMs: number | undefined;
createEnvironment({
  type: "module",
  path: "./game.mjs",
  export: "play",
  options: { size: 3 },
  deadlineMs,
  memoryMb: 256,
});
createEnvironment({ type: "tools", path: "./tools.mjs", maxCharacters: 100, workers: 2, options: undefined });
createEnvironment({ type: "tools", tools, maxCharacters: undefined, deadlineMs });
const environment: EnvironmentSetting = either ? { type: "tools", tools } : { type: "module", path: "./game.mjs" };
train({ ...settings, environment });
// @ts-expect-error no such option
createEnvironment({ type: "module", path: "./game.mjs", deadline: 100 });
// @ts-expect-error no such option
train({ environment: { type: "tools", path: "./tools.mjs", maxCharacter: 100 } });
// @ts-expect-error an option of tools
createEnvironment({ type: "module", path: "./game.mjs", maxCharacters: 100 });
// @ts-expect-error tools of this process have no workers
createEnvironment({ type: "tools", tools, workers: 2 });
// @ts-expect-error tools, or the module that exports them
createEnvironment({ type: "tools", tools, path: "./tools.mjs" });
// @ts-expect-error there is none of that type
createEnvironment({ type: "game", path: "./game.mjs" });

// A view is of one kind, whole distributions are what some calls compare, and what a call does not compute is not written.
const both = { logits: t, hidden: t, head: t };
const capped = { logProbs: new Float32Array(1), vocabSize: 3 };
const pair = { student: { logits: t }, teacher: { logits: t }, cuSeqlens: new Int32Array(2) };
// @ts-expect-error logits and hidden states
const mixed: Scores = both;
// @ts-expect-error log-probs have no vocabulary
const sized: Scores = capped;
// @ts-expect-error log-probs are no distribution
tokenLogProbs({ logProbs: new Float32Array(1) }, new Int32Array(1));
// @ts-expect-error log-probs are no distribution
distillLoss({ ...pair, student: { logProbs: new Float32Array(1) } }, { divergence: "jsd" });
// @ts-expect-error distillLoss has no log-probs to write
distillLoss(pair, { divergence: "jsd" }, { out: { logProbs: new Float32Array(1) } });
// @ts-expect-error 16 bits may be f16 or bf16
tensor(new Uint16Array(2), [2]);
// @ts-expect-error 0 or 1
groupAdvantages([1, 0], [0, 0], { ddof: 2 });
expectTypeOf([mixed, sized]).toBeArray();
const conditional = either ? { logits: t } : { logProbs: new Float32Array(1) };
policyLossSync({ ...batch, student: conditional }, grpo());
expectTypeOf(tensor(t.data, t.shape, t.dtype)).toEqualTypeOf<Tensor>();

// Options of a policy's calls may be undefined too.
declare const policy: EnginePolicy;
declare const signal: AbortSignal | undefined;
declare const scale: number | undefined;
declare const trained: TrainBatch;
policy.score([], { temperature: scale, signal });
policy.accumulate(trained, grpo(), { lossScale: scale, signal });
(policy as Policy).save("folder", { optimizer: undefined, dtype: undefined });
rlsdCredit({} as never, { creditMix: undefined });

// A result has what its student was given as, in its dtype: nothing to assert, nothing to cast.
declare const half: Tensor<"bf16">;
const wide = tensor(new Float32Array(2), [1, 2]);
const tokens = { tokenIds: new Int32Array(1), cuSeqlens: new Int32Array(2), advantages: new Float32Array(1) };
expectTypeOf(wide.data).toEqualTypeOf<Float32Array>();
expectTypeOf(tensor(new Uint16Array(1), [1], "f16").data).toEqualTypeOf<Uint16Array>();
expectTypeOf(empty([2], "f32").data).toEqualTypeOf<Float32Array>();
expectTypeOf(toHost(wide).data).toEqualTypeOf<Float32Array>();
expectTypeOf<Tensor["data"]>().toEqualTypeOf<Float32Array | Uint16Array>();
const ofLogits = policyLossSync({ ...tokens, student: { logits: wide } }, grpo());
expectTypeOf(ofLogits.gradient.logits.data).toEqualTypeOf<Float32Array>();
expectTypeOf(ofLogits.gradient.hidden).toEqualTypeOf<Tensor | undefined>();
const ofBits = policyLoss({ ...tokens, student: { logits: half }, teacher: { logits: wide } }, grpo(), { threads: 1 });
expectTypeOf(ofBits.then(({ gradient }) => gradient.logits.data)).resolves.toEqualTypeOf<Uint16Array>();
const ofHead = policyLossSync({ ...tokens, student: { hidden: wide, head: wide, bias: half } }, grpo());
expectTypeOf(ofHead.gradient.head.data).toEqualTypeOf<Float32Array>();
expectTypeOf(ofHead satisfies PolicyResult).toExtend<PolicyResult>();
const frozen = policyLossSync({ ...tokens, student: { hidden: half, head: half } }, grpo(), { frozenHead: true });
expectTypeOf(frozen.gradient.hidden).toExtend<Tensor<"bf16" | "f32">>();
expectTypeOf(frozen.gradient.head).toExtend<Tensor | undefined>();
expectTypeOf<undefined>().toExtend<typeof frozen.gradient.head>();
const distilled = distillLossSync({ ...pair, student: { logits: wide } }, { divergence: "jsd" });
expectTypeOf(distilled.gradient.logits.data).toEqualTypeOf<Float32Array>();
expectTypeOf(tokenLogProbsSync({ logits: wide }, rows!, { entropy: true }).entropy).toEqualTypeOf<Float32Array>();
expectTypeOf(tokenLogProbsSync({ logits: wide }, rows!).entropy).toEqualTypeOf<Float32Array | undefined>();
// Of a student that may be of any kind, nothing is known.
expectTypeOf(policyLossSync(batch, grpo()).gradient).toEqualTypeOf<PolicyGradient>();
// @ts-expect-error a misspelt field of a view
policyLossSync({ ...tokens, student: { logits: wide, vocabsize: 2 } }, grpo());
// @ts-expect-error a misspelt field of a batch
policyLossSync({ ...tokens, student: { logits: wide }, mask: new Uint8Array(1) }, grpo());
