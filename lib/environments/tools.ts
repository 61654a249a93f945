import { show } from "../check.js";
import { RlsdError } from "../errors.js";
import type { ChatMessage, Tool, ToolCall } from "../prompt/messages.js";
import { closest } from "../suggest.js";
import type { Outcome } from "../verifiers/answered.js";
import { argumentFault } from "../verifiers/schema.js";
import { type ReadCall, readCalls } from "../verifiers/tool-calls.js";
import type { CheckedReply, Environment, EnvironmentFault, Turn } from "./environment.js";

/** What a tool is told besides its arguments. */
export interface ToolContext {
  /** Every column of the data row that the conversation began with. */
  readonly row: Readonly<Record<string, unknown>>;
  /** Aborts when nobody waits any more. */
  readonly signal: AbortSignal;
}

/** A function that the model may call. */
export interface ToolFunction {
  /** For the model. */
  readonly description: string;
  /** JSON Schema of an object: its arguments. Default: it takes none. A call that does not satisfy it is answered with what is wrong, and the function is not called. */
  readonly parameters?: Readonly<Record<string, unknown>> | undefined;
  /** Returns what the model reads: a text as it is, anything else as JSON. What it throws, the model reads as an error. */
  call(given: never, context: ToolContext): unknown;
}

/** Tools by their names. */
export type Tools = Readonly<Record<string, ToolFunction>>;

const NO_ARGUMENTS = { type: "object", properties: {} };

/** Tools as a chat template writes them. */
export const toolSchemas = (tools: Tools): readonly Tool[] =>
  Object.entries(tools).map(([name, { description, parameters = NO_ARGUMENTS }]) => ({
    type: "function",
    function: { name, description, parameters },
  }));

/** Throws ERR_RLSD_ENVIRONMENT for what is no table of tools. */
export function checkTools(tools: unknown, where: string): asserts tools is Tools {
  const entries = typeof tools === "object" && tools !== null ? Object.entries(tools) : [];
  if (entries.length === 0) {
    const message = `Expected ${where} to be tools by their names but received ${show(tools)}.`;
    throw new RlsdError("ERR_RLSD_ENVIRONMENT", message);
  }
  for (const [name, tool] of entries) {
    const { description, parameters = NO_ARGUMENTS, call } = Object(tool) as Partial<ToolFunction>;
    // A function has a `call` too, and is none.
    const isTool =
      typeof tool === "object" &&
      typeof description === "string" &&
      typeof call === "function" &&
      Object(parameters) === parameters;
    if (!isTool) {
      const message = `Expected the tool "${name}" of ${where} to be { description, parameters, call } but received ${show(tool)}.`;
      throw new RlsdError("ERR_RLSD_ENVIRONMENT", message);
    }
  }
}

/** A call that can be made, and for whom. */
export interface MadeCall {
  readonly id: string;
  readonly name: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly row: Readonly<Record<string, unknown>>;
}

/** Where tools run. */
export interface ToolRunner {
  readonly tools: readonly Tool[];
  start(signal?: AbortSignal): Promise<void>;
  /** What the tool returned, or why it returned nothing. */
  call(made: MadeCall, signal: AbortSignal): Promise<Outcome<unknown>>;
  dispose(): Promise<void>;
}

export interface ToolOptions {
  /** Characters of a result that the model reads; the rest is left out, and that is said. */
  readonly maxCharacters: number;
}

/** Calls of one turn that are made; what a model writes over and over is not. */
const MOST_CALLS = 32;

const nameOf = (tool: Tool): string => String((tool.function as Tool).name);

/** What is wrong with a call; undefined: it can be made. */
function faultOf(call: ReadCall, tools: readonly Tool[]): string | undefined {
  if ("fault" in call) return `the call cannot be read: ${call.fault}`;
  const tool = tools.find((one) => nameOf(one) === call.name);
  if (tool === undefined) {
    const names = tools.map(nameOf);
    const near = closest(call.name, names);
    return `there is no tool "${call.name}"${near === undefined ? `, only ${names.join(", ")}` : `: did you mean "${near}"?`}`;
  }
  return argumentFault((tool.function as Tool).parameters as object, call.arguments);
}

function faultText({ reason, detail }: EnvironmentFault): string {
  if (reason === "timeout") return `the tool did not answer within ${Number(detail.deadlineMs) / 1000} s`;
  return typeof detail.message === "string" ? detail.message : reason;
}

/** The beginning of a text, with what was left out in words. A character of two code units stays whole. */
function short(text: string, most: number): string {
  if (text.length <= most) return text;
  const begin = text.slice(0, most).replace(/[\ud800-\udbff]$/, "");
  return `${begin}\n... (${text.length - begin.length} characters left out)`;
}

/** As the model reads it. */
const errorText = (why: string): string => (why.startsWith("Error: ") ? why : `Error: ${why}`);

const resultText = (value: unknown): string => (typeof value === "string" ? value : (JSON.stringify(value) ?? "null"));

/** Tools as an environment: it answers every call of a turn; a turn without one ends the conversation. */
export function toolEnvironment(runner: ToolRunner, o: ToolOptions): Environment {
  const resultOf = async (call: ReadCall, i: number, turn: Turn, signal: AbortSignal): Promise<[string, boolean]> => {
    const most = `a turn makes at most ${MOST_CALLS} calls`;
    const fault = i < MOST_CALLS ? faultOf(call, runner.tools) : most;
    if (fault !== undefined || "fault" in call) return [short(errorText(fault!), o.maxCharacters), false];
    const { name, arguments: given } = call;
    const outcome = await runner.call({ id: turn.id, name, arguments: given, row: turn.row }, signal);
    if ("fault" in outcome) return [short(errorText(faultText(outcome.fault)), o.maxCharacters), false];
    return [short(resultText(outcome.ok), o.maxCharacters), true];
  };
  return {
    get tools() {
      return runner.tools;
    },
    start: (signal) => runner.start(signal),
    dispose: () => runner.dispose(),
    async respond(turn, signal): Promise<CheckedReply> {
      const { content, calls } = readCalls(turn.raw) ?? { content: turn.completion, calls: [] };
      const before = (turn.state ?? { calls: 0, failedCalls: 0 }) as Readonly<Record<string, number>>;
      const results = await Promise.all(calls.map((call, i) => resultOf(call, i, turn, signal)));
      const named = calls.map((call, i) => ({ name: call.name ?? "unknown", id: callId(before.calls! + i) }));
      const counts = {
        calls: before.calls! + calls.length,
        failedCalls: before.failedCalls! + results.filter(([, ok]) => !ok).length,
      };
      return {
        messages: results.map(([content], i): ChatMessage => {
          const { name, id } = named[i]!;
          return { role: "tool", name, tool_call_id: id, content };
        }),
        state: counts,
        reward: 0,
        detail: counts,
        ...(calls.length > 0 && {
          turn: { role: "assistant", content, tool_calls: calls.map((call, i) => toolCall(call, named[i]!)) },
        }),
      };
    },
  };
}

/** Nine letters and digits, as Mistral's templates demand. */
const callId = (number: number): string => `call${String(number).padStart(5, "0")}`;

const toolCall = (call: ReadCall, { name, id }: { readonly name: string; readonly id: string }): ToolCall => ({
  id,
  type: "function",
  function: { name, arguments: "fault" in call ? {} : call.arguments },
});
