/** How large the batches are: larger than the last-level cache, and small enough for the memory that is free. */
import { RlsdError } from "../../errors.js";
import type { DType } from "../../tensor/dtype.js";
import { bytesPerElement } from "./data.js";
import type { BenchOptions, Level } from "./options.js";
import { gib } from "./size.js";

export interface LogitsPlan {
  readonly tokens: number;
  readonly vocab: number;
  readonly dtypes: readonly DType[];
}

export interface HeadPlan extends LogitsPlan {
  readonly hidden: number;
}

export interface Plan {
  readonly logprob?: { readonly tokens: number };
  readonly logits?: LogitsPlan;
  readonly head?: HeadPlan;
  /** Of all levels together. On a device: its memory. */
  readonly bytes: number;
}

interface Resources {
  /** Of the device's memory, or of the CPU's. */
  readonly availableBytes: number;
  readonly cacheBytes: number;
  readonly onDevice: boolean;
}

/** Qwen's vocabulary, and the hidden size of its smallest model. */
const VOCAB = 151_936;
const HIDDEN = 896;
const TOKENS = 65_536;
/** One chunk of rows of the head's loss at that vocabulary, so that a call takes a second at most. */
const HEAD_TOKENS = 96;
const QUICK_HEAD = { tokens: 32, vocab: 32_768 };
/**
 * A logits tensor of the narrowest dtype is so many times the last-level cache: of the gradient up to one cache is not yet in
 * memory when a call returns, which should be a small part of it. A limit that time sets: 1 GiB, of the widest dtype.
 */
const CACHES = 4;
const LARGEST_LOGITS_BYTES = 2 ** 30;
/** Of the largest dtype, on a device: a call is milliseconds of its time. */
const DEVICE_LOGITS_BYTES = 2.5e9;

/** Share of free memory that sizes are chosen for, and the share beyond which given ones are refused. */
const CHOSEN_SHARE = 0.5;
const REFUSED_SHARE = 0.9;

const HEAD_WORKSPACE_BYTES = 64 * 2 ** 20;
/** Inputs and results of a token at the log-prob level: some twelve arrays. */
const LOGPROB_BYTES = 48;

const widest = (dtypes: readonly DType[]): number => Math.max(...dtypes.map(bytesPerElement));
const narrowest = (dtypes: readonly DType[]): number => Math.min(...dtypes.map(bytesPerElement));

/** Student and teacher, and beside them the copy's two buffers; on a device the gradient. */
function logitsBytes({ tokens, vocab, dtypes }: LogitsPlan, onDevice: boolean): number {
  return (onDevice ? 3 : 4) * tokens * vocab * widest(dtypes);
}

/** Of each dtype the head and its gradient; hidden states of student and teacher, and their gradient. */
const headBytes = ({ tokens, vocab, hidden, dtypes }: HeadPlan): number =>
  dtypes.reduce((sum, dtype) => sum + (2 * vocab + 3 * tokens) * hidden * bytesPerElement(dtype), HEAD_WORKSPACE_BYTES);

/** Tokens that were not given: enough to leave the cache, no more than fit. */
function planLogits(o: BenchOptions, { cacheBytes, onDevice }: Resources, budget: number): LogitsPlan {
  const dtypes = o.dtypes ?? ["f32", "bf16", "f16"];
  const vocab = o.vocab ?? VOCAB;
  const row = vocab * widest(dtypes);
  const wanted = onDevice ? DEVICE_LOGITS_BYTES / row : (CACHES * cacheBytes) / (vocab * narrowest(dtypes));
  const most = Math.min(onDevice ? DEVICE_LOGITS_BYTES : LARGEST_LOGITS_BYTES, budget / (onDevice ? 3 : 4)) / row;
  // A multiple of 32 keeps every row's share of the threads the same.
  const tokens = o.tokens ?? Math.floor(Math.max(4, Math.min(most, 32 * Math.ceil(wanted / 32))));
  return { tokens, vocab, dtypes };
}

/** A vocabulary that was not given is halved until the head and its gradient fit. */
function planHead(o: BenchOptions, budget: number): HeadPlan {
  const dtypes = o.dtypes ?? ["f32"];
  const size = {
    tokens: o.tokens ?? (o.quick ? QUICK_HEAD.tokens : HEAD_TOKENS),
    hidden: o.hidden ?? HIDDEN,
    dtypes,
  };
  let vocab = o.vocab ?? (o.quick ? QUICK_HEAD.vocab : VOCAB);
  while (o.vocab === undefined && vocab > 4096 && headBytes({ ...size, vocab }) > budget) vocab = vocab >> 1;
  return { ...size, vocab };
}

function refuse(plan: Plan, parts: Partial<Record<Level, number>>, available: number): never {
  const needs = Object.entries(parts).map(([level, bytes]) => `${gib(bytes)} at the level ${level}`);
  const message =
    `Expected sizes that fit into the memory that is free, ${gib(available)}, but these need ${gib(plan.bytes)}: ` +
    `${needs.join(", ")}. Make --tokens, --vocab or --hidden smaller, or name one --level at a time.`;
  throw new RlsdError("ERR_RLSD_OUT_OF_MEMORY", message);
}

/** @throws RlsdError ERR_RLSD_OUT_OF_MEMORY, with what is needed and what there is, when given sizes do not fit */
export function makePlan(options: BenchOptions, resources: Resources): Plan {
  const { levels } = options;
  const has = (level: Level): boolean => levels.includes(level);
  const budget = (CHOSEN_SHARE * resources.availableBytes) / (has("logits") && has("head") ? 2 : 1);
  const logprob = has("logprob") ? { tokens: options.tokens ?? TOKENS } : undefined;
  const logits = has("logits") ? planLogits(options, resources, budget) : undefined;
  const head = has("head") ? planHead(options, budget) : undefined;
  const parts: Partial<Record<Level, number>> = {
    ...(logprob !== undefined && { logprob: LOGPROB_BYTES * logprob.tokens }),
    ...(logits !== undefined && { logits: logitsBytes(logits, resources.onDevice) }),
    ...(head !== undefined && { head: headBytes(head) }),
  };
  const bytes = Object.values(parts).reduce((sum, part) => sum + part, 0);
  const plan: Plan = {
    ...(logprob !== undefined && { logprob }),
    ...(logits !== undefined && { logits }),
    ...(head !== undefined && { head }),
    bytes,
  };
  if (bytes > REFUSED_SHARE * resources.availableBytes) refuse(plan, parts, resources.availableBytes);
  return plan;
}
