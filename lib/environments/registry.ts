/** Environments as data. */
import { show } from "../check.js";
import { RlsdError } from "../errors.js";
import type { Tool } from "../prompt/messages.js";
import { didYouMean } from "../suggest.js";
import { answered } from "../verifiers/answered.js";
import { type HarnessOptions, harnessReaders } from "../verifiers/harness-options.js";
import { anything, integer, optional, type Readers, readOptions, text } from "../verifiers/options.js";
import { argumentFault } from "../verifiers/schema.js";
import type { Environment, EnvironmentFunction } from "./environment.js";
import { fromFunction } from "./function.js";
import { type ModuleSpec, ModuleWorkers } from "./module.js";
import { fromOwn } from "./own.js";
import { toolResult } from "./plain.js";
import { checkTools, type ToolRunner, type Tools, toolEnvironment, toolSchemas } from "./tools.js";

/** Of the workers that a module runs in, as verifiers take them too. */
type PoolOptions = {
  readonly [K in "workers" | "deadlineMs" | "startMs" | "memoryMb" | "maxQueue"]?: HarnessOptions[K] | undefined;
};

/** A module of yours that answers. */
interface ModuleEnvironment extends PoolOptions {
  readonly type: "module";
  /** File to import, or the name of an installed package. */
  readonly path: string;
  /** Export that answers; default: "respond". */
  readonly export?: string | undefined;
  /** When given, the export is called once with this value and returns what answers. */
  readonly options?: unknown;
}

/** A module of yours that exports tools. */
interface ModuleTools extends PoolOptions {
  readonly type: "tools";
  /** File to import, or the name of an installed package. */
  readonly path: string;
  readonly tools?: undefined;
  /** When given, the export `tools` is called once with this value and returns the tools. */
  readonly options?: unknown;
  /** Of a result that the model reads; default: 8192. */
  readonly maxCharacters?: number | undefined;
}

/** Tools of this process. */
interface GivenTools {
  readonly type: "tools";
  readonly tools: Tools;
  readonly path?: undefined;
  /** Of a result that the model reads; default: 8192. */
  readonly maxCharacters?: number | undefined;
  /** Milliseconds for one call; default: 30000. */
  readonly deadlineMs?: number | undefined;
}

/** An environment as data: a module of yours that answers, or tools, of a module or of this process. */
export type EnvironmentSpec = ModuleEnvironment | ModuleTools | GivenTools;

const WHOSE = { what: "environment", code: "ERR_RLSD_ENVIRONMENT" } as const;

const { workers, deadlineMs, startMs, memoryMb, maxQueue } = harnessReaders;
const pool = { workers, deadlineMs, startMs, memoryMb, maxQueue };

/** Of a result, at most: some thousand tokens. */
const maxCharacters = integer(8192, 1);

const readers = {
  module: { path: text(), export: text("respond"), options: optional(anything), ...pool },
  tools: { path: text(), options: optional(anything), maxCharacters, ...pool },
  given: { tools: anything, maxCharacters, deadlineMs: integer(30_000, 1, 86_400_000) },
} satisfies Record<string, Readers>;

/** What becomes of a worker that ends is said by the environment itself, not by a reward. */
const faults = { onTimeout: null, onMemory: null, onCrash: null } as const;

/** Each schema is one that arguments can be held to. */
function checkSchemas(tools: readonly Tool[]): void {
  for (const { function: called } of tools) {
    const { name, parameters } = called as { readonly name: string; readonly parameters: object };
    try {
      argumentFault(parameters, {});
    } catch (error) {
      const message = `Expected the parameters of the tool "${name}" to be a JSON Schema: ${(error as Error).message}.`;
      throw new RlsdError("ERR_RLSD_ENVIRONMENT", message, { cause: error });
    }
  }
}

function inModule(given: Readonly<Record<string, unknown>>): Environment {
  const { path, export: name, options, ...harness } = readOptions("module", given, readers.module, WHOSE);
  const spec: ModuleSpec = { type: "module", path, export: name, ...(options !== undefined && { options }) };
  const made = new ModuleWorkers(spec, { ...harness, ...faults });
  return {
    tools: [],
    start: (signal) => made.start(signal),
    async respond(turn, signal) {
      const outcome = await made.ask({ ask: "respond", ...turn }, signal);
      return "fault" in outcome ? outcome : (outcome.ok as Awaited<ReturnType<Environment["respond"]>>);
    },
    dispose: () => made.dispose(),
  };
}

function toolsInModule(given: Readonly<Record<string, unknown>>): Environment {
  const { path, options, maxCharacters: most, ...harness } = readOptions("tools", given, readers.tools, WHOSE);
  const spec: ModuleSpec = { type: "tools", path, export: "tools", ...(options !== undefined && { options }) };
  const made = new ModuleWorkers(spec, { ...harness, ...faults });
  let tools: readonly Tool[] = [];
  const runner: ToolRunner = {
    get tools() {
      return tools;
    },
    async start(signal) {
      await made.start(signal);
      const told = await made.ask({ ask: "tools", id: "tools" }, signal ?? new AbortController().signal);
      if ("fault" in told)
        throw new RlsdError("ERR_RLSD_ENVIRONMENT", `${path} does not tell its tools: ${show(told.fault)}.`);
      checkSchemas(told.ok as readonly Tool[]);
      tools = told.ok as readonly Tool[];
    },
    call: (call, signal) => made.ask({ ask: "call", ...call }, signal),
    dispose: () => made.dispose(),
  };
  return toolEnvironment(runner, { maxCharacters: most });
}

function givenTools(given: Readonly<Record<string, unknown>>): Environment {
  const o = readOptions("tools", given, readers.given, WHOSE);
  const { tools } = o;
  checkTools(tools, "the environment's tools");
  const schemas = toolSchemas(tools);
  checkSchemas(schemas);
  const runner: ToolRunner = {
    tools: schemas,
    start: async () => {},
    call: ({ name, arguments: own, row }, signal) =>
      answered(
        async (limit) => toolResult(await tools[name]!.call(own as never, { row, signal: limit })),
        signal,
        o.deadlineMs,
      ),
    dispose: async () => {},
  };
  return toolEnvironment(runner, o);
}

function toolsOf(given: Readonly<Record<string, unknown>>): Environment {
  if (given.tools === undefined) return toolsInModule(given);
  if (given.path === undefined) return givenTools(given);
  const message = `The environment "tools" takes "tools" from code or the "path" of a module that exports them, but was given both: leave one of them out.`;
  throw new RlsdError("ERR_RLSD_ENVIRONMENT", message);
}

/**
 * What a policy talks to between its turns: from data (`{ type: "tools", path: "./tools.mjs" }`, `{ type: "module", path: "./game.mjs" }`,
 * run in killable workers), from tools of this process (`{ type: "tools", tools }`), from a function, or from an environment of one's own,
 * whose replies are checked.
 *
 * @throws RlsdError ERR_RLSD_ENVIRONMENT for what is none of these, with what was expected
 */
export function createEnvironment(spec: EnvironmentSpec | EnvironmentFunction | Environment): Environment {
  if (typeof spec === "function") return fromFunction(spec);
  const given = Object(spec) as Readonly<Record<string, unknown>>;
  if (typeof given.respond === "function") return fromOwn(spec as Environment);
  if (given.type === "module") return inModule(given);
  if (given.type === "tools") return toolsOf(given);
  const message =
    given.type === undefined
      ? `Expected a function, or an environment with a "type", but received ${show(spec)}.`
      : `There is no environment "${String(given.type)}".${didYouMean(String(given.type), ["module", "tools"])}`;
  throw new RlsdError("ERR_RLSD_ENVIRONMENT", message);
}
