import { Template } from "@huggingface/jinja";
import { within as timed } from "../time-limit.js";
import { asPython, PYTHON_FUNCTIONS } from "./as-python.js";
import { Environment, interpret, type Scope, Spent, type Value } from "./interpreter.js";
import { withStandIns } from "./stand-ins.js";

type Variables = Readonly<Record<string, unknown>>;

/** Jinja, which comes with models and runs of others and may not be trusted to end: one that does not is stopped. */
export interface JinjaTemplate {
  render(variables: Variables): string;
}

const DEADLINE_MS = 10_000;
/** Numbers of a `range`, as in the sandbox in which templates run elsewhere. Longer lists can end the process. */
const MAX_RANGE = 100_000;
function range(first: number, end?: number, step = 1): number[] {
  if (step === 0) throw new Error("range() by steps of 0");
  const [start, stop] = end === undefined ? [0, first] : [first, end];
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (count > MAX_RANGE) throw new Error(`range() of more than ${MAX_RANGE} numbers`);
  return Array.from({ length: count }, (_, i) => start + i * step);
}

class TooLong extends Error {}

const within = <T>(ms: number, call: () => T): T =>
  timed(ms, call, () => new TooLong(`it takes longer than ${ms / 1000} s`));

/** The functions that the library gives to the templates which it renders itself. */
function libraryFunctions(): ReadonlyMap<string, Value> {
  const names = ["raise_exception", "strftime_now"];
  let taken: readonly Value[] = [];
  const take = (list: readonly Value[]) => {
    taken = list;
  };
  // In a list they come as they are, and not as bare values.
  new Template(`{{ take([${names}]) }}`).render({ take });
  return new Map(names.map((name, i) => [name, taken[i]!]));
}

/** What every template may name: what the library gives it, with another `range`. None of it can change, so that all share it. */
function fixedValues(): ReadonlyMap<string, Value> {
  const scope = new Environment();
  const constants = { true: true, True: true, false: false, False: false, none: null, None: null };
  const own = Object.entries({ ...constants, range, ...PYTHON_FUNCTIONS });
  return new Map([...libraryFunctions(), ...own.map(([name, value]) => [name, scope.set(name, value)] as const)]);
}

let fixed: ReadonlyMap<string, Value> | undefined;

/** That and these variables. */
function scopeOf(variables: Variables): Scope {
  const scope = new Environment();
  fixed ??= fixedValues();
  for (const [name, value] of fixed) scope.setVariable(name, value);
  for (const [name, value] of Object.entries(variables)) scope.set(name, value);
  return scope;
}

/** A template from its source; throws where that is no Jinja. One that took too long is refused from then on, at once. */
export function createTemplate(source: string, deadlineMs = DEADLINE_MS): JinjaTemplate {
  // Jinja's own lexer knows one kind of newline alone.
  const { parsed } = within(deadlineMs, () => new Template(source.replace(/\r\n?/g, "\n")));
  asPython(parsed);
  const render = (variables: Variables, bounded: boolean) => interpret(parsed, scopeOf(variables), { bounded });
  let late: TooLong | undefined;
  return {
    render(given) {
      if (late !== undefined) throw late;
      const { variables, restored } = withStandIns(given, source);
      try {
        return restored(render(variables, true));
      } catch (error) {
        if (!(error instanceof Spent)) throw error;
      }
      try {
        return restored(within(deadlineMs, () => render(variables, false)));
      } catch (error) {
        if (error instanceof TooLong) late = error;
        throw error;
      }
    },
  };
}
