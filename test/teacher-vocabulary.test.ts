import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resolveConfig } from "../lib/trainer/config.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { exampleSettings } from "../lib/trainer/example/config.js";
import { checkTeacherVocabulary } from "../lib/trainer/teacher-vocabulary.js";

/** A folder with a tokenizer of that vocabulary; none: with nothing in it. */
function folder(vocab?: object, added: readonly { content: string; id: number }[] = []): string {
  const path = mkdtempSync(join(tmpdir(), "rlsd-vocabulary-"));
  const json = { model: { vocab }, added_tokens: added };
  if (vocab !== undefined) writeFileSync(join(path, "tokenizer.json"), JSON.stringify(json));
  return path;
}

const check = (model: string, teacher: string, more: object = {}) =>
  checkTeacherVocabulary(
    resolveConfig({ model, data: { train: ["d"] }, teacher: { kind: "external", model: teacher }, ...more }),
  );

test("an external teacher knows the student's tokens by the same ids, and perhaps more", async () => {
  const student = folder({ a: 0, b: 1 }, [{ content: "<end>", id: 2 }]);
  const more = folder(
    [
      ["a", -1],
      ["b", -2],
    ],
    [
      { content: "<end>", id: 2 },
      { content: "<think>", id: 3 },
    ],
  );
  await check(student, more);
  await check(student, student);
  await check(student, folder());
  const moved = check(student, folder({ a: 1, b: 0 }, [{ content: "<end>", id: 2 }]));
  await expect(moved).rejects.toMatchObject({
    code: "ERR_RLSD_MODEL",
    message: expect.stringMatching(/"a" is token 0 here and token 1 there.*same family/),
  });
  await expect(check(student, folder({ a: 0, b: 1 }))).rejects.toThrow('"<end>" is token 2 here and unknown there');
});

test("nothing is asked of one that no step would ask", async () => {
  await check(folder({ a: 0 }), folder({ a: 1 }), { algorithm: "grpo" });
});

test("a dry run knows of a teacher that is not there", async () => {
  const teacher = { kind: "external", model: join(folder(), "nowhere") } as const;
  await expect(dryRun({ ...exampleSettings(), teacher })).rejects.toThrow(/nowhere.config\.json: does not exist/);
});
