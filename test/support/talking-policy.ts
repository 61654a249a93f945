import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createPolicy, type EnginePolicy, loadPolicy } from "../../lib/index.js";
import type { Completion, Policy, SamplingOptions } from "../../lib/policy/policy.js";
import { TINY } from "./small-policy.js";
import { readFixture, TOKENIZER, tokenizer } from "./tools.js";

export const END = "<|im_end|>";

/** A random model's folder, which reads turns by a template of the fixtures. */
export async function talkingModel(template = "tagged"): Promise<string> {
  const folder = join(mkdtempSync(join(tmpdir(), "rlsd-talk-")), "model");
  const files = {
    "tokenizer.json": TOKENIZER,
    "tokenizer_config.json": `{"eos_token": "${END}"}`,
    "chat_template.jinja": readFixture(`tools/${template}.jinja`),
  };
  const config = { ...TINY, vocabSize: tokenizer.size, maxLength: 1024, endTokenIds: [tokenizer.idOf(END)!] };
  await using policy = await createPolicy(config, { files, seed: 3 });
  await policy.save(folder);
  return folder;
}

/** What a policy says after all that it has read. `sample`: which of the prompt's completions in this call. */
export type Script = (read: string, sample: number) => string;

/** An engine that says what a script wants, with the log-probs that it gives that itself. */
export async function scripted(directory: string, script: Script): Promise<Policy> {
  const engine = await loadPolicy(directory);
  const say = async (prompt: Int32Array, sample: number, most: number, temperature: number): Promise<Completion> => {
    const all = tokenizer.encode(script(tokenizer.decode(prompt), sample));
    const tokenIds = all.slice(0, most);
    const [logProbs] = await engine.score([{ prompt, completion: tokenIds }], { temperature: temperature || 1 });
    const stopped = tokenIds.at(-1) === tokenizer.idOf(END);
    return { tokenIds, logProbs: logProbs!, finish: stopped ? "stop" : "length" };
  };
  const generate = (prompts: readonly Int32Array[], { count = 1, maxTokens, temperature = 1 }: SamplingOptions) =>
    Promise.all(
      prompts.map((prompt, i) =>
        Promise.all(
          Array.from({ length: count }, (_, j) =>
            say(prompt, j, typeof maxTokens === "number" ? maxTokens : maxTokens[i]!, temperature),
          ),
        ),
      ),
    );
  return new Proxy(engine, {
    get(target, name) {
      if (name === "generate") return generate;
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  }) satisfies EnginePolicy;
}
