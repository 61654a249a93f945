import { types } from "node:util";
import { readable } from "../check.js";
import { RlsdError } from "../errors.js";
import { lengthOf } from "../typed-array.js";
import { invalid } from "./check.js";

/** Numbers of tokens, one sequence after another. */
export interface PackedTokens {
  /** (N) */
  readonly values: Float32Array;
  /** (B + 1): sequence b owns values cuSeqlens[b] .. cuSeqlens[b + 1]. */
  readonly cuSeqlens: Int32Array;
}

const EXPECTED = "an array of numbers, one a token,";

function checkList(list: unknown, name: string): ArrayLike<number> {
  if (types.isTypedArray(list) && typeof list[0] !== "bigint") {
    // Of memory that was given away too, which has no elements any more: it would pass for an empty sequence.
    readable(EXPECTED, name, () => new Float32Array(0).set(list.subarray(0, 0) as Float32Array));
    return list as ArrayLike<number>;
  }
  if (!Array.isArray(list)) throw invalid(EXPECTED, name, list);
  const bad = list.findIndex((value) => typeof value !== "number");
  if (bad >= 0) throw invalid("a number", `${name}[${bad}]`, list[bad]);
  return list;
}

/**
 * One list a sequence, as `Policy.score` and `Policy.generate` give log-probs, packed for `policyLoss`, `rlsdCredit` and
 * `Policy.accumulate`. An empty list is an empty sequence.
 *
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT
 */
export function packTokens(sequences: readonly ArrayLike<number>[]): PackedTokens {
  if (!Array.isArray(sequences)) throw invalid("an array with one list a sequence", "sequences", sequences);
  const cuSeqlens = new Int32Array(sequences.length + 1);
  const lists: ArrayLike<number>[] = [];
  let tokens = 0;
  for (const [b, list] of sequences.entries()) {
    lists.push(checkList(list, `sequences[${b}]`));
    tokens += types.isTypedArray(list) ? lengthOf(list) : lists[b]!.length;
    if (tokens > 0x7fffffff) {
      throw new RlsdError(
        "ERR_RLSD_INVALID_ARGUMENT",
        `Expected at most 2^31 - 1 tokens in sequences but found ${tokens}.`,
      );
    }
    cuSeqlens[b + 1] = tokens;
  }
  const values = new Float32Array(tokens);
  for (const [b, list] of lists.entries()) values.set(list, cuSeqlens[b]);
  return { values, cuSeqlens };
}
