import { JSON_PARAMETERS, pythonJson } from "./python-json.js";
import { type Inner, pythonText, stripped } from "./python-text.js";

/** A node of a parsed template. */
interface Node {
  readonly type?: unknown;
  readonly value?: unknown;
  readonly operator?: { readonly value?: unknown };
  readonly left?: Node;
  readonly right?: Node;
  readonly callee?: Node;
  readonly object?: Node;
  readonly property?: Node;
  readonly args?: readonly Node[];
  readonly operand?: Node;
  readonly filter?: Node;
  readonly test?: Node;
  readonly key?: Node;
}

/** What a name or a call names. */
const nameOf = (node: Node | undefined): unknown => {
  const named = node?.type === "CallExpression" ? node.callee : node;
  return named?.type === "Identifier" ? named.value : undefined;
};

/** The value of a function of one list. */
type OfList = (values: readonly Inner[]) => unknown;

function strip(sides: "both" | "left" | "right"): OfList {
  return ([text, characters]) => {
    const given = characters === undefined || characters.value === null ? undefined : pythonText(characters);
    return stripped(pythonText(text!), given, sides);
  };
}

/** What `join` puts together: texts. */
const texts: OfList = ([list]) => {
  const { value } = list!;
  if (value instanceof Map) return [...value.keys()];
  return Array.isArray(value) ? (value as Inner[]).map(pythonText) : value;
};

/** Whether two values are equal, as `==` has it: bool and number are alike, a text is equal to texts alone, lists and objects by their items. */
function equal(a: Inner, b: Inner): boolean {
  const [x, y] = [a.value, b.value];
  // None and what is not defined may have the same value here.
  if (x === null || x === undefined) return a.type === b.type;
  if (Array.isArray(x) && Array.isArray(y)) return x.length === y.length && x.every((item, i) => equal(item, y[i]));
  if (x instanceof Map && y instanceof Map) {
    return x.size === y.size && [...x].every(([name, item]) => y.has(name) && equal(item, y.get(name)));
  }
  const number = (value: unknown) => (typeof value === "boolean" ? Number(value) : value);
  return number(x) === number(y);
}

/** Objects are, of which a loop gives the names, and what is not defined, of which it gives nothing. */
function iterable({ type, value }: Inner): boolean {
  return type === "UndefinedValue" || typeof value === "string" || Array.isArray(value) || value instanceof Map;
}

/** Functions for what the library does in another way than Jinja on Python, by names that no template has. */
export const PYTHON_FUNCTIONS: Readonly<Record<string, OfList>> = {
  rlsd_text: ([value]) => pythonText(value!),
  rlsd_texts: texts,
  rlsd_equal: ([a, b]) => equal(a!, b!),
  rlsd_unequal: ([a, b]) => !equal(a!, b!),
  rlsd_iterable: ([value]) => iterable(value!),
  rlsd_json: ([value, given]) => pythonJson(value!, given!.value as ReadonlyMap<string, Inner>),
  rlsd_strip: strip("both"),
  rlsd_lstrip: strip("left"),
  rlsd_rstrip: strip("right"),
};

/** A call of one of these. A function is given bare values, which are alike for null and undefined; in a list they have their types. */
const call = (name: string, ...values: readonly Node[]): Node => ({
  type: "CallExpression",
  callee: { type: "Identifier", value: name },
  args: [{ type: "ArrayLiteral", value: values }],
});

const text = (node: Node): Node => (node.type === "StringLiteral" ? node : call("rlsd_text", node));

/** Everything in a body that prints nothing of its own, or a text. */
const SILENT: ReadonlySet<unknown> = new Set(
  "StringLiteral Comment If For Set Macro Break Continue CallStatement FilterStatement".split(" "),
);

/** Filters of texts, which take any value as its text. */
const TEXT_FILTERS: ReadonlySet<unknown> = new Set(["upper", "lower", "title", "capitalize", "replace", "indent"]);

const STRIPS: ReadonlySet<unknown> = new Set(["strip", "lstrip", "rstrip"]);

/** Parameters of `tojson` by their names. */
function jsonParameters(args: readonly Node[]): Node {
  const entries = args.map((arg, i): [Node, Node] =>
    arg.type === "KeywordArgumentExpression"
      ? [{ type: "StringLiteral", value: arg.key!.value }, arg.value as Node]
      : [{ type: "StringLiteral", value: JSON_PARAMETERS[i] ?? `number ${i + 2}` }, arg],
  );
  return { type: "ObjectLiteral", value: new Map(entries) };
}

function filtered(node: Node): Node {
  const { filter, operand } = node;
  const name = nameOf(filter);
  if (name === "tojson") return call("rlsd_json", operand!, jsonParameters(filter!.args ?? []));
  if (name === "string") return text(operand!);
  if (name === "trim") return call("rlsd_strip", operand!, ...(filter!.args ?? []));
  if (TEXT_FILTERS.has(name)) return { ...node, operand: text(operand!) };
  return name === "join" ? { ...node, operand: call("rlsd_texts", operand!) } : node;
}

function operated(node: Node, left: Node, right: Node): Node {
  switch (node.operator?.value) {
    case "~":
      return { ...node, left: text(left), right: text(right) };
    case "==":
      return call("rlsd_equal", left, right);
    case "!=":
      return call("rlsd_unequal", left, right);
    default:
      return node;
  }
}

/** One node whose parts are rewritten already. */
function rewritten(node: Node): Node {
  const { type, left, right, callee } = node;
  if (type === "FilterExpression") return filtered(node);
  if (type === "BinaryExpression") return operated(node, left!, right!);
  if (type === "TestExpression" && nameOf(node.test) === "iterable") {
    return { ...node, operand: call("rlsd_iterable", node.operand!), test: { ...node.test, value: "true" } };
  }
  if (type !== "CallExpression" || callee?.type !== "MemberExpression") return node;
  const name = callee.property?.type === "Identifier" ? callee.property.value : undefined;
  return STRIPS.has(name) ? call(`rlsd_${name}`, callee.object!, ...(node.args ?? [])) : node;
}

const BODIES: ReadonlySet<string> = new Set(["body", "alternate", "defaultBlock"]);

/**
 * The tree of a parsed template that writes what Jinja on Python writes, for which models' templates are made: what is printed,
 * joined by `~` or by `join`, or given to `string`, is a text as of `str` (the library: true, null, JSON, "[object Map]", or nothing
 * at all), `tojson` writes what `json.dumps` does (1e-05, not 0.00001), `strip` and `trim` take away the characters that they
 * are given, or Python's white space, and an empty text is not equal to false.
 */
export function asPython(node: unknown): unknown {
  if (typeof node !== "object" || node === null) return node;
  if (Array.isArray(node)) return node.map(asPython);
  // What an object is written as.
  if (node instanceof Map) return new Map([...node].map(([name, value]) => [asPython(name), asPython(value)]));
  for (const [name, inner] of Object.entries(node)) {
    const own = asPython(inner);
    const prints = BODIES.has(name) && Array.isArray(own);
    const parts = prints ? (own as Node[]).map((part) => (SILENT.has(part.type) ? part : text(part))) : own;
    Object.assign(node, { [name]: parts });
  }
  return rewritten(node);
}
