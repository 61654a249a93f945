/** A user's own function, judged in this process. */
import { show } from "../check.js";
import { answered } from "./answered.js";
import type { Reader } from "./options.js";
import type { Sample, Verdict, Verifier } from "./verifier.js";

/** A number, true (1), false (0), null (undecided) or a whole verdict. */
export type Judgement = number | boolean | null | Verdict;
/**
 * A verifier that runs in this process. One that throws, or that does not settle within 30 s, has not judged: null with reason
 * "error" or "timeout"; `signal` is aborted then. A loop that never ends cannot be stopped here: put such code into a module.
 */
export type VerifyFunction = (sample: Sample, signal: AbortSignal) => Judgement | Promise<Judgement>;

export const badVerdict = (message: string): Verdict => ({ reward: null, reason: "bad-verdict", detail: { message } });

/** With what of the detail JSON can hold, which is how it is logged: a function leaves it, a BigInt or a circle is an error. */
function withDetail(verdict: Verdict, detail: unknown): Verdict {
  if (typeof detail !== "object" || detail === null) return verdict;
  try {
    return { ...verdict, detail: JSON.parse(JSON.stringify(detail)) };
  } catch (error) {
    return badVerdict(`Expected plain data, as JSON can hold it, for the verdict's detail: ${String(error)}`);
  }
}

/** What a user's code returned, as a verdict; anything that is none is null with reason "bad-verdict", never 0. */
export function toVerdict(returned: unknown): Verdict {
  if (typeof returned === "boolean") return { reward: returned ? 1 : 0 };
  if (typeof returned === "number" && Number.isFinite(returned)) return { reward: returned };
  if (returned === null) return { reward: null, reason: "undecided" };
  if (typeof returned === "object" && "reward" in returned) {
    const { reward, detail, reason } = returned as { reward: unknown; detail?: unknown; reason?: unknown };
    if (reward === null || (typeof reward === "number" && Number.isFinite(reward))) {
      const why = typeof reason === "string" ? { reason } : reward === null && { reason: "undecided" };
      return withDetail({ reward, ...why }, detail);
    }
    return badVerdict(`Expected a finite number or null as "reward" but the verifier returned ${show(reward)}.`);
  }
  return badVerdict(
    `Expected a finite number, true, false, null or { reward } but the verifier returned ${show(returned)}.`,
  );
}

/** `judge` as a verifier. */
export function fromFunction(judge: VerifyFunction): Verifier {
  return {
    async verify(sample, signal) {
      const outcome = await answered(async (limit) => toVerdict(await judge(sample, limit)), signal);
      return "fault" in outcome ? { reward: null, ...outcome.fault, detail: { ...outcome.fault.detail } } : outcome.ok;
    },
  };
}

/** An option that is a plain object of strings. */
export const stringMap: Reader<Readonly<Record<string, string>>> = (value) => {
  if (value === undefined) return { ok: {} };
  const ok = typeof value === "object" && value !== null && Object.values(value).every((v) => typeof v === "string");
  return ok ? { ok: value as Record<string, string> } : { expected: "an object of texts" };
};
