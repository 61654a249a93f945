import {
  type Bounds,
  checkBoolean,
  checkInteger,
  checkNumber,
  checkObject,
  checkWord,
  DIVISOR,
  invalid,
} from "../check.js";
import { RlsdError } from "../errors.js";
import type { Reduction } from "./objective.js";
import { DIVERGENCES, REDUCTIONS } from "./words.js";

/** What `distillLoss` and `Policy.distill` compare, and how. Fields with a default may be left out. */
export interface DistillLossOptions {
  /** "forward-kl": KL(teacher || student). "reverse-kl": KL(student || teacher). "jsd": their mixture, see `beta`. */
  readonly divergence: "forward-kl" | "reverse-kl" | "jsd";
  /** jsd: m = beta T + (1 - beta) S, D = beta KL(T || m) + (1 - beta) KL(S || m). In (0, 1). Default 0.5; another for jsd alone. */
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

const MAX_INT32 = 2 ** 31 - 1;

/** Every option with its default, checked; words as their places in words.ts. */
export interface CheckedDistillOptions {
  readonly divergence: number;
  readonly beta: number;
  /** 0: the whole vocabulary. */
  readonly topK: number;
  readonly tail: boolean;
  /** Infinity: off. */
  readonly valueClamp: number;
  readonly reduction: number;
  /** 0: the reduction's own. */
  readonly normalizer: number;
  readonly temperature: number;
  /** 0: off. */
  readonly logitSoftcap: number;
  readonly skipNonFinite: boolean;
}

const FIELDS: ReadonlySet<string> = new Set([
  "divergence",
  "beta",
  "topK",
  "tail",
  "valueClamp",
  "reduction",
  "normalizer",
  "temperature",
  "logitSoftcap",
  "nonFinite",
]);

function divergenceOf(value: unknown): number {
  if (value !== "k1") return DIVERGENCES.indexOf(checkWord(value, "divergence", DIVERGENCES));
  throw new RlsdError(
    "ERR_RLSD_INVALID_ARGUMENT",
    'Expected a divergence over whole distributions but received "k1". Back-propagating the sampled token\'s ' +
      "log P_S - log P_T teaches nothing: its gradient does not contain the teacher, whose log-prob is a constant. Use " +
      '"reverse-kl", or pass log P_T - log P_S as the advantages of policyLoss or of Policy.accumulate.',
  );
}

const POSITIVE: Bounds = { above: 0 };

function orAbsent(value: number | null | undefined, name: string, absent: number, bounds: Bounds): number {
  return value === undefined || value === null ? absent : checkNumber(value, name, bounds);
}

const BETA = 0.5;

/** @throws RlsdError ERR_RLSD_INVALID_ARGUMENT for a field or a value that a distillation loss does not have */
export function checkDistillOptions(o: DistillLossOptions): CheckedDistillOptions {
  checkObject(o, "options", FIELDS);
  const { divergence, beta, topK = null, tail = true, nonFinite = "error" } = o;
  const { valueClamp = topK === null ? null : 10 } = o;
  checkBoolean(tail, "tail");
  const checked = {
    divergence: divergenceOf(divergence),
    beta: checkNumber(beta ?? BETA, "beta", { above: 0, below: 1 }),
    topK: topK === null ? 0 : Math.min(checkInteger(topK, "topK", { min: 1 }), MAX_INT32),
    tail,
    valueClamp: orAbsent(valueClamp, "valueClamp", Number.POSITIVE_INFINITY, POSITIVE),
    reduction: REDUCTIONS.indexOf(checkWord(o.reduction ?? "token-mean", "reduction", REDUCTIONS)),
    normalizer: orAbsent(o.normalizer, "normalizer", 0, POSITIVE),
    temperature: orAbsent(o.temperature, "temperature", 1, DIVISOR),
    logitSoftcap: orAbsent(o.logitSoftcap, "logitSoftcap", 0, DIVISOR),
    skipNonFinite: checkWord(nonFinite, "nonFinite", ["error", "skip"]) === "skip",
  };
  if (divergence !== "jsd" && checked.beta !== BETA) {
    throw invalid(`none, as only "jsd" has one and the divergence is "${divergence}",`, "beta", beta);
  }
  if (topK === null && !tail) throw invalid("none, as the whole vocabulary is compared without topK,", "tail", tail);
  return checked;
}
