import type { Environment, EnvironmentFunction } from "../environments/environment.js";
import { createEnvironment, type EnvironmentSpec } from "../environments/registry.js";
import { RlsdError } from "../errors.js";
import type { Policy } from "../policy/policy.js";
import type { Tokenizer } from "../policy/tokenizer.js";
import { checkContinues } from "../prompt/continuation.js";
import type { Tool } from "../prompt/messages.js";
import type { Prompter } from "../prompt/prompter.js";
import type { ResolvedConfig } from "./config.js";
import type { Talk } from "./conversation.js";
import type { Example } from "./data/dataset.js";
import { releasing } from "./durable.js";

/** What the model talks to: an environment by its spec, a function, or one of one's own. */
export type EnvironmentSetting = EnvironmentSpec | EnvironmentFunction | Environment;

/** What a model reads and writes. */
interface Reader {
  readonly prompter: Prompter;
  readonly tokenizer: Tokenizer;
  readonly policy: Pick<Policy, "endTokenIds">;
}

/** Throws ERR_RLSD_ENVIRONMENT where the model's template cannot write what the environment offers or answers. */
function requireWords(environment: Environment, { prompter, tokenizer, policy: { endTokenIds = [] } }: Reader): void {
  const ends = endTokenIds.map((id) => tokenizer.decode([id]));
  try {
    checkContinues(prompter, { messages: [{ role: "user", content: "a" }], tools: environment.tools }, ends);
  } catch (error) {
    if (!(error instanceof RlsdError)) throw error;
    const message = `"environment": a conversation cannot be written in the words of this model: ${error.message}`;
    throw new RlsdError("ERR_RLSD_ENVIRONMENT", message, { cause: error });
  }
}

/** Who the model talks to in a run, ready to answer; undefined: it speaks once. */
export async function startTalk(
  {
    environment: setting,
    rollout,
  }: Pick<ResolvedConfig, "environment"> & { rollout: Pick<ResolvedConfig["rollout"], "turns"> },
  reader: Reader,
  signal?: AbortSignal,
): Promise<Talk | undefined> {
  if (setting === null) return undefined;
  let environment: Environment;
  try {
    environment = createEnvironment(setting);
  } catch (error) {
    if (!(error instanceof RlsdError)) throw error;
    throw new RlsdError("ERR_RLSD_CONFIG", `"environment": ${error.message}`, { cause: error });
  }
  return releasing(
    () => environment.dispose(),
    async () => {
      await environment.start(signal);
      requireWords(environment, reader);
      return { environment, prompter: reader.prompter, turns: rollout.turns };
    },
  );
}

/** Whether a run's folder can hold it: what came from code is not in its settings. */
export const isStored = (environment: unknown): boolean =>
  typeof (Object(environment) as { readonly path?: unknown }).path === "string";

export const toolName = (tool: Tool): string => String((Object(tool.function) as { readonly name?: unknown }).name);

/** An example with the tools of the environment besides its own; of one name, the environment's, which answers calls. */
export function offering(example: Example, talk: Talk | undefined): Example {
  const offered = talk?.environment.tools ?? [];
  if (offered.length === 0) return example;
  const names = new Set(offered.map(toolName));
  return { ...example, tools: [...example.tools.filter((tool) => !names.has(toolName(tool))), ...offered] };
}
