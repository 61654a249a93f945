import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TrainConfig } from "../lib/trainer/config.js";
import { dryRun } from "../lib/trainer/dry-run.js";
import { dryRunText } from "../lib/trainer/dry-run-text.js";
import type { RewardSetting } from "../lib/trainer/settings.js";
import { TinyPolicy } from "./support/tiny-policy.js";
import { tinyTask } from "./support/tiny-task.js";

describe("a dry run has the verifier judge the data's own traces", () => {
  const { folder, settings } = tinyTask();
  const plan = (reward: RewardSetting, o: TrainConfig = {}) =>
    dryRun({ ...settings, ...o, reward }, { loadPolicy: TinyPolicy.load });
  const told = async (...given: Parameters<typeof plan>) =>
    /^verifier .*(\n {11}.*)?/m.exec(dryRunText(await plan(...given)))?.[0];
  const none =
    "           unless traces are no whole answers, no completion will be: see the reward's answer, tag and format";

  test("and says how many of them are right, and why the others are not", async () => {
    const asked: string[] = [];
    const whole = ({ completion }: { completion: string }) => {
      asked.push(completion);
      return completion === "aa" ? { reward: 0, reason: "odd" } : 1;
    };
    expect((await plan(whole)).judgedTraces).toEqual({
      traces: 12,
      right: 11,
      unjudged: 0,
      reasons: { "reason/odd": 1 / 12 },
    });
    expect(asked).toEqual([..."abcdefghijkl"].map((letter) => letter + letter));
    expect(await told(whole)).toBe("verifier   of the first 12 traces 11 are right (odd 1)");
    expect(await told(() => ({ reward: 0, reason: "no-answer" }))).toBe(
      `verifier   of the first 12 traces 0 are right (no-answer 12)\n${none}`,
    );
    expect(await told(() => null)).toBe("verifier   of the first 12 traces 0 are right, 12 not judged (undecided 12)");
  });

  test("not more than 16 of them, and not where none are to be judged", async () => {
    const rows = (row: object) => {
      const file = join(folder, "many.jsonl");
      writeFileSync(file, Array.from({ length: 40 }, () => JSON.stringify(row)).join("\n"));
      return { data: { train: [file] } };
    };
    const traced = rows({ question: "say a", answer: "a", trace: "aa" });
    expect((await plan(() => 1, traced)).judgedTraces).toMatchObject({ traces: 16, right: 16 });
    const untraced = rows({ question: "say a", answer: "a" });
    expect((await plan(() => 1, { ...untraced, algorithm: "grpo" })).judgedTraces).toBeNull();
    const talking = { environment: () => null };
    expect((await plan(() => 1, talking)).judgedTraces).toBeNull();
  });
});
