import { RlsdError } from "../errors.js";
import type { Reduction } from "../objectives/objective.js";
import { DISTILL_FIELDS, DIVERGENCES, REDUCTIONS } from "../objectives/words.js";
import { checkFinite, checkObject, checkPositiveInteger, invalid } from "./check.js";

/** Fields with a default may be left out. */
export interface DistillLossOptions {
  /** "forward-kl": KL(teacher || student). "reverse-kl": KL(student || teacher). "jsd": their mixture, see `beta`. */
  readonly divergence: "forward-kl" | "reverse-kl" | "jsd";
  /** jsd: m = beta T + (1 - beta) S, D = beta KL(T || m) + (1 - beta) KL(S || m). In (0, 1). Default 0.5. */
  readonly beta?: number | undefined;
  /** Compare only the teacher's k most probable tokens (the smaller id on a tie). Default: the whole vocabulary. */
  readonly topK?: number | null | undefined;
  /** With topK: one more bucket holds the rest of the mass. Default true. */
  readonly tail?: boolean | undefined;
  /**
   * Each token's value is clamped to +- this, and has no gradient beyond. null: off.
   * Default 10 with topK, as the official code does it, else off.
   */
  readonly valueClamp?: number | null | undefined;
  /** Default "token-mean". */
  readonly reduction?: Reduction | undefined;
  /** Replaces the reduction's divisor. Default: the reduction's own. */
  readonly normalizer?: number | null | undefined;
  /** Divides both sides' logits; the value is not multiplied by its square. Default 1. */
  readonly temperature?: number | undefined;
  /** z -> softcap * tanh(z / softcap) on both sides. null, the default: off. */
  readonly logitSoftcap?: number | null | undefined;
  /** What a bad row does after it was left out of loss and gradient. Default "error". */
  readonly nonFinite?: "error" | "skip" | undefined;
}

/** Every option with its default, checked. */
export interface CheckedDistillLossOptions {
  readonly divergence: number;
  readonly beta: number;
  readonly topK: number;
  readonly tail: boolean;
  readonly valueClamp: number;
  readonly reduction: number;
  readonly normalizer: number;
  readonly temperature: number;
  readonly logitSoftcap: number;
  readonly skipNonFinite: boolean;
}

const FIELDS: ReadonlySet<string> = new Set(DISTILL_FIELDS);

function choice(value: unknown, name: string, words: readonly string[]): number {
  const at = words.indexOf(value as string);
  if (at >= 0) return at;
  throw invalid(`one of ${words.map((word) => `"${word}"`).join(", ")}`, name, value);
}

function divergenceOf(value: unknown): number {
  if (value !== "k1") return choice(value, "divergence", DIVERGENCES);
  throw new RlsdError(
    "ERR_RLSD_INVALID_ARGUMENT",
    'Expected a divergence over whole distributions but received "k1". Back-propagating the sampled token\'s ' +
      "log P_S - log P_T teaches nothing: its gradient does not contain the teacher, whose log-prob is a constant. Use " +
      '"reverse-kl", or pass log P_T - log P_S as the advantage of policyLoss.',
  );
}

function above0(value: number | null | undefined, name: string, absent: number): number {
  if (value === undefined || value === null) return absent;
  if (checkFinite(value, name) > 0) return value;
  throw invalid("a number above 0", name, value);
}

function betaOf(value: number | undefined): number {
  const beta = above0(value, "beta", 0.5);
  if (beta < 1) return beta;
  throw invalid("a number between 0 and 1", "beta", value);
}

export function checkDistillOptions(o: DistillLossOptions): CheckedDistillLossOptions {
  checkObject(o, "options", FIELDS);
  const { topK = null, tail = true, nonFinite = "error", valueClamp = topK === null ? null : 10 } = o;
  if (typeof tail !== "boolean") throw invalid("a boolean", "tail", tail);
  return {
    divergence: divergenceOf(o.divergence),
    beta: betaOf(o.beta),
    topK: topK === null ? 0 : checkPositiveInteger(topK, "topK"),
    tail,
    valueClamp: above0(valueClamp, "valueClamp", Number.POSITIVE_INFINITY),
    reduction: choice(o.reduction ?? "token-mean", "reduction", REDUCTIONS),
    normalizer: above0(o.normalizer, "normalizer", 0),
    temperature: above0(o.temperature, "temperature", 1),
    logitSoftcap: above0(o.logitSoftcap, "logitSoftcap", 0),
    skipNonFinite: choice(nonFinite, "nonFinite", ["error", "skip"]) === 1,
  };
}
