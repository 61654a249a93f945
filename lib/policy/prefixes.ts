import { checkNumber } from "../check.js";
import { native } from "../native/load.js";
import type { NativeModel } from "./model-handle.js";
import { settledValue } from "./native-model.js";

/** What a policy keeps of sequences that it drew, and what that saved. */
export interface PrefixUse {
  /** Of keys and values that it keeps now. */
  readonly bytes: number;
  /** Whose keys and values those are. */
  readonly sequences: number;
  /** Tokens of prompts, in all calls so far, whose keys and values were there. */
  readonly reusedTokens: number;
  /** Those that were computed. */
  readonly computedTokens: number;
}

/** Float32 keys and values of one sequence as long as the model reads. */
const longest = ({ config }: NativeModel): number =>
  8 * config.numLayers * config.numKvHeads * config.headDim * 64 * Math.ceil(config.maxLength / 64);

const prefixes = (model: NativeModel, maxBytes: number) => settledValue(native.enginePrefixes(model.handle, maxBytes));

/** Checks the limit; the returned function sets it. See Policy.keepPrefixes. */
export function keepPrefixes(model: NativeModel, maxBytes = longest(model)): () => Promise<void> {
  checkNumber(maxBytes, "maxBytes", { min: 0 });
  return async () => {
    await prefixes(model, maxBytes);
  };
}

export async function prefixUse(model: NativeModel): Promise<PrefixUse> {
  const [bytes, sequences, reusedTokens, computedTokens] = await prefixes(model, -1);
  return { bytes, sequences, reusedTokens, computedTokens };
}
