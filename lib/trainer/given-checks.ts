/** Settings that mean something beside another one alone. */
import { show } from "../check.js";
import { fail } from "./config-error.js";
import { valueAt } from "./data/fields.js";
import { NEEDED } from "./unused-settings.js";

/** Settings that the other one's default uses: only what it is set to can leave them without effect. */
const UNUSED: readonly {
  /** With the default of each, which is no matter. */
  readonly names: Readonly<Record<string, unknown>>;
  readonly beside: string;
  readonly uses: (value: unknown) => boolean;
  readonly users: string;
}[] = [
  {
    names: { "advantage.eps": 1e-6, "advantage.ddof": 1 },
    beside: "advantage.scale",
    uses: (value) => value !== "none",
    users: "group or batch",
  },
  {
    names: { "distill.beta": 0.5 },
    beside: "distill.divergence",
    uses: (value) => value === "jsd",
    users: "jsd",
  },
  {
    names: { "objective.klClamp": 10 },
    beside: "objective.klEstimator",
    uses: (value) => value === "k3",
    users: "k3",
  },
];

/** What was given at a dotted name; undefined: nothing. */
const at = (given: unknown, name: string): unknown => valueAt(Object(given), name);

/**
 * Throws ERR_RLSD_CONFIG for a setting without the one that it needs: one of them was forgotten. Where that one is given it
 * may also be what leaves the other without effect, as when `--set` or an arm of a comparison changes it alone.
 */
function checkForgotten(given: unknown): void {
  for (const [needed, names] of NEEDED) {
    if (needed.some((name) => at(given, name) !== undefined)) continue;
    // null and an empty text are defaults, where settings may be that.
    const idle = names.find((name) => ![undefined, null, ""].includes(at(given, name) as string | null | undefined));
    if (idle === undefined) continue;
    const one = needed.map((name) => `"${name}"`).join(" or ");
    const missing = needed.length > 1 ? "of which none is given: set one too" : "which is not given: set that too";
    fail(`"${idle}" has no effect without ${one}, ${missing}, or leave this out.`);
  }
}

/** Throws ERR_RLSD_CONFIG for a setting that what another one is set to makes no use of. */
function checkUsed(given: unknown): void {
  for (const { names, beside, uses, users } of UNUSED) {
    const value = at(given, beside);
    if (value === undefined || uses(value)) continue;
    for (const [name, fallback] of Object.entries(names)) {
      const set = at(given, name);
      if (set === undefined || set === fallback) continue;
      fail(
        `"${name}" is ${show(set)}, but has no effect where "${beside}" is ${value}: ` +
          `set that to ${users}, or leave this out (its default is ${show(fallback)}).`,
      );
    }
  }
}

/** Settings that were given and could change nothing. */
export function checkNeeded(given: unknown): void {
  checkForgotten(given);
  checkUsed(given);
}
