import * as jinja from "@huggingface/jinja";

/** A value of Jinja around one of JavaScript; lists and objects hold values of Jinja. */
export interface Value {
  readonly type: string;
  readonly value: unknown;
}

/** Names and what they stand for. */
export interface Scope {
  /** Throws where the name is taken; the value as one of Jinja. */
  set(name: string, value: unknown): Value;
  setVariable(name: string, value: Value): unknown;
}

// The library's declarations are not found as a module of ES resolves them.
const Interpreter = jinja.Interpreter as unknown as new (
  scope: Scope,
) => {
  run(program: unknown): Value;
  evaluate(node: unknown, scope: Scope): Value;
};
export const Environment = jinja.Environment as unknown as new () => Scope;

/** Values that a rendering may make, with their characters and items: tens of messages, in milliseconds. */
const MOST = 2 ** 17;

/** A rendering made that much, and its end is not in sight. */
export class Spent extends Error {}

/** Lists in lists, and objects, are at most so deep: tools and their parameters are about ten. */
const DEEPEST = 100;

/** Items of a list or object and of those in it, up to about `most`: what is in it twice is written twice. */
function itemsIn(value: unknown, most: number, depth = 0): number {
  if (typeof value !== "object" || value === null) return 0;
  if (depth > DEEPEST) return most + 1;
  let count = 0;
  for (const item of value instanceof Map ? value.values() : (value as readonly Value[])) {
    count += 1 + itemsIn((item as Value).value, most - count, depth + 1);
    if (count > most) break;
  }
  return count;
}

/** Characters, or items without those in them. */
function lengthOf(value: unknown): number {
  if (typeof value === "string" || Array.isArray(value)) return value.length;
  return value instanceof Map ? value.size : 0;
}

/** Nodes whose value was there before: what is in it was counted when it was made. */
const FOUND: ReadonlySet<unknown> = new Set(["Identifier", "MemberExpression"]);

/**
 * Interprets what costs little. As every step is counted with the size of what it makes, nothing that it does takes long,
 * and no clock has to watch it, which would take several times as long as the rendering of a prompt itself.
 */
class BoundedInterpreter extends Interpreter {
  #left = MOST;
  /** Whether there is a value that may have changed since it was made. */
  #changing = false;

  override evaluate(node: unknown, scope: Scope): Value {
    const made = super.evaluate(node, scope);
    this.#changing ||= made.type === "NamespaceValue";
    const counted = !this.#changing && FOUND.has((node as { readonly type?: unknown } | undefined)?.type);
    const flat = counted || typeof made.value === "string";
    this.#left -= 1 + (flat ? lengthOf(made.value) : itemsIn(made.value, this.#left));
    if (this.#left < 0) throw new Spent();
    return made;
  }
}

/** The text of a parsed template; `bounded`: throws Spent where that costs much. */
export function interpret(program: unknown, scope: Scope, o: { readonly bounded: boolean }): string {
  const interpreter = new (o.bounded ? BoundedInterpreter : Interpreter)(scope);
  return interpreter.run(program).value as string;
}
