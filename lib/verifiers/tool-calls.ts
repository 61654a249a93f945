/** Calls of tools in what a model wrote, by the formats that models are trained to write. */
import { isObject } from "../check.js";
import { pythonCalls } from "./python-calls.js";

/** A call as it was read, or why it could not be. */
export type ReadCall =
  | { readonly name: string; readonly arguments: Readonly<Record<string, unknown>> }
  | { readonly name: string | undefined; readonly fault: string };

/** Of arguments; what nests deeper no tool asks for, and code that follows it down may run out of stack. */
const MOST_LEVELS = 64;

function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => isDeeper(inner, levels - 1));
}

/** {name, arguments} or {name, parameters}; arguments are an object or the JSON of one. */
export function toCall(value: unknown): ReadCall {
  if (!isObject(value) || typeof value.name !== "string") return { name: undefined, fault: "it has no name" };
  const { name } = value;
  let given = value.arguments ?? value.parameters ?? {};
  if (typeof given === "string") {
    try {
      given = JSON.parse(given);
    } catch (error) {
      return { name, fault: `its arguments are not JSON: ${(error as Error).message}` };
    }
  }
  if (!isObject(given)) return { name, fault: "its arguments are not an object" };
  if (isDeeper(given, MOST_LEVELS)) return { name, fault: `its arguments nest more than ${MOST_LEVELS} levels deep` };
  return { name, arguments: given };
}

function fromJson(text: string): ReadCall[] {
  try {
    const value: unknown = JSON.parse(text);
    return (Array.isArray(value) ? value : [value]).map(toCall);
  } catch (error) {
    return [{ name: undefined, fault: `it is not JSON: ${(error as Error).message}` }];
  }
}

const FUNCTION = /^<function=([^>\n]+)>([\s\S]*?)(?:<\/function>)?$/;
const PARAMETER_END = "</parameter>";
const PARAMETER = /<parameter=([^<>\n]+)>\n?([\s\S]*?)\n?<\/parameter>/g;

/** A value between tags has no type: JSON where it is some, else the text. */
function untyped(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** What stands between <tool_call> and </tool_call>: JSON (Hermes, Qwen, SmolLM 3), or tags (Qwen 3 Coder). */
function tagged(inner: string): ReadCall[] {
  const tags = FUNCTION.exec(inner);
  if (tags === null) return fromJson(inner);
  // Behind the last end none is looked for: each beginning would be followed to the end of the text in vain.
  const parts = tags[2]!.slice(0, tags[2]!.lastIndexOf(PARAMETER_END) + PARAMETER_END.length);
  const given = [...parts.matchAll(PARAMETER)].map(([, name, text]) => [name!, untyped(text!)]);
  return [toCall({ name: tags[1]!, arguments: Object.fromEntries(given) })];
}

/** The place of a text, or the end where it is not there. */
const placeOf = (text: string, part: string, from = 0): number => {
  const at = text.indexOf(part, from);
  return at < 0 ? text.length : at;
};

const OPEN = "<tool_call>";
const CLOSE = "</tool_call>";

function hermes(text: string): Found | undefined {
  // One that never closes ends where the next begins, or with the turn.
  const [before, ...parts] = text.split(OPEN);
  if (parts.length === 0) return undefined;
  return { at: before!.length, calls: parts.flatMap((part) => tagged(part.slice(0, placeOf(part, CLOSE)).trim())) };
}

/** Pairs of tags around calls as Python writes them: OLMo 3, LFM 2. */
const PYTHON_TAGS = [
  ["<function_calls>", "</function_calls>"],
  ["<|tool_call_start|>", "<|tool_call_end|>"],
] as const;

function fromPython(text: string): ReadCall[] {
  try {
    return pythonCalls(text);
  } catch (error) {
    return [{ name: undefined, fault: `it is not a call: ${(error as Error).message}` }];
  }
}

function python(text: string): Found | undefined {
  for (const [open, close] of PYTHON_TAGS) {
    const at = text.indexOf(open);
    if (at < 0) continue;
    const start = at + open.length;
    return { at, calls: fromPython(text.slice(start, placeOf(text, close, start)).trim()) };
  }
  return undefined;
}

/** A list of JSON behind a tag, which may close: Granite 3, Phi 4 mini. */
const LISTED = "<|tool_call|>";

function listed(text: string): Found | undefined {
  const at = text.indexOf(LISTED);
  if (at < 0) return undefined;
  const start = at + LISTED.length;
  return { at, calls: fromJson(text.slice(start, placeOf(text, "<|/tool_call|>", start)).trim()) };
}

const MISTRAL = "[TOOL_CALLS]";

/** [TOOL_CALLS] [{name, arguments}, ...]; of later models [TOOL_CALLS]name[ARGS]{...} for each, of some with [CALL_ID] and an id behind the name. */
function mistral(text: string): Found | undefined {
  const [before, ...parts] = text.split(MISTRAL);
  if (parts.length === 0) return undefined;
  const calls = parts.flatMap((part) => {
    const [name, given] = part.split("[ARGS]");
    if (given === undefined) return fromJson(part.trim());
    return [toCall({ name: name!.split("[CALL_ID]")[0]!.trim(), arguments: given.trim() })];
  });
  return { at: before!.length, calls };
}

const PYTHON = "<|python_tag|>";

/** [weather(city="Bern")]: nothing else looks so. */
const PYTHON_LIST = /^\[\s*[A-Za-z_][\w.]*\s*\(/;

/** Llama 3: the turn is nothing but {name, parameters}, or several with a semicolon between; or a list as Python writes it. */
function llama(text: string): Found | undefined {
  const marked = text.indexOf(PYTHON);
  const body = (marked < 0 ? text : text.slice(marked + PYTHON.length)).trim();
  if (marked < 0 && !/^[{[]/.test(body)) return undefined;
  if (PYTHON_LIST.test(body)) return { at: Math.max(0, marked), calls: fromPython(body) };
  const calls = body.split(/(?<=\})\s*;\s*(?=\{)/).flatMap(fromJson);
  // JSON that is no call is an answer, unless the model said that it calls.
  if (marked < 0 && calls.some((call) => call.name === undefined)) return undefined;
  return { at: Math.max(0, marked), calls };
}

const THOUGHT = "</think>";

/** Calls, and where in a text the first of them begins. */
interface Found {
  readonly at: number;
  readonly calls: readonly ReadCall[];
}

/** A turn with calls: what stands before the first, and all of them. */
export interface ReadCalls {
  readonly content: string;
  readonly calls: readonly ReadCall[];
}

/** The calls of a turn with its special tokens; undefined: it makes none. What is thought is not called. */
export function readCalls(raw: string): ReadCalls | undefined {
  const thought = raw.lastIndexOf(THOUGHT);
  const open = raw.lastIndexOf("<think>");
  if (open > thought) return undefined;
  const start = thought < 0 ? 0 : thought + THOUGHT.length;
  for (const read of [hermes, python, listed, mistral, llama]) {
    const found = read(raw.slice(start));
    if (found !== undefined) return { content: raw.slice(0, start + found.at).trim(), calls: found.calls };
  }
  return undefined;
}
