import {
  boundsText,
  checkFunction,
  checkInteger,
  checkNumber,
  checkObject,
  checkSignal,
  DIVISOR,
  invalid,
  isNumber,
} from "../check.js";
import { RlsdError } from "../errors.js";
import type { EngineHandle } from "../native/engine-binding.js";
import { native } from "../native/load.js";
import { onAbort } from "../on-abort.js";
import { SAMPLING_NAMES } from "../other-names.js";
import type { NativeModel } from "./model-handle.js";
import { settled, settledValue } from "./native-model.js";
import type { Completion, SamplingOptions } from "./policy.js";
import { packPrompts } from "./sequences.js";
import type { Tokenizer } from "./tokenizer.js";

const FIELDS = new Set([
  "temperature",
  "topK",
  "topP",
  "minP",
  "maxTokens",
  "stopTokenIds",
  "stopStrings",
  "seed",
  "count",
  "signal",
  "onToken",
  "onCompletion",
]);

/** Sequences in the cache at once, at most. */
export const MAX_SEQUENCES = 256;

/** Completions of one call, at most: the lists of their tokens are made before the first is drawn. */
const MAX_COMPLETIONS = 2 ** 22;

/** Steps of one native call when nobody looks at the tokens between them. */
const ALL_STEPS = 2 ** 31;

const RUNNING = 0;
const STOPPED = 1;

interface CheckedSampling {
  readonly count: number;
  readonly signal: AbortSignal | undefined;
  readonly onToken: SamplingOptions["onToken"];
  readonly onCompletion: SamplingOptions["onCompletion"];
  readonly stopIds: Int32Array;
  /** One a prompt. */
  readonly maxTokens: Int32Array;
  /** One, or one a prompt. */
  readonly seeds: Float64Array;
  readonly stopStrings: readonly string[];
  /** As csrc/napi/engine_batch.cc reads them. */
  readonly encoded: Float64Array;
}

function checkStopStrings(value: unknown): readonly string[] {
  if (value === undefined) return [];
  if (Array.isArray(value) && value.every((s) => typeof s === "string" && s !== "")) return value as string[];
  throw invalid("an array of texts that are not empty", "stopStrings", value);
}

function checkStopIds(value: readonly number[], vocabSize: number): Int32Array {
  if (!Array.isArray(value) && !ArrayBuffer.isView(value))
    throw invalid("an array of token ids", "stopTokenIds", value);
  return Int32Array.from(value, (id) => checkInteger(id, "stopTokenIds", { min: 0, max: vocabSize - 1 }));
}

/** 0, or what logits may be divided by. */
function checkTemperature(value: number): number {
  if (value === 0 || isNumber(value, DIVISOR)) return value;
  throw invalid(`0, which is greedy, or a finite number${boundsText(DIVISOR)},`, "temperature", value);
}

/** A whole number for all prompts, or one for each. */
function checkEach(value: unknown, name: string, prompts: number, min: number): number[] {
  if (!Array.isArray(value)) return [checkInteger(value, name, { min })];
  if (value.length !== prompts) throw invalid(`${prompts} numbers, one a prompt,`, name, value);
  return Array.from(value, (n, i) => checkInteger(n, `${name}[${i}]`, { min }));
}

/** One a prompt; what does not fit its integers is longer than any model reads, and refused as that. */
function checkMaxTokens(value: unknown, prompts: number): Int32Array {
  const each = checkEach(value, "maxTokens", prompts, 1).map((n) => Math.min(0x7fffffff, n));
  return Array.isArray(value) ? Int32Array.from(each) : new Int32Array(prompts).fill(each[0]!);
}

function checkSampling(o: SamplingOptions, prompts: number, model: NativeModel, maxSlots: number): CheckedSampling {
  checkObject(o, "options", FIELDS, SAMPLING_NAMES);
  const { vocabSize, endTokenIds } = model.config;
  const { signal, onToken, onCompletion } = o;
  checkSignal(signal);
  checkFunction(onToken, "onToken");
  checkFunction(onCompletion, "onCompletion");
  const count = checkInteger(o.count ?? 1, "count", {
    min: 1,
    max: Math.max(1, Math.floor(MAX_COMPLETIONS / prompts)),
  });
  const stopIds = checkStopIds(o.stopTokenIds ?? endTokenIds, vocabSize);
  const seeds = Float64Array.from(checkEach(o.seed, "seed", prompts, 0));
  const encoded = Float64Array.of(
    count,
    maxSlots,
    checkTemperature(o.temperature ?? 1),
    checkNumber(o.topP ?? 1, "topP", { above: 0, max: 1 }),
    checkNumber(o.minP ?? 0, "minP", { min: 0, max: 1 }),
    checkInteger(o.topK ?? 0, "topK", { min: 0, max: 0x7fffffff }),
  );
  const maxTokens = checkMaxTokens(o.maxTokens, prompts);
  const stopStrings = checkStopStrings(o.stopStrings);
  return { count, signal, onToken, onCompletion, stopIds, maxTokens, seeds, stopStrings, encoded };
}

/** Watches one completion's text for the stop strings. */
class StopWatch {
  private tail = "";
  private readonly feed: (id: number) => string;
  private readonly keep: number;

  constructor(
    tokenizer: Tokenizer,
    private readonly strings: readonly string[],
  ) {
    this.feed = tokenizer.stream();
    this.keep = Math.max(...strings.map((s) => s.length)) - 1;
  }

  /** True once a stop string has appeared. */
  sees(id: number): boolean {
    const text = this.tail + this.feed(id);
    this.tail = this.keep === 0 ? "" : text.slice(-this.keep);
    return this.strings.some((s) => text.includes(s));
  }
}

/** Tokens of each sequence as they come. */
class Collector {
  readonly tokens: number[][];
  readonly logProbs: number[][];
  readonly finish: Completion["finish"][];
  private readonly watches: (StopWatch | undefined)[];

  constructor(
    sequences: number,
    private readonly count: number,
    private readonly told: Pick<SamplingOptions, "onToken" | "onCompletion">,
    watch: (() => StopWatch) | undefined,
  ) {
    this.tokens = Array.from({ length: sequences }, () => []);
    this.logProbs = Array.from({ length: sequences }, () => []);
    this.finish = new Array(sequences).fill("length");
    this.watches = Array.from({ length: sequences }, () => watch?.());
  }

  /** Returns the running sequences whose text met a stop string. */
  take(draws: Int32Array, logProbs: Float32Array): Int32Array {
    const stopped: number[] = [];
    for (let i = 0; i < logProbs.length; i++) {
      const [s, token, ended] = draws.subarray(3 * i, 3 * i + 3) as unknown as [number, number, number];
      const logProb = logProbs[i] as number;
      this.tokens[s]?.push(token);
      this.logProbs[s]?.push(logProb);
      const seen = this.watches[s]?.sees(token) === true;
      if (ended === STOPPED || seen) this.finish[s] = "stop";
      if (ended === RUNNING && seen) stopped.push(s);
      const [p, j] = [Math.floor(s / this.count), s % this.count];
      this.told.onToken?.(p, j, token, logProb);
      if (ended !== RUNNING || seen) this.told.onCompletion?.(p, j, this.completion(s));
    }
    return Int32Array.from(stopped);
  }

  private completion(s: number): Completion {
    return {
      tokenIds: Int32Array.from(this.tokens[s] ?? []),
      logProbs: Float32Array.from(this.logProbs[s] ?? []),
      finish: this.finish[s] ?? "length",
    };
  }

  completions(prompts: number): Completion[][] {
    return Array.from({ length: prompts }, (_, p) =>
      Array.from({ length: this.count }, (_, j) => this.completion(p * this.count + j)),
    );
  }
}

let lastCancelId = 0;

/** Runs a call that `signal` can cancel; `start` gets the call's id. */
export async function cancellable<T>(signal: AbortSignal | undefined, start: (id: number) => Promise<T>): Promise<T> {
  signal?.throwIfAborted();
  const id = ++lastCancelId;
  const forget = signal && onAbort(signal, () => native.engineCancel(id));
  try {
    return await start(id);
  } finally {
    forget?.();
  }
}

async function drawAll(
  generation: EngineHandle,
  collector: Collector,
  steps: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  let stopped: Int32Array = new Int32Array(0);
  for (let done = false; !done; ) {
    const [ended, draws, logProbs] = await cancellable(signal, (id) =>
      settledValue(native.engineDraw(generation, steps, stopped, id), signal),
    );
    stopped = collector.take(draws, logProbs);
    done = ended;
  }
}

/** Checks and copies what is asked for; the returned function samples it. See Policy.generate. */
export function generate(
  model: NativeModel,
  tokenizer: Tokenizer | undefined,
  prompts: readonly Int32Array[],
  o: SamplingOptions,
  maxSlots: number,
): () => Promise<Completion[][]> {
  if (!Array.isArray(prompts)) throw invalid("an array of prompts", "prompts", prompts);
  const groups = prompts.length;
  const { count, signal, onToken, onCompletion, stopIds, maxTokens, seeds, stopStrings, encoded } = checkSampling(
    o,
    groups,
    model,
    maxSlots,
  );
  const { ids, cuPrompts } = packPrompts(prompts, maxTokens, model.config);
  if (stopStrings.length > 0 && tokenizer === undefined) {
    throw new RlsdError(
      "ERR_RLSD_TOKENIZER",
      "stopStrings need a tokenizer, but the model's folder has no tokenizer.json.",
    );
  }
  const watch =
    stopStrings.length > 0 && tokenizer !== undefined ? () => new StopWatch(tokenizer, stopStrings) : undefined;
  const watched = watch !== undefined || onToken !== undefined || onCompletion !== undefined;
  const steps = watched ? 1 : ALL_STEPS;
  return async () => {
    if (groups === 0) return [];
    const collector = new Collector(groups * count, count, { onToken, onCompletion }, watch);
    const generation = native.engineGenerate(model.handle, ids, cuPrompts, stopIds, maxTokens, seeds, encoded);
    if (typeof generation === "number") throw new RlsdError("ERR_RLSD_INTERNAL", native.lastError()[0]);
    try {
      await drawAll(generation, collector, steps, signal);
    } finally {
      await settled(native.engineEndGeneration(generation));
    }
    return collector.completions(groups);
  };
}
