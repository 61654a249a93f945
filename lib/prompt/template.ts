import { type Context, createContext, Script } from "node:vm";
import { Template } from "@huggingface/jinja";

/** Jinja, which comes with models and runs of others and may not be trusted to end: one that does not is stopped. */
export interface JinjaTemplate {
  render(variables: Readonly<Record<string, unknown>>): string;
}

/** A prompt takes about one millisecond. */
const DEADLINE_MS = 10_000;
/** Numbers of a `range`, as in the sandbox in which templates run elsewhere. Longer lists can end the process. */
const MAX_RANGE = 100_000;
const RANGE = "rlsd_range";

function range(first: number, end?: number, step = 1): number[] {
  if (step === 0) throw new Error("range() by steps of 0");
  const [start, stop] = end === undefined ? [0, first] : [first, end];
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (count > MAX_RANGE) throw new Error(`range() of more than ${MAX_RANGE} numbers`);
  return Array.from({ length: count }, (_, i) => start + i * step);
}

class TooLong extends Error {}

const CALL = new Script("call()");
let context: Context | undefined;

/** What `call` returns. The engine stops it wherever it is when its time is over, which no timer of this thread could. */
function within<T>(ms: number, call: () => T): T {
  context ??= createContext({});
  context.call = call;
  try {
    return CALL.runInContext(context, { timeout: ms }) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException | null)?.code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
    throw new TooLong(`it takes longer than ${ms / 1000} s`);
  } finally {
    context.call = undefined;
  }
}

/** A template from its source; throws where that is no Jinja. One that took too long is refused from then on, at once. */
export function createTemplate(source: string, deadlineMs = DEADLINE_MS): JinjaTemplate {
  const template = within(deadlineMs, () => new Template(source));
  template.parsed.body.unshift(...new Template(`{% set range = ${RANGE} %}`).parsed.body);
  let late: TooLong | undefined;
  return {
    render(variables) {
      if (late !== undefined) throw late;
      try {
        return within(deadlineMs, () => template.render({ ...variables, [RANGE]: range }));
      } catch (error) {
        if (error instanceof TooLong) late = error;
        throw error;
      }
    },
  };
}
