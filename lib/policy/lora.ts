import { checkBoolean, checkInteger, checkNumber, checkObject, invalid } from "../check.js";
import { RlsdError } from "../errors.js";

/** Matrices of a layer that an adapter may stand on, as Hugging Face names them. */
export const LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;
/** Those that some models have in the place of others, whose rows they hold. */
const FUSED = { qkv_proj: ["q_proj", "k_proj", "v_proj"], gate_up_proj: ["gate_proj", "up_proj"] } as const;
/** q, k, v and output of attention; gate, up and down of the feed-forward part; q, k and v, and gate and up, in one. */
export type LoraTarget = (typeof LORA_TARGETS)[number] | keyof typeof FUSED;

const partsOf = (target: LoraTarget): readonly LoraTarget[] =>
  target in FUSED ? FUSED[target as keyof typeof FUSED] : [target];

const FUSED_TARGETS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"] as const satisfies readonly LoraTarget[];
/** All that there are, in the order of a layer. */
export const ALL_TARGETS: readonly LoraTarget[] = [
  "q_proj",
  "k_proj",
  "v_proj",
  "qkv_proj",
  "o_proj",
  "gate_proj",
  "up_proj",
  "gate_up_proj",
  "down_proj",
];
/** Those of a model, in the order of its layers. */
export const targetsOf = (fused: boolean): readonly LoraTarget[] => (fused ? FUSED_TARGETS : LORA_TARGETS);

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
  /**
   * Default all. Where a model's files have q_proj, k_proj and v_proj in one matrix (phi3), that is qkv_proj, also for the three
   * names together; so is gate_up_proj.
   */
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

/** Once each, in the order of the layer: those that are wanted by their name, or by all the parts that they hold. */
function resolveTargets(wanted: unknown, fused: boolean): LoraTarget[] {
  const own = targetsOf(fused);
  const named: readonly unknown[] = Array.isArray(wanted) ? wanted : [];
  const targets = own.filter((name) => named.includes(name) || partsOf(name).every((part) => named.includes(part)));
  const known = new Set<unknown>(targets.flatMap((name) => [name, ...partsOf(name)]));
  if (named.length > 0 && named.every((name) => known.has(name))) return targets;
  throw invalid(`a list of ${own.join(", ")}`, "targets", wanted);
}

/**
 * Checked, defaults filled in; targets once each, in the order of the layer.
 *
 * @param fused whether the model has q, k and v, and gate and up, in one matrix
 */
export function resolveLora(o: LoraOptions, fused: boolean): LoraConfig & { readonly seed: number } {
  checkObject(o, "options", FIELDS);
  const rank = checkInteger(o.rank ?? 16, "rank", { min: 1, max: MOST_RANK });
  const alpha = checkNumber(o.alpha ?? 2 * rank, "alpha", { above: 0 });
  const { rankStabilized = false } = o;
  checkBoolean(rankStabilized, "rankStabilized");
  const targets = resolveTargets(o.targets ?? targetsOf(fused), fused);
  const fault = scaleFault({ rank, alpha, rankStabilized });
  if (fault !== undefined) throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `${fault}.`);
  return { rank, alpha, rankStabilized, targets, seed: checkInteger(o.seed ?? 0, "seed", { min: 0 }) };
}

/** As native code takes it: rank (0: no adapters), scale, and a bit for each target. */
export function encodeLora(lora: LoraConfig | undefined): [rank: number, scale: number, targets: number] {
  if (lora === undefined) return [0, 0, 0];
  const parts = new Set(lora.targets.flatMap(partsOf));
  const bits = LORA_TARGETS.reduce((sum, target, i) => sum + (parts.has(target) ? 2 ** i : 0), 0);
  return [lora.rank, scaleOf(lora), bits];
}

/** Whether two mean the same adapters, by whatever names. */
export function sameAdapters(a: LoraConfig | undefined, b: LoraConfig | undefined): boolean {
  const kind = (lora: LoraConfig | undefined) => [lora?.alpha, lora?.rankStabilized, ...encodeLora(lora)].join();
  return kind(a) === kind(b);
}
