/** A user's module, run in killable workers: code that may hang, crash or leak belongs here. This file runs on both sides. */
import { textOf } from "../check.js";
import { RlsdError } from "../errors.js";
import type { Outcome } from "../verifiers/answered.js";
import { Harness } from "../verifiers/harness.js";
import type { HarnessOptions } from "../verifiers/harness-options.js";
import { namesOf, type UserModule, userModule } from "../verifiers/user-module.js";
import type { Verdict } from "../verifiers/verifier.js";
import { workerModule } from "../verifiers/worker-process.js";
import type { EnvironmentFault, EnvironmentFunction, Turn } from "./environment.js";
import { toolResult } from "./plain.js";
import { toReply } from "./reply.js";
import { checkTools, type MadeCall, type Tools, toolSchemas } from "./tools.js";

/** What a worker is asked: to answer a turn, to call a tool, or which tools there are. */
type Question =
  | ({ readonly ask: "respond" } & Turn)
  | ({ readonly ask: "call" } & MadeCall)
  | { readonly ask: "tools"; readonly id: string };

/** What it says; anything else is the harness's verdict on a worker that could not. */
interface Said {
  readonly said: unknown;
}

/** How a module is loaded. */
export interface ModuleSpec {
  readonly type: "module" | "tools";
  readonly path: string;
  /** Of a module: the export that answers. */
  readonly export: string;
  /** Absent: the export answers itself; else it is called with them, and returns what answers or the tools. */
  readonly options?: unknown;
}

const CODE = "ERR_RLSD_ENVIRONMENT";

const moduleOf = ({ type, path }: ModuleSpec): UserModule =>
  userModule(path, { what: `environment "${type}"`, code: CODE });

/** Exports that are tools by their form, or a table of them; with options, what the export `tools` makes of these. */
async function loadTools(from: UserModule, { path, options }: ModuleSpec): Promise<Tools> {
  const exported = await from.load();
  const refused = (expected: string) =>
    new RlsdError(CODE, `Expected ${path} to export ${expected} but it exports ${namesOf(exported)}.`);
  // A function has a `call` too, and is none.
  const isTool = (value: unknown) => typeof value === "object" && typeof Object(value).call === "function";
  let tools: unknown = Object.fromEntries(Object.entries(exported).filter(([, value]) => isTool(value)));
  if (options !== undefined) {
    if (typeof exported.tools !== "function") throw refused('the function "tools", which "options" are given to,');
    tools = await from.make(exported, "tools", options);
  } else if (typeof exported.tools === "object" && !isTool(exported.tools)) {
    tools = exported.tools;
  } else if (Object.keys(Object(tools)).length === 0) {
    const made = typeof exported.tools === "function" ? ', or to be given "options" for its "tools",' : "";
    throw refused(`{ description, parameters, call } under the name of each tool${made}`);
  }
  checkTools(tools, path);
  return tools;
}

/** The side of the worker (lib/verifiers/worker.ts): answers what is asked of it. */
export function createJudge(given: Readonly<Record<string, unknown>>) {
  const spec = given as unknown as ModuleSpec;
  const from = moduleOf(spec);
  let respond: EnvironmentFunction | undefined;
  let tools: Tools = {};
  return {
    async prepare(): Promise<void> {
      if (spec.type === "tools") tools = await loadTools(from, spec);
      else respond = (await from.loadFunction(spec.export, spec.options)) as EnvironmentFunction;
    },
    async judge(question: Question, signal: AbortSignal): Promise<Said | EnvironmentFault> {
      if (question.ask === "tools") return { said: toolSchemas(tools) };
      // Checked where it is what was returned: what travels to the trainer is a copy.
      if (question.ask === "respond") return { said: toReply(await respond!(question, signal), question.state) };
      const { name, arguments: given, row } = question;
      try {
        return { said: toolResult(await tools[name]!.call(given as never, { row, signal })) };
      } catch (error) {
        // The model reads it, to whom places in a file say nothing.
        return { reason: "error", detail: { message: textOf(error) } };
      }
    },
  };
}

/** Of one question alone, so that others are asked: too many wait, or it cannot be sent. */
const OF_A_QUESTION = new Set<unknown>(["ERR_RLSD_VERIFIER_QUEUE", "ERR_RLSD_VERIFIER_ROW"]);

function notAsked(error: unknown): EnvironmentFault {
  if (!(error instanceof RlsdError && OF_A_QUESTION.has(error.code))) throw error;
  return { reason: "error", detail: { message: error.message } };
}

/** The side of the trainer: a pool of workers that answer questions. */
export class ModuleWorkers {
  readonly #harness: Harness<Question, Said | EnvironmentFault>;

  constructor(spec: ModuleSpec, options: HarnessOptions) {
    // Found out now, and without a worker.
    const { path } = moduleOf(spec);
    const maker = workerModule("environments", "module").href;
    this.#harness = new Harness({ maker, spec: { ...spec, path } }, options, "environment");
  }

  async start(signal?: AbortSignal): Promise<void> {
    try {
      await this.#harness.start(signal);
    } catch (error) {
      if (!(error instanceof RlsdError)) throw error;
      throw new RlsdError(CODE, error.message, { cause: error });
    }
  }

  async ask(question: Question, signal: AbortSignal): Promise<Outcome<unknown>> {
    const answer: Said | EnvironmentFault | Verdict = await this.#harness.verify(question, signal).catch(notAsked);
    if ("said" in answer) return { ok: answer.said };
    return { fault: { reason: answer.reason ?? "error", detail: answer.detail ?? {} } };
  }

  dispose(): Promise<void> {
    return this.#harness.dispose();
  }
}
