import { type Bounds, boundsText, DIVISOR, invalid, isNumber, unknownName, wordsText } from "../check.js";
import { OBJECTIVE_NAMES } from "../other-names.js";
import type { ObjectiveFields, ObjectiveOptions } from "./objective.js";

/** What a field may hold. */
type Rule =
  | { readonly kind: "choice"; readonly of: readonly string[] }
  | { readonly kind: "boolean" }
  | ({ readonly kind: "number"; readonly nullable?: boolean } & Bounds);

const positive: Rule = { kind: "number", above: 0 };
const fromZero: Rule = { kind: "number", min: 0 };
const positiveOrNull: Rule = { kind: "number", above: 0, nullable: true };
const choice = (...of: string[]): Rule => ({ kind: "choice", of });

/** One rule a field, in the order of docs. */
const RULES: Readonly<Record<keyof ObjectiveFields, Rule>> = {
  objective: choice("ppo-clip", "gspo", "gspo-token", "cispo", "sapo", "luspo", "gmpo", "row-coefficient"),
  clipLow: fromZero,
  clipHigh: fromZero,
  dualClip: { kind: "number", above: 1, nullable: true },
  ratioBound: positiveOrNull,
  reduction: choice("token-mean", "sequence-mean", "sequence-sum", "token-sum"),
  normalizer: positiveOrNull,
  klCoef: fromZero,
  klEstimator: choice("k1", "k2", "k3", "abs"),
  klClamp: positiveOrNull,
  klImportanceCorrection: { kind: "boolean" },
  temperature: { kind: "number", ...DIVISOR },
  entropyCoef: { kind: "number" },
  logitSoftcap: { kind: "number", nullable: true, ...DIVISOR },
  logitRounding: choice("none", "bf16"),
  nonFinite: choice("error", "skip"),
  importanceCorrection: choice("none", "token-truncate", "token-mask", "sequence-truncate", "sequence-mask"),
  importanceMin: { kind: "number", min: 0, nullable: true },
  importanceMax: positiveOrNull,
  sapoTemperaturePos: positive,
  sapoTemperatureNeg: positive,
  creditMix: { kind: "number", min: 0, max: 1 },
  evidenceClip: fromZero,
  negativeOnly: { kind: "boolean" },
  clipMode: choice("symmetric", "pessimistic"),
  normalize: choice("none", "sequence"),
  studentSource: choice("current", "old"),
};

function expectedBy(rule: Rule): string {
  if (rule.kind === "choice") return wordsText(rule.of);
  if (rule.kind === "boolean") return "a boolean";
  return `a finite number${boundsText(rule)}${rule.nullable ? " or null" : ""}`;
}

function obeys(rule: Rule, value: unknown): boolean {
  if (rule.kind === "choice") return typeof value === "string" && rule.of.includes(value);
  if (rule.kind === "boolean") return typeof value === "boolean";
  return value === null ? rule.nullable === true : isNumber(value, rule);
}

/**
 * The fields that are given, each read once, inherited ones too; those that are undefined are left out. Throws
 * ERR_RLSD_INVALID_ARGUMENT for a name that is no field, with the right spelling, or a value a field cannot hold.
 */
export function readFields(options: ObjectiveOptions): Partial<ObjectiveFields> {
  const given: [string, unknown][] = [];
  for (const name in options) {
    if (!Object.hasOwn(RULES, name))
      throw unknownName(`objective field ${name}`, name, Object.keys(RULES), OBJECTIVE_NAMES);
    const field = name as keyof ObjectiveFields;
    const value = options[field];
    if (value === undefined) continue;
    if (!obeys(RULES[field], value)) throw invalid(expectedBy(RULES[field]), name, value);
    given.push([name, value]);
  }
  return Object.fromEntries(given);
}
