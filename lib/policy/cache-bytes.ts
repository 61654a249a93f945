import { checkInteger, checkObject } from "../check.js";
import type { ModelConfig } from "./config.js";

/** Completions that are drawn at once, each to its full length. */
export interface CachedDraw {
  /** Prompts of the call. */
  readonly prompts: number;
  /** Completions of each. */
  readonly count: number;
  /** Tokens of the longest prompt. */
  readonly promptTokens: number;
  /** New tokens of a completion. */
  readonly maxTokens: number;
}

/** Tokens of a block of the cache (csrc/model/kv_cache.h). */
const BLOCK = 64;

const blocksOf = (tokens: number): number => Math.ceil(tokens / BLOCK);

/** Blocks of layers that see `window` tokens, when there are most: prompts share those that they fill. */
function mostBlocks(
  { prompts, count, promptTokens, maxTokens }: CachedDraw,
  sequences: number,
  window: number,
): number {
  const [shared, all] = [Math.floor(promptTokens / BLOCK), blocksOf(promptTokens + maxTokens)];
  const asked = Math.min(prompts, Math.ceil(sequences / count));
  // Prompts are computed whole before anything is given up.
  let most = asked * shared + sequences * (blocksOf(promptTokens) - shared);
  for (let next = shared; next < all; next++) {
    const position = Math.max(promptTokens, next * BLOCK);
    const first = Math.floor(Math.max(0, position + 1 - window) / BLOCK);
    most = Math.max(most, asked * Math.max(0, shared - first) + sequences * (next + 1 - Math.max(shared, first)));
  }
  return most;
}

const FIELDS = new Set(["prompts", "count", "promptTokens", "maxTokens"]);

export function checkedDraw(draw: CachedDraw): CachedDraw {
  checkObject(draw, "draw", FIELDS);
  for (const name of FIELDS) checkInteger(draw[name as keyof CachedDraw], `draw.${name}`, { min: 0 });
  return draw;
}

/** Bytes of keys and values while completions are drawn, at most `maxSequences` at once. */
export function cacheBytes(config: ModelConfig, draw: CachedDraw, maxSequences: number): number {
  const sequences = Math.min(draw.prompts * draw.count, maxSequences);
  const { numLayers, numKvHeads, headDim, slidingWindow } = config;
  const sliding = slidingWindow?.layers.filter((slides) => slides).length ?? 0;
  const layerBlocks =
    (numLayers - sliding) * mostBlocks(draw, sequences, Number.POSITIVE_INFINITY) +
    (slidingWindow === undefined ? 0 : sliding * mostBlocks(draw, sequences, slidingWindow.size));
  return layerBlocks * BLOCK * 2 * numKvHeads * headDim * 4;
}
