import { RlsdError } from "../errors.js";
import type { ObjectiveFields } from "./objective.js";

/** What a field may hold. Bounds are inclusive unless `above` says otherwise. */
type Rule =
  | { readonly kind: "choice"; readonly of: readonly string[] }
  | { readonly kind: "boolean" }
  | {
      readonly kind: "number";
      readonly min?: number;
      readonly above?: number;
      readonly max?: number;
      readonly nullable?: boolean;
    };

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
  temperature: positive,
  entropyCoef: { kind: "number" },
  logitSoftcap: positiveOrNull,
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

const NAMES = Object.keys(RULES) as (keyof ObjectiveFields)[];

/** Edits to turn one word into another: insertions, deletions, substitutions. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, substitution));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** The known name closest to a misspelt one, or undefined when nothing is close. Case and punctuation do not count. */
export function closestName(name: string, known: readonly string[]): string | undefined {
  const plain = (s: string) => s.toLowerCase().replace(/[^a-z0-9]/g, "");
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(plain(name), plain(candidate));
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

function describe(rule: Rule): string {
  if (rule.kind === "choice") return `one of ${rule.of.map((v) => `"${v}"`).join(", ")}`;
  if (rule.kind === "boolean") return "a boolean";
  const bounds = [
    rule.above === undefined ? "" : ` above ${rule.above}`,
    rule.min === undefined ? "" : ` of at least ${rule.min}`,
    rule.max === undefined ? "" : `${rule.min === undefined ? "" : " and"} at most ${rule.max}`,
  ].join("");
  return `a finite number${bounds}${rule.nullable ? " or null" : ""}`;
}

function obeys(rule: Rule, value: unknown): boolean {
  if (rule.kind === "choice") return typeof value === "string" && rule.of.includes(value);
  if (rule.kind === "boolean") return typeof value === "boolean";
  if (value === null) return rule.nullable === true;
  if (typeof value !== "number" || !Number.isFinite(value)) return false;
  return value >= (rule.min ?? -Infinity) && value > (rule.above ?? -Infinity) && value <= (rule.max ?? Infinity);
}

/** Throws ERR_RLSD_INVALID_ARGUMENT for a name that is no field, with the right spelling, or a value a field cannot hold. */
export function checkFields(options: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(options)) {
    const rule = RULES[name as keyof ObjectiveFields] as Rule | undefined;
    if (rule === undefined || !Object.hasOwn(RULES, name)) {
      const suggestion = closestName(name, NAMES);
      const hint = suggestion === undefined ? `Fields: ${NAMES.join(", ")}.` : `Did you mean ${suggestion}?`;
      throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", `Unknown objective field ${name}. ${hint}`);
    }
    if (value !== undefined && !obeys(rule, value)) {
      const received = typeof value === "string" ? `"${value}"` : String(value);
      const message = `Expected ${describe(rule)} for ${name} but received ${received} of type ${typeof value}.`;
      throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message);
    }
  }
}
