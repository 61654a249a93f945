import { invalid, isError, refusal, textOf } from "../check.js";
import { RlsdError } from "../errors.js";
import { showsPrivileged } from "./algorithms.js";
import type { ResolvedConfig } from "./config.js";
import { transcript } from "./conversation.js";
import type { Example } from "./data/dataset.js";
import { type Judged, saidIn } from "./judge.js";
import type { Prompted, Rollout } from "./rollout.js";
import { succeededBy } from "./success.js";

/** What a privileged text may be made from. */
export interface PrivilegedInput {
  /** The row that the prompt was made of. */
  readonly example: Example;
  /** The completion that the teacher will re-read. */
  readonly rollout: Rollout;
  /** Of that completion. */
  readonly verdict: Judged;
  /** The completions of the same prompt with their verdicts, this one included. */
  readonly siblings: readonly { readonly rollout: Rollout; readonly verdict: Judged }[];
}

/** Returns, at once, the text that the teacher sees for this sample; null or undefined: what `privileged.source` says. */
export type PrivilegedFunction = (input: PrivilegedInput) => string | null | undefined;

type Source = ResolvedConfig["privileged"]["source"];

/** The privileged text that a row itself brings; undefined: `source` makes it from completions. */
export function rowText(example: Example, source: Source): string | null | undefined {
  switch (source) {
    case "auto":
      return example.document ?? example.trace ?? example.answer;
    case "answer":
    case "trace":
    case "document":
      return example[source];
    case "none":
      return null;
    case "feedback":
    case "sibling":
    case "sibling+feedback":
      return undefined;
  }
}

/** How many rows bring none; null: no step asks for it, or it is not the rows that bring it. */
export function rowsWithoutPrivilege(
  prompts: readonly Prompted[],
  config: ResolvedConfig,
  own: PrivilegedFunction | undefined,
): number | null {
  const { source } = config.privileged;
  if (own !== undefined || !showsPrivileged(config)) return null;
  const texts = prompts.map(({ example }) => rowText(example, source));
  return texts.includes(undefined) ? null : texts.filter((text) => text === null).length;
}

/** What the caller's own function says of a sample; null: nothing. */
export function ownText(own: PrivilegedFunction, input: PrivilegedInput): string | null {
  const { where } = input.example;
  let text: unknown;
  try {
    text = own(input);
  } catch (error) {
    const message = `hooks.privileged failed on a completion of ${where}: ${isError(error, Error) ? error.message : textOf(error)}`;
    throw new RlsdError("ERR_RLSD_INVALID_ARGUMENT", message, { cause: error });
  }
  if (text === undefined || text === null || typeof text === "string") return text ?? null;
  const expected = "a text, null or undefined";
  if (!(text instanceof Promise)) throw invalid(expected, `what hooks.privileged returns for ${where}`, text);
  // It is refused here, whatever it comes to.
  text.catch(() => {});
  const mend = "Look up what it needs before the training.";
  throw refusal(expected, `what hooks.privileged returns for ${where}`, "a promise", mend);
}

function feedbackOn({ verdict }: PrivilegedInput): string | null {
  const feedback = saidIn(verdict, "feedback");
  return typeof feedback === "string" ? feedback : null;
}

type Judging = Pick<ResolvedConfig, "privileged" | "reward">;

function rightSibling({ rollout, siblings }: PrivilegedInput, config: Judging): string | null {
  const succeeded = succeededBy(config);
  const good = siblings.find((one) => one.rollout !== rollout && succeeded(one.verdict));
  return good === undefined ? null : transcript(good.rollout);
}

/** A successful sibling and the verifier's feedback, as far as there are any. */
function attempts(input: PrivilegedInput, config: Judging): string | null {
  const [sibling, feedback] = [rightSibling(input, config), feedbackOn(input)];
  const told = feedback === null ? null : `What was said of an earlier attempt:\n${feedback}`;
  return [sibling, told].filter((part) => part !== null).join("\n\n") || null;
}

/** The privileged text that the settings ask for; null: this sample has none. */
export function privilegedText(input: PrivilegedInput, config: Judging): string | null {
  const { source } = config.privileged;
  switch (source) {
    case "feedback":
      return feedbackOn(input);
    case "sibling":
      return rightSibling(input, config);
    case "sibling+feedback":
      return attempts(input, config);
    default:
      return rowText(input.example, source) ?? null;
  }
}

/**
 * What the contrast teacher is told: the group's worst rejected completion, or what it gave as its answer when answers
 * are what the teacher sees. Never the completion's own text.
 */
export function contrastText(input: PrivilegedInput, config: Judging): string | null {
  const succeeded = succeededBy(config);
  const rejected = input.siblings.filter(
    ({ rollout, verdict }) => rollout !== input.rollout && verdict.reward !== null && !succeeded(verdict),
  );
  const worst = rejected.reduce<(typeof rejected)[number] | undefined>(
    (a, b) => (a === undefined || b.verdict.reward! < a.verdict.reward! ? b : a),
    undefined,
  );
  if (worst === undefined) return null;
  const said = saidIn(worst.verdict, "extracted");
  const answered = config.privileged.source === "answer" && (typeof said === "string" || typeof said === "number");
  return answered ? String(said) : transcript(worst.rollout);
}
