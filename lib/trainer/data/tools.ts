import { isObject } from "../../check.js";
import { parseExact } from "../../exact-json.js";
import type { Tool, ToolCall } from "../../prompt/messages.js";

type Tree = Readonly<Record<string, unknown>>;

const isNothing = (value: unknown): boolean => value === undefined || value === null || value === "";

/** A value that may be there as JSON text, with its integers as they are; undefined: the text is none. */
export function parsed(value: unknown): unknown {
  if (typeof value !== "string") return value;
  try {
    return parseExact(value);
  } catch {
    return undefined;
  }
}

const hasName = (value: unknown): value is Tree & { readonly name: string } =>
  isObject(value) && typeof value.name === "string" && value.name !== "";

/** A tool as {type, function}; as a function's schema alone, as ms-swift and LLaMA-Factory have it; or flat, with its type. */
function toTool(value: unknown): Tool | undefined {
  if (!isObject(value)) return undefined;
  if (hasName(value.function)) return value;
  if (value.function !== undefined || !hasName(value)) return undefined;
  const { type: _, ...schema } = value;
  return { type: "function", function: schema };
}

/** The tools of a row: a list of their schemas, or the JSON of one. A text: what is wrong with it. */
export function toTools(value: unknown): readonly Tool[] | string {
  if (isNothing(value)) return [];
  const list = parsed(value);
  if (!Array.isArray(list)) return "expected a list of tools, or its JSON";
  const tools = list.map(toTool);
  const wrong = tools.indexOf(undefined);
  return wrong < 0 ? (tools as Tool[]) : `tool ${wrong + 1} is no {type, function: {name, ...}}`;
}

/** Whether a column's value is one that only tools have. */
export function isTools(value: unknown): boolean {
  const tools = toTools(value);
  return typeof tools === "object" && tools.length > 0;
}

/** One call: {function: {name, arguments}}, with an id or without, or {name, arguments}; arguments may be their JSON. */
function toCall(value: unknown, number: number): ToolCall | string {
  const called = isObject(value) && value.function !== undefined ? value.function : value;
  if (!hasName(called)) return `a tool call (${number}) without the name of a function`;
  const given = isNothing(called.arguments) ? {} : parsed(called.arguments);
  // Templates write an object as JSON, or its entries; of a text most make a text in quotes.
  if (!isObject(given)) return `arguments of tool call ${number} (${called.name}) that are no JSON object`;
  const id = isObject(value) && typeof value.id === "string" ? { id: value.id } : {};
  return { ...id, type: "function", function: { name: called.name, arguments: given } };
}

/** The calls of an assistant's turn: a list, one alone, or the JSON of either. A text: what there is that is wrong. */
export function toCalls(value: unknown): readonly ToolCall[] | string {
  if (isNothing(value)) return [];
  const given = parsed(value);
  const calls = (Array.isArray(given) ? given : [given]).map((call, i) => toCall(call, i + 1));
  return calls.find((call) => typeof call === "string") ?? (calls as ToolCall[]);
}
