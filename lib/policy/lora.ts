import { checkBoolean, checkInteger, checkNumber, checkObject, invalid } from "../check.js";
import { RlsdError } from "../errors.js";

/** Matrices of a layer that an adapter may stand on, as Hugging Face names them. */
export const LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;
/** q, k, v and output of attention; gate, up and down of the feed-forward part. */
export type LoraTarget = (typeof LORA_TARGETS)[number];

/** Low-rank adapters (arXiv 2106.09685): y = W x becomes y = W x + scale B (A x), and A and B alone are trained. */
export interface LoraConfig {
  /** Rows of A and columns of B. */
  readonly rank: number;
  /** scale = alpha / rank; rank-stabilised (arXiv 2312.03732): alpha / sqrt(rank). */
  readonly alpha: number;
  /** Which of the two. */
  readonly rankStabilized: boolean;
  /** In the order of the layer. */
  readonly targets: readonly LoraTarget[];
}

/** New adapters. */
export interface LoraOptions {
  /** Default 16. */
  readonly rank?: number | undefined;
  /** Default 2 rank. */
  readonly alpha?: number | undefined;
  /** Default false. */
  readonly rankStabilized?: boolean | undefined;
  /** Default all seven. */
  readonly targets?: readonly LoraTarget[] | undefined;
  /** A is uniform in +-1 / sqrt(inputs) and a function of the seed; B is 0: the model starts as it was. Default 0. */
  readonly seed?: number | undefined;
}

const FIELDS = new Set(["rank", "alpha", "rankStabilized", "targets", "seed"]);
/** Beyond it an adapter is no smaller than what it stands on, in any model that there is. */
export const MOST_RANK = 65536;

const scaleOf = ({ rank, alpha, rankStabilized }: Omit<LoraConfig, "targets">): number =>
  alpha / (rankStabilized ? Math.sqrt(rank) : rank);

/** Why adapters cannot be scaled so, in words for an error; undefined: they can. */
export function scaleFault(lora: Omit<LoraConfig, "targets">): string | undefined {
  const scale = Math.fround(scaleOf(lora));
  if (scale > 0 && Number.isFinite(scale)) return undefined;
  return `alpha ${lora.alpha} with rank ${lora.rank} scales the adapters by ${scale} in float32: expected a scale above 0 that is finite`;
}

const isTarget = (name: unknown): name is LoraTarget => LORA_TARGETS.some((target) => target === name);

/** Checked, defaults filled in; targets once each, in the order of the layer. */
export function resolveLora(o: LoraOptions): LoraConfig & { readonly seed: number } {
  checkObject(o, "options", FIELDS);
  const rank = checkInteger(o.rank ?? 16, "rank", { min: 1, max: MOST_RANK });
  const alpha = checkNumber(o.alpha ?? 2 * rank, "alpha", { above: 0 });
  const { rankStabilized = false } = o;
  checkBoolean(rankStabilized, "rankStabilized");
  const wanted: readonly unknown[] = o.targets ?? LORA_TARGETS;
  if (!Array.isArray(wanted) || wanted.length === 0 || !wanted.every(isTarget)) {
    throw invalid(`a list of ${LORA_TARGETS.join(", ")}`, "targets", wanted);
  }
  const fault = scaleFault({ rank, alpha, rankStabilized });
  if (fault !== undefined) throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `${fault}.`);
  const targets = LORA_TARGETS.filter((target) => wanted.includes(target));
  return { rank, alpha, rankStabilized, targets, seed: checkInteger(o.seed ?? 0, "seed", { min: 0 }) };
}

/** As native code takes it: rank (0: no adapters), scale, and a bit for each target. */
export function encodeLora(lora: LoraConfig | undefined): [rank: number, scale: number, targets: number] {
  if (lora === undefined) return [0, 0, 0];
  const bits = lora.targets.reduce((sum, target) => sum + 2 ** LORA_TARGETS.indexOf(target), 0);
  return [lora.rank, scaleOf(lora), bits];
}
