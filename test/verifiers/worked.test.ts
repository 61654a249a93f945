import { createVerifier } from "../../lib/verifiers/registry.js";
import { check, disposeMade, judge, reward, sample } from "./support.js";

afterAll(disposeMade);

describe("a right answer that is a worked solution", () => {
  const gsm8k = "48 / 2 = <<48/2=24>>24\n48 + 1,056 = <<48+1056=1104>>1104\n#### 1,104";
  test.each(["numeric", "math"])("%s reads what it marks as its answer", async (type) => {
    expect(check(type, { answer: gsm8k })).not.toThrow();
    expect(await reward(type, "The answer is 1104.", { answer: gsm8k })).toBe(1);
    expect(await reward(type, "The answer is 24.", { answer: gsm8k })).toBe(0);
    expect(await reward(type, "The answer is 5.", { answer: "2 + 3 = 5, thus \\boxed{5}." })).toBe(1);
    expect(await reward(type, "The answer is -3.", { answer: "#### -3" })).toBe(1);
  });

  test("one that marks none, or several numbers, is refused as before", () => {
    for (const answer of ["2 + 3 = 5", "#### 2 or 3", "####"])
      expect(check("numeric", { answer })).toThrow("one number");
  });
});

describe("a thought that the prompt has opened", () => {
  const opened = { prompt: "<|user|>2 + 3?<|assistant|><think>\n" };
  const row = { answer: "5" };

  test.each(["math", "numeric", { type: "text", extract: true }])("%j takes no answer from it", async (spec) => {
    expect(await judge(spec, "2 + 3, so the answer is 5", row, opened)).toMatchObject({
      reward: 0,
      reason: "no-answer",
    });
    expect(await judge(spec, "so the answer is 4</think>The answer is 5", row, opened)).toMatchObject({ reward: 1 });
    expect(await judge(spec, "The answer is 5", row, { prompt: "Begin with <think>.<|assistant|>" })).toMatchObject({
      reward: 1,
    });
  });

  test("belongs to the layout that tags asks for", async () => {
    const spec = { type: "tags", tags: ["think", "answer"] };
    const rest = "2 + 3</think><answer>5</answer>";
    expect(await judge(spec, rest, row, opened)).toMatchObject({ reward: 1 });
    expect(await judge(spec, `<think>${rest}`, row, opened)).toMatchObject({ reward: 1 });
    expect(await judge(spec, rest, row)).toMatchObject({ reward: 0 });
  });

  test("is no part of what length and a function of one's own are shown", async () => {
    const length = { type: "length", unit: "character", max: 10 };
    expect(await judge(length, "2 + 3", row, opened)).toMatchObject({ detail: { length: 5 } });
    const whole = { type: "regex", pattern: "2 \\+ 3" };
    expect(await judge(whole, "2 + 3", row, opened)).toMatchObject({ reward: 1 });
    expect(await judge({ ...whole, whole: false }, "2 + 3", row, opened)).toMatchObject({ reward: 0 });
    const seen: string[] = [];
    await createVerifier(({ completion }) => seen.push(completion)).verify(sample("2 + 3", row, opened));
    expect(seen).toEqual(["2 + 3"]);
  });
});
