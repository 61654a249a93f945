import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createPolicy, loadPolicy } from "../lib/index.js";
import { loadTextParts } from "../lib/trainer/prepare.js";
import { TINY, temporaryFolder } from "./support/small-policy.js";

const tokenizer = join(__dirname, "fixtures/models/tokenizer-bpe");
const read = (name: string): Buffer => readFileSync(join(tokenizer, name));
const JINJA = "chat_template.jinja";
const CONFIG = "tokenizer_config.json";
type Files = Record<string, string | Uint8Array>;

const embedding = (source: string): string => JSON.stringify({ eos_token: `<${source}>`, chat_template: source });
const none = JSON.stringify({ eos_token: "<none>" });

/** A model with these text files, and adapters on it with those. */
async function folders(model: Files, adapters: Files): Promise<{ model: string; adapters: string }> {
  const files = { "tokenizer.json": read("tokenizer.json"), ...model };
  const out = { model: join(temporaryFolder(), "model"), adapters: join(temporaryFolder(), "adapters") };
  await using policy = await createPolicy({ ...TINY, vocabSize: 362 }, { files });
  await policy.save(out.model);
  await using lora = await policy.withLora({ rank: 1 });
  await lora.save(out.adapters);
  for (const name of Object.keys(files)) rmSync(join(out.adapters, name));
  for (const [name, content] of Object.entries(adapters)) writeFileSync(join(out.adapters, name), content);
  return out;
}

const own: Files = { "tokenizer.json": read("tokenizer.json"), [CONFIG]: none };
const message = [{ role: "user", content: "x" }] as const;
const asks = async (folder: string): Promise<string> =>
  (await loadTextParts(folder, { vocabSize: 362 })).prompter.prompt(message).text;

describe("an added token that the model has no embedding for", () => {
  const beyond = (vocabSize: number, template: string) => {
    const json = JSON.parse(read("tokenizer.json").toString("utf8"));
    json.added_tokens.push({ ...json.added_tokens[0], id: 362, content: "<image>" });
    return createPolicy(
      { ...TINY, vocabSize },
      { files: { "tokenizer.json": JSON.stringify(json), [JINJA]: template } },
    );
  };

  test("is plain text, as <image_soft_token> to Gemma 3 of 1 billion parameters, also for adapters and after a save", async () => {
    const [folder, adapters] = [temporaryFolder(), temporaryFolder()];
    await using policy = await beyond(362, "x");
    await using whole = await beyond(363, "x");
    await policy.save(folder);
    await using lora = await policy.withLora({ rank: 1 });
    await lora.save(adapters);
    await using adapted = await policy.withAdapters(adapters);
    await using again = await loadPolicy(folder);
    const { tokenizer: asked } = await loadTextParts(folder, policy);
    for (const one of [policy.tokenizer!, adapted.tokenizer!, again.tokenizer!, asked]) {
      const ids = one.encode("an <image>");
      expect(Math.max(...ids)).toBeLessThan(362);
      expect(one.decode(ids)).toBe("an <image>");
    }
    expect([...whole.tokenizer!.encode("an <image>")]).toContain(362);
  });

  test("is refused where the chat template writes it", async () => {
    const folder = temporaryFolder();
    await using policy = await beyond(362, "{{ '<image>' }}");
    await policy.save(folder);
    const message = expect.stringMatching(/its chat template writes <image>, token 362, but the model has 362 tokens/);
    await expect(loadTextParts(folder, policy)).rejects.toMatchObject({ code: "ERR_RLSD_MODEL", message });
  });
});

describe("adapters have the model's chat template where they have none, and its tokenizer where they have none", () => {
  test.each<[string, Files, Files, string]>([
    ["none, of a file", { [JINJA]: "base" }, own, "base"],
    ["none, of the configuration", { [CONFIG]: embedding("base") }, own, "base"],
    [
      "none and no configuration",
      { [CONFIG]: embedding("base") },
      { "tokenizer.json": own["tokenizer.json"]! },
      "base",
    ],
    ["one in a file, no tokenizer", { [JINJA]: "base", [CONFIG]: none }, { [JINJA]: "own" }, "own"],
    ["one in the configuration, no tokenizer", { [JINJA]: "base" }, { [CONFIG]: embedding("own") }, "own"],
    ["both of their own", { [JINJA]: "base" }, { ...own, [CONFIG]: embedding("own") }, "own"],
  ])("%s: for a run, for a policy and in what it saves", async (_, base, adapters, template) => {
    const at = await folders(base, adapters);
    expect(await asks(at.adapters)).toBe(template);
    await using model = await loadPolicy(at.model);
    for (const policy of [await loadPolicy(at.adapters), await model.withAdapters(at.adapters)]) {
      const [again, merged, under] = [temporaryFolder(), temporaryFolder(), join(temporaryFolder(), "base")];
      await policy.save(again);
      await using whole = await policy.merge();
      await whole.save(merged);
      await using plain = await policy.base();
      await plain.save(under);
      expect([await asks(again), await asks(merged), await asks(under)]).toEqual([template, template, "base"]);
      expect(policy.tokenizer!.encode("The answer").length).toBeGreaterThan(0);
      await policy.dispose();
    }
  });

  test("the special tokens that a template names stay those of the tokenizer", async () => {
    const { adapters } = await folders({ [JINJA]: "{{ eos_token }}" }, own);
    expect(await asks(adapters)).toBe("<none>");
  });
});
