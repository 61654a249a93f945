import { join } from "node:path";
import { RlsdError } from "../errors.js";
import { readTextFiles } from "../policy/text-files.js";
import { checkTokenizerFile, parseTokenizerFile } from "../policy/tokenizer-file.js";
import { asksTeacher } from "./algorithms.js";
import type { ResolvedConfig } from "./config.js";

type Vocabulary = ReadonlyMap<string, number>;

const TOKENIZER = "tokenizer.json";

/** Every token's id, as tokenizer.json has them; undefined: the folder has no tokenizer. */
async function vocabularyOf(model: string, base?: string): Promise<Vocabulary | undefined> {
  const { files, directory } = await readTextFiles(model, base);
  const bytes = files.get(TOKENIZER);
  if (bytes === undefined) return undefined;
  const file = join(directory, TOKENIZER);
  const { model: own, added } = checkTokenizerFile(parseTokenizerFile(Buffer.from(bytes).toString("utf8"), file), file);
  const { vocab } = own as { readonly vocab: Record<string, number> | [string, number][] };
  // Unigram: a list of [token, score], whose places are the ids.
  const plain: [string, number][] = Array.isArray(vocab)
    ? vocab.map(([token], id) => [token, id])
    : Object.entries(vocab);
  return new Map([...plain, ...added.map(({ content, id }): [string, number] => [content, id])]);
}

/**
 * An external teacher reads the student's token ids: each must be the same token to it. It may know more of them. Throws
 * ERR_RLSD_MODEL with the first that differs; a teacher without a tokenizer of its own is taken at its word.
 */
export async function checkTeacherVocabulary(config: ResolvedConfig, base?: string): Promise<void> {
  const { kind, model } = config.teacher;
  if (kind !== "external" || !asksTeacher(config)) return;
  const [student, teacher] = [await vocabularyOf(config.model, base), await vocabularyOf(model)];
  if (student === undefined || teacher === undefined) return;
  for (const [token, id] of student) {
    const other = teacher.get(token);
    if (other === id) continue;
    const found = other === undefined ? "unknown" : `token ${other}`;
    throw new RlsdError(
      "ERR_RLSD_MODEL",
      `"teacher.model" ${model} has another vocabulary than ${config.model}: ${JSON.stringify(token)} is token ${id} here and ${found} there. A teacher scores the student's own tokens: take a model of the same family.`,
    );
  }
}
