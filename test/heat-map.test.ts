import { createBeforeAfter } from "../lib/cli/before-after.js";
import { comparisonText } from "../lib/cli/comparison-text.js";
import { type HeatMapOptions, heatMap, heatMapLegend } from "../lib/cli/heat-map.js";
import { oneLine } from "../lib/cli/one-line.js";
import { columnsOf, tableLines } from "../lib/cli/table.js";
import { captionOf } from "../lib/report/picture.js";
import { isRewarded } from "../lib/report/settings.js";
import { ALGORITHMS } from "../lib/trainer/algorithms.js";
import type { Prediction } from "../lib/trainer/predict.js";
import type { RunConfig, SampleLine } from "../lib/trainer/run-folder.js";

const ESC = "\u001b";
const plain: HeatMapOptions = { color: false, clip: 0.2, rewarded: true };
const colour: HeatMapOptions = { ...plain, color: true };

function sample(
  texts: readonly string[],
  weights: readonly (number | null)[],
  o: Partial<SampleLine> = {},
): SampleLine {
  return {
    step: 3,
    id: "row#1",
    group: 0,
    prompt: "What is\n\n1 + 1?",
    privileged: "2",
    completion: texts.join(""),
    tokenIds: texts.map((_, i) => i),
    tokenText: texts,
    logProbs: texts.map(() => -1),
    teacherLogProbs: texts.map(() => -1.5),
    evidenceWeights: weights,
    tokenAdvantages: weights.map((w) => -(w ?? 1)),
    reward: 0,
    advantage: -1,
    detail: {},
    ...o,
  };
}

test("what the model read between its turns is dim, and has no numbers", () => {
  const talked = sample(["A", "\nread", "B"], [1.2, 1, 0.8], { mask: [1, 0, 1], tokenAdvantages: [-1.2, 0, -0.8] });
  expect(heatMap(talked, colour).split("\n").slice(3, 5).join("\n")).toContain(`\n${ESC}[2mread${ESC}[0m`);
  expect(heatMap(talked, plain)).toMatch(/\nA\{1\.20\}↵\nreadB\{0\.80\}\n/);
  expect(heatMap(talked, plain)).not.toMatch(/"read"/);
  const compared = { ...talked, divergences: [0.3, 0.3, 0.1] };
  expect(heatMap(compared, plain)).toContain("mean divergence 0.200");
});

test("a completion with its weights in numbers, the strongest tokens below", () => {
  expect(heatMap(sample(["The", " answer", " is", " 3"], [1, 1.04, 0.9, 1.2]), plain)).toBe(
    [
      "row#1  step 3  reward 0  A −1.00  4 tokens  mean weight 1.035",
      "  prompt   What is | 1 + 1?",
      "  teacher  2",
      "The answer is{0.90} 3{1.20}",
      "  place  token      log P   teacher  delta   weight  A",
      '  3      " 3"       -1.000  -1.500   −0.500  1.200   -1.200',
      '  2      " is"      -1.000  -1.500   −0.500  0.900   -0.900',
      '  1      " answer"  -1.000  -1.500   −0.500  1.040   -1.040',
    ].join("\n"),
  );
});

test("of weights at the clip those are the strongest where the teacher differs most", () => {
  const texts = ["a", "b", "c", "d", "e", "f", "g"];
  const teacherLogProbs = [-1.5, -4, -1.4, -2, -9, -1.3, -3];
  const lines = heatMap(sample(texts, [1.2, 1.2, 0.8, 1.2, 1.2, 0.8, 1.1], { teacherLogProbs }), plain).split("\n");
  expect(lines.slice(-5).map((line) => line.trim().split(/ +/)[1])).toEqual(['"e"', '"b"', '"d"', '"a"', '"c"']);
});

test("a completion that the student imitated its teacher on is shown by what they differ in", () => {
  const bare = { teacherLogProbs: [], evidenceWeights: [], tokenAdvantages: [0, 0, 0] };
  const compared = sample(["7", " +", " 2"], [], { ...bare, divergences: [0, 0.21, 0.01] });
  const imitated = { ...plain, rewarded: false };
  expect(heatMap(compared, imitated).split("\n").slice(3)).toEqual([
    "7 +{0.21} 2",
    "  place  token  log P   divergence",
    '  1      " +"   -1.000  0.210',
  ]);
  expect(heatMap(compared, plain)).toContain("log P   divergence  A\n");
  expect(heatMap(compared, plain)).toContain("mean divergence 0.073");
  expect(heatMapLegend(compared, plain)).toMatch(
    /^\{divergence\} follows a token whose divergence is not about 0:.*nats/,
  );
  const sampled = sample(["7", " +", " 2"], [], { teacherLogProbs: [-1, -1.6, -0.1], tokenAdvantages: [0, -0.6, 0.9] });
  expect(heatMap(sampled, imitated).split("\n").slice(3)).toEqual([
    "7 +{-0.60} 2{0.90}",
    "  place  token  log P   teacher  delta   A",
    '  2      " 2"   -1.000  -0.100   +0.900  0.900',
    '  1      " +"   -1.000  -1.600   −0.600  -0.600',
  ]);
  expect(heatMapLegend(sampled, colour)).toContain("log P teacher - log P student");
});

test("an advantage that nobody learns from is not shown", () => {
  const compared = sample(["7", " +"], [], { teacherLogProbs: [], tokenAdvantages: [0, 0], divergences: [0, 0.21] });
  expect(heatMap(compared, plain)).toMatch(/^row#1 {2}step 3 {2}reward 0 {2}A −1\.00 {2}2 tokens {2}mean/);
  expect(heatMap(compared, { ...plain, rewarded: false })).toMatch(/^row#1 {2}step 3 {2}reward 0 {2}2 tokens {2}mean/);
  const config = (algorithm: string) => ({ version: "", config: { algorithm } }) as unknown as RunConfig;
  for (const [name, { distills, learnsFrom }] of Object.entries(ALGORITHMS)) {
    expect([name, isRewarded(config(name))]).toEqual([name, learnsFrom === "rollouts" && distills?.rewarded !== false]);
  }
});

test("the legend of a page has the values of that in a terminal", () => {
  const imitated = { evidenceWeights: [], tokenAdvantages: [0] };
  const samples = [
    sample(["a"], [1]),
    sample(["a"], [], { ...imitated, teacherLogProbs: [], divergences: [0.1] }),
    sample(["a"], [], imitated),
  ];
  for (const one of samples) {
    const page = [...captionOf([one], 1, 0.2).about.text.matchAll(/<span class="t"[^>]*>([^<]*)</g)];
    const terminal = heatMapLegend(one, plain)
      .match(/:( [\d. -]+ ) /)?.[1]
      ?.match(/-?[\d.]+/g);
    expect(terminal!.length).toBeGreaterThan(2);
    expect(page.map(([, text]) => Number(text!.replace("\u2212", "-")))).toEqual(terminal!.map(Number));
  }
});

test("colours are warm above 1 and cool below, in four strengths, with black text", () => {
  const weights = [1.005, 1.02, 1.06, 1.11, 1.18, 0.98, 0.94, 0.89, 0.8];
  const texts = weights.map((_, i) => String.fromCharCode(97 + i));
  const line = heatMap(sample(texts, weights), colour).split("\n")[3]!;
  const painted = [...line.matchAll(new RegExp(`${ESC}\\[48;5;(\\d+);38;5;16m(\\w)${ESC}\\[0m`, "g"))].map((m) => [
    m[2],
    Number(m[1]),
  ]);
  expect(painted).toEqual([
    ["b", 223],
    ["c", 216],
    ["d", 209],
    ["e", 202],
    ["f", 195],
    ["g", 153],
    ["h", 111],
    ["i", 69],
  ]);
  expect(line.startsWith("a\u001b")).toBe(true);
});

test("nothing that a model writes reaches the terminal as a command", () => {
  const texts = ["\u001b[2J", "\u0007", "a\tb", "\u202e", "\u009b31m", "\r"];
  const hostile = "\u001b]0;title\u0007";
  for (const o of [plain, colour]) {
    const text = heatMap(
      sample(texts, [1, 1.2, 1.2, 1.2, 1.2, 1.2], { id: hostile, prompt: hostile, privileged: hostile }),
      o,
    );
    const own = text.replaceAll(new RegExp(`${ESC}\\[48;5;\\d+;38;5;16m|${ESC}\\[0m`, "g"), "").replaceAll("\n", "");
    expect(own).not.toMatch(/[\p{Cc}\u202a-\u202e]/u);
    expect(own).toContain("␛[2J");
  }
});

test("nor does what it answered before and after, or the name of an arm", () => {
  const hostile = "\u001b]0;title\u0007\u009b31m a\n\n b\r";
  const prediction = (text: string) => {
    const messages = [{ role: "user", content: hostile }];
    const rollout = { id: "e#0", text, prompt: { text: hostile, example: { messages } } };
    return { greedy: true, rollout, verdict: { reward: 0, detail: {} } } as unknown as Prediction;
  };
  const seen = createBeforeAfter();
  for (const text of [hostile, "x".repeat(1000)]) seen.see([prediction(text)]);
  const spread = { mean: 0.5, n: 1 };
  const arm = { name: hostile, runs: 1, seeds: 1, repeatedSeeds: [], ends: { from: 1, to: 1 } };
  const arms = [{ ...arm, curve: [{ step: 1, ...spread }], last: spread, average: spread }];
  for (const text of [seen.text()!, comparisonText({ baseline: hostile, arms })]) {
    expect(text.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
    expect(text).toContain("\u241b]0;title\u2407\ufffd31m a");
  }
  const [question, before, after] = seen.text()!.split("\n");
  expect(question).toMatch(/^question {3}\S.* a \| b$/);
  expect([before!.endsWith(" a | b  (reward 0)"), after!.length]).toEqual([true, 263]);
});

test("a question before and after is the same row, whatever its id", () => {
  const prediction = (group: number, text: string, reward: number) => {
    const prompt = { text: `q${group}`, example: { messages: [] } };
    return { greedy: true, rollout: { id: "e#0", group, text, prompt }, verdict: { reward, detail: {} } };
  };
  const seen = createBeforeAfter();
  seen.see([prediction(0, "right", 1), prediction(1, "wrong", 0)] as unknown as Prediction[]);
  seen.see([prediction(0, "other", 1), prediction(1, "mended", 1)] as unknown as Prediction[]);
  expect(seen.text()).toMatch(/question {3}q1\n.*wrong.*\n.*mended/);
});

test("a question whose answer is another is shown before one that is answered as it was", () => {
  const answers = (...texts: string[]) =>
    texts.map((text, group) => {
      const prompt = { text: `q${group}`, example: { messages: [] } };
      return { greedy: true, rollout: { id: "e#0", group, text, prompt }, verdict: { reward: 0, detail: {} } };
    }) as unknown as Prediction[];
  const seen = createBeforeAfter();
  seen.see(answers("same", "before"));
  seen.see(answers("same", "before"));
  expect(seen.text()).toMatch(/question {3}q0\n/);
  seen.see(answers("same", "after"));
  expect(seen.text()).toMatch(/question {3}q1\n.*before.*\n.*after/);
});

test("what the verifier said stands below what was asked, a part's own within it", () => {
  const detail = { math: { reward: 0, detail: { expected: 4, said: "\u001b[2J" } }, reason: "no-answer" };
  const lines = heatMap(sample(["a"], [1.2], { detail }), plain).split("\n");
  expect(lines).toContain("  verdict  math 0 (expected 4, said \u241b[2J), reason no-answer");
});

test("a line that is cut has whole characters", () => {
  const emoji = "\u{1f600}";
  expect(oneLine(emoji.repeat(9), 10)).toBe(`${emoji.repeat(3)}...`);
  expect(oneLine(`a${emoji.repeat(9)}`, 10)).toBe(`a${emoji.repeat(3)}...`);
});

test("answers are counted as won, lost and reworded; where more were lost, one of those is shown", () => {
  const seen = createBeforeAfter();
  const answers = (...all: [text: string, reward: number | null][]) =>
    all.map(([text, reward], group) => {
      const prompt = { text: `q${group}`, example: { messages: [] } };
      return { greedy: true, rollout: { id: "e#0", group, text, prompt }, verdict: { reward, detail: {} } };
    }) as unknown as Prediction[];
  seen.see(answers(["a", 0], ["b", 1], ["c", 1], ["d", 0], ["e", 0], ["f", null]));
  expect([seen.changes(), seen.text()]).toEqual([undefined, undefined]);
  seen.see(answers(["a", 0], ["B", 0], ["C", 0], ["D", null], ["E", 0], ["F", 1]));
  expect(seen.changes()).toEqual({ rows: 4, gained: 0, lost: 2, reworded: 1 });
  // What nobody judged is not lost.
  seen.see(answers(["a", 1], ["B", null], ["C", 0], ["D", 0], ["E", 0], ["F", 1]));
  expect(seen.text()).toContain("question   q0");
  seen.see(answers(["a", 0], ["B", null], ["C", 0], ["D", 0], ["E", 0], ["F", 1]));
  expect(seen.text()).toContain("question   q2");
  seen.see(answers(["a", 0], ["B", 0], ["C", 0], ["D", 1], ["E", 0], ["F", 1]));
  expect(seen.changes()).toEqual({ rows: 5, gained: 1, lost: 2, reworded: 1 });
  expect(seen.text()).toMatch(/question {3}q1\n {2}before {3}b {2}\(reward 1\)\n {2}after {4}B /);
  seen.see(answers(["a", 1], ["b", 1], ["c", 1], ["D", 1], ["E", 0.5], ["F", 1]), ({ reward }) => (reward ?? 0) >= 0.5);
  expect(seen.changes()).toEqual({ rows: 5, gained: 3, lost: 0, reworded: 0 });
  expect(seen.text()).toContain("question   q0");
});

test("a line break is shown and kept, and its background ends with the line", () => {
  const text = heatMap(sample(["a\n", "b"], [1.2, 1]), colour);
  expect(text).toContain("\u001b[48;5;202;38;5;16ma↵\u001b[0m\nb");
  expect(heatMap(sample(["a\n"], [1.2]), plain).split("\n")).toContain(
    '  0      "a↵"   -1.000  -1.500   −0.500  1.200   -1.200',
  );
});

test("in numbers a weight stands before the line break, and no token of the table is blank", () => {
  const lines = heatMap(sample(["a\n\n", "b", " ", ""], [1.2, 1, 0.8, 0.9]), plain).split("\n");
  expect(lines.slice(3, 6)).toEqual(["a↵", "↵{1.20}", "b {0.80}"]);
  expect(lines.filter((line) => /^ {2}[023] /.test(line)).map((line) => line.split('"')[1])).toEqual([
    "a↵↵",
    "␣",
    "(part of a character)",
  ]);
});

test("tokens that complete no character, masked ones and odd weights have no mark", () => {
  const masked = sample(["", "é", "x", "y"], [1.2, 1.2, 1.2, null], { tokenAdvantages: [-1.2, -1.2, 0, -1] });
  const lines = heatMap(masked, plain).split("\n");
  expect(lines[3]).toBe("é{1.20}xy");
  expect(lines[0]).toContain("mean weight 1.200");
});

test("without a teacher there is the completion alone", () => {
  const silent = sample(["a", "b"], [], {
    teacherLogProbs: [],
    privileged: null,
    reward: null,
    tokenAdvantages: [0, 0],
  });
  expect(heatMap(silent, plain)).toBe(
    "row#1  step 3  reward none  A −1.00  2 tokens  no teacher was asked\n  prompt   What is | 1 + 1?\nab",
  );
});

test("a long prompt is cut", () => {
  const line = heatMap(sample(["a"], [1], { prompt: "x".repeat(1000) }), plain).split("\n")[1]!;
  expect(line.length).toBeLessThan(220);
  expect(line.endsWith("...")).toBe(true);
});

test("the legend says what a mark means", () => {
  expect(heatMapLegend(sample(["a"], [1]), plain)).toMatch(
    /^\{weight\} follows .*: 0\.8 {2}0\.9 {2}1 {2}1\.1 {2}1\.2 {2}above 1: blamed/,
  );
  expect(heatMapLegend(sample(["a"], [1]), colour)).toContain("\u001b[48;5;69;38;5;16m 0.8 \u001b[0m");
});

test("a table is aligned by the columns that a terminal gives its characters", () => {
  expect(["abc", "数学", "한글", "カﾅ", "é", "e\u0301", "🙂", "a\u200b", "जय", "𠀀"].map(columnsOf)).toEqual([
    3, 4, 4, 3, 1, 1, 2, 1, 2, 2,
  ]);
  expect(
    tableLines(
      [
        ["数学", "1"],
        ["e\u0301", "22"],
      ],
      (column) => column === 1,
    ),
  ).toEqual(["数学   1", "e\u0301     22"]);
});
