/** Verifiers made of verifiers. */
import { show } from "../check.js";
import { RlsdError } from "../errors.js";
import type { Row } from "./definition.js";
import { toVerdict } from "./function.js";
import { rowError } from "./options.js";
import { withSignal } from "./signal.js";
import { startVerifier } from "./start.js";
import type { MadeVerifier, Sample, Verdict, Verifier } from "./verifier.js";

/** One of several verifiers whose rewards are put together. */
export interface Part {
  /** Key of this part in `detail`. */
  readonly name: string;
  /** Null from it makes the whole null. */
  readonly verifier: Verifier;
  /** Factor of its reward; default 1. */
  readonly weight?: number | undefined;
}

/** What a part says, which may be a caller's own verifier, as a verdict. */
const verdictOf = async (part: Verifier, sample: Sample, signal: AbortSignal): Promise<Verdict> =>
  toVerdict(await part.verify(sample, signal));

function together(parts: readonly Verifier[]): Pick<Verifier, "check" | "answerOf" | "start" | "dispose"> {
  return {
    check(row: Row) {
      for (const part of parts) part.check?.(row);
    },
    answerOf(row: Row) {
      for (const part of parts) {
        const told = part.answerOf?.(row);
        if (told !== undefined) return told;
      }
      return undefined;
    },
    async start(signal) {
      await Promise.all(parts.map((part) => startVerifier(part, signal)));
    },
    async dispose() {
      await Promise.all(parts.map((part) => part.dispose?.()));
    },
  };
}

/**
 * The sum, without the rounding errors of decimal weights: full marks of .7, .2 and .1 are 1, where plain addition gives
 * 0.9999999999999999. A sum that misses 12 decimal digits by no more than such errors is those digits; others stay as they are.
 */
function decimalSum(terms: readonly number[]): number {
  const plain = terms.reduce((total, term) => total + term, 0);
  const scale = terms.reduce((total, term) => total + Math.abs(term), 0);
  const digits = 12 - Math.ceil(Math.log10(scale));
  if (!(digits >= 0 && digits <= 100)) return plain; // toFixed takes no other; a scale of 0 or Infinity too
  const rounded = Number(plain.toFixed(digits));
  return Math.abs(rounded - plain) <= terms.length * Number.EPSILON * scale ? rounded : plain;
}

function refuse(expected: string, name: string, came: unknown, mend = ""): never {
  const message = `Expected ${expected} for ${name} but received ${show(came)}.${mend && ` ${mend}`}`;
  throw new RlsdError("ERR_RLSD_VERIFIER_OPTION", message);
}

function checkVerifier(value: unknown, name: string): void {
  if (typeof (value as Verifier | undefined | null)?.verify === "function") return;
  refuse("a verifier", name, value, "createVerifier makes one of a name, of options or of a function.");
}

const checkReward = (value: unknown, name: string): void => {
  if (!Number.isFinite(value)) refuse("a finite number", name, value);
};

function checkParts(parts: readonly Part[]): void {
  if (!Array.isArray(parts)) refuse("an array of { name, verifier, weight }", "parts", parts);
  for (const [i, part] of parts.entries()) {
    if (typeof part?.name !== "string")
      refuse("a text", `parts[${i}].name`, part?.name, "It is the part's key in detail.");
    checkVerifier(part.verifier, `parts[${i}].verifier`);
    if (part.weight !== undefined) checkReward(part.weight, `parts[${i}].weight`);
  }
}

/**
 * sum_i weight_i reward_i. A part that could not judge makes the whole undecided (null): a reward without it would mean
 * something else for this sample than for its group.
 */
export function weightedSum(parts: readonly Part[]): MadeVerifier {
  checkParts(parts);
  if (parts.length === 0)
    throw new RlsdError("ERR_RLSD_VERIFIER_OPTION", "A sum needs at least one part but received none.");
  const duplicate = parts.find((part, i) => parts.findIndex((other) => other.name === part.name) !== i);
  if (duplicate !== undefined) {
    throw new RlsdError(
      "ERR_RLSD_VERIFIER_OPTION",
      `Two parts of a sum are named "${duplicate.name}"; give each its own name.`,
    );
  }
  return withSignal({
    ...together(parts.map((part) => part.verifier)),
    async verify(sample, signal) {
      const verdicts = await Promise.all(parts.map((part) => verdictOf(part.verifier, sample, signal)));
      const detail: Record<string, unknown> = {};
      const terms: number[] = [];
      let reason: string | undefined;
      for (const [i, verdict] of verdicts.entries()) {
        const { name, weight = 1 } = parts[i]!;
        detail[name] = verdict;
        if (verdict.reward === null) reason ??= `${name}: ${verdict.reason ?? "undecided"}`;
        else terms.push(weight * verdict.reward);
      }
      return reason === undefined ? { reward: decimalSum(terms), detail } : { reward: null, reason, detail };
    },
  });
}

/**
 * `verifier` is asked only where `gate` gives at least `threshold`; otherwise the reward is `otherwise`. An undecided gate is
 * undecided.
 */
export function gated(gate: Verifier, verifier: Verifier, threshold = 1, otherwise = 0): MadeVerifier {
  checkVerifier(gate, "gate");
  checkVerifier(verifier, "verifier");
  checkReward(threshold, "threshold");
  checkReward(otherwise, "otherwise");
  return withSignal({
    ...together([gate, verifier]),
    async verify(sample: Sample, signal: AbortSignal): Promise<Verdict> {
      const first = await verdictOf(gate, sample, signal);
      if (first.reward === null) {
        return { reward: null, reason: `gate: ${first.reason ?? "undecided"}`, detail: { gate: first } };
      }
      if (first.reward < threshold) return { reward: otherwise, reason: "gate", detail: { gate: first } };
      const second = await verdictOf(verifier, sample, signal);
      return { ...second, detail: { gate: first, verifier: second } };
    },
  });
}

/**
 * Each row by a verifier of its own: that of `cases` which the row's `field` names, else `otherwise`. The verdict is that
 * one's, and its only part.
 */
export function switched(
  field: string,
  cases: Readonly<Record<string, Verifier>>,
  otherwise?: Verifier | undefined,
): MadeVerifier {
  if (typeof field !== "string" || field === "") refuse("the name of a column", "field", field);
  if (typeof cases !== "object" || cases === null || Array.isArray(cases))
    refuse("{ value: verifier }", "cases", cases);
  const names = Object.keys(cases);
  if (names.length === 0) refuse("at least one verifier", "cases", cases);
  for (const name of names) checkVerifier(cases[name], `cases.${name}`);
  if (otherwise !== undefined) checkVerifier(otherwise, "otherwise");
  const named = (row: Row): readonly [string, Verifier] | undefined => {
    const value = Object.hasOwn(row, field) ? String(row[field]) : undefined;
    if (value !== undefined && Object.hasOwn(cases, value)) return [value, cases[value]!];
    return otherwise === undefined ? undefined : ["otherwise", otherwise];
  };
  return withSignal({
    ...together([...Object.values(cases), ...(otherwise === undefined ? [] : [otherwise])]),
    check(row) {
      const found = named(row);
      if (found === undefined) throw rowError("switch", field, `one of ${names.join(", ")}`, row[field]);
      found[1].check?.(row);
    },
    answerOf: (row) => named(row)?.[1].answerOf?.(row),
    async verify(sample, signal) {
      const found = named(sample.row);
      if (found === undefined)
        return { reward: null, reason: "no-case", detail: { [field]: sample.row[field] ?? null } };
      const [name, verifier] = found;
      const verdict = await verdictOf(verifier, sample, signal);
      return { ...verdict, detail: { [name]: verdict } };
    },
  });
}
