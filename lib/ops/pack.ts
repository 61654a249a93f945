import { types } from "node:util";
import { readable } from "../check.js";
import { RlsdError } from "../errors.js";
import { lengthOf, typedArrayName } from "../typed-array.js";
import { invalid } from "./check.js";

/** What tokens have: log-probs, ids or masks. */
type Values = Float32Array | Int32Array | Uint8Array;

/** Numbers of tokens, one sequence after another. */
export interface PackedTokens<T extends Values = Float32Array> {
  /** (N) */
  readonly values: T;
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

/** The type of the lists where all of them are ids, or all of them masks; else that of log-probs. */
function typeOf(lists: readonly ArrayLike<number>[]): new (length: number) => Values {
  const all = (name: string): boolean => lists.length > 0 && lists.every((list) => typedArrayName(list) === name);
  if (all("Int32Array")) return Int32Array;
  return all("Uint8Array") ? Uint8Array : Float32Array;
}

/**
 * One list a sequence, as `Policy.score` and `Policy.generate` give log-probs and ids, packed for `policyLoss`, `rlsdCredit`
 * and `Policy.accumulate`: lists that are Int32Arrays make one (`tokenIds`), Uint8Arrays make one (`completionMask`), all
 * others a Float32Array. An empty list is an empty sequence.
 *
 * @throws RlsdError ERR_RLSD_INVALID_ARGUMENT
 */
export function packTokens(sequences: readonly Int32Array[]): PackedTokens<Int32Array>;
export function packTokens(sequences: readonly Uint8Array[]): PackedTokens<Uint8Array>;
export function packTokens(sequences: readonly ArrayLike<number>[]): PackedTokens;
export function packTokens(sequences: readonly ArrayLike<number>[]): PackedTokens<Values> {
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
  const values = new (typeOf(lists))(tokens);
  for (const [b, list] of lists.entries()) values.set(list, cuSeqlens[b]);
  return { values, cuSeqlens };
}
