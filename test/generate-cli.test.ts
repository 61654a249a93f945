import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadPolicy } from "../lib/index.js";
import { cliArgs, runCli } from "./support/cli.js";
import { fewRows } from "./support/clock-task.js";
import { jsonLines } from "./support/run-files.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-generate-"));
const clock = join(__dirname, "../assets/clock");
const path = (name: string) => join(folder, name);
const rlsd = (...args: string[]) => runCli(args, folder);
const ask = (...args: string[]) => rlsd("generate", clock, ...args);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Line {
  readonly id: string;
  readonly prompt: string;
  readonly messages: readonly { role: string; content: string }[];
  readonly completion: string;
  readonly tokenIds: readonly number[];
  readonly logProbs: readonly number[];
  readonly finish: string;
}
const lines = jsonLines<Line>;
const askJson = (...args: string[]) => lines(ask("--json", ...args).stdout);
const write = (name: string, rows: readonly unknown[]) =>
  writeFileSync(path(name), rows.map((row) => JSON.stringify(row)).join("\n"));

const QUESTION = "Clock at 12, then + 4 + 6.";
const OTHER = "Clock at 1, then - 3 + 7 + 2.";
const SPEED = /rlsd: \d+ tokens in \d+\.\d\d s: [\d,]+ tokens\/s\n$/;

let once: Line[] | undefined;
/** QUESTION's answer, asked once. */
const plain = (): Line[] => {
  once ??= askJson(QUESTION);
  return once;
};

/** What the engine answers, greedy unless told otherwise. */
async function drawn(question: string, options: object = {}) {
  await using policy = await loadPolicy(clock);
  const prompt = policy.tokenizer!.encode(`<|user|>${question}<|assistant|>`);
  const [group] = await policy.generate([prompt], { temperature: 0, maxTokens: 64, seed: 0, ...options });
  const [{ tokenIds, logProbs, finish }] = group as [(typeof group & object)[number]];
  return { text: policy.tokenizer!.decode(tokenIds, { skipSpecialTokens: true }), tokenIds, logProbs, finish };
}

describe("an environment", () => {
  test("answers the model's turns, as in a run that has it", () => {
    writeFileSync(
      path("next.mjs"),
      `export const respond = ({ turn }) => (turn === 1 ? ${JSON.stringify(OTHER)} : null);`,
    );
    writeFileSync(path("ask.yaml"), "");
    const set = ["--set", "environment.type=module", "--set", "environment.path=./next.mjs"];
    const [{ messages, prompt, completion, tokenIds, logProbs }] = askJson(QUESTION, ...set) as [Line];
    const [answered] = askJson(QUESTION);
    expect(messages).toEqual([
      { role: "user", content: QUESTION },
      { role: "assistant", content: answered!.completion },
      { role: "user", content: OTHER },
    ]);
    expect(prompt).toContain(`<|user|>${OTHER}<|assistant|>`);
    expect(prompt.startsWith(answered!.prompt)).toBe(true);
    expect(completion).not.toBe(answered!.completion);
    expect(logProbs).toHaveLength(tokenIds.length);
    // Such a line can be judged as it is.
    writeFileSync(path("talked.jsonl"), ask("--json", QUESTION, ...set).stdout);
    const scored = rlsd("credit", clock, "talked.jsonl", "--set", "reward=numeric", "--json");
    expect(scored.stderr).toMatch(/answer/);
    expect(ask(QUESTION, ...set).stdout).toBe(`${completion}\n`);
  });
});

describe("what an environment gave", () => {
  const withModule = (name: string, source: string) => {
    writeFileSync(path(name), source);
    return ["--set", "environment.type=module", "--set", `environment.path=./${name}`];
  };
  const score = (stdout: string) => {
    writeFileSync(path("given.jsonl"), stdout);
    return lines(rlsd("score", "given.jsonl", "--verifier", "environment", "--json").stdout)[0];
  };

  test("is printed with the line, which can be scored by it", () => {
    const set = withModule("given.mjs", "export const respond = () => ({ reward: 0.75, detail: { hits: 3 } });");
    const { stdout } = ask("--json", QUESTION, ...set);
    expect(lines(stdout)[0]).toMatchObject({ environment: { reward: 0.75, detail: { hits: 3 } } });
    expect(score(stdout)).toMatchObject({ reward: 0.75 });
  });

  test("is nothing where it failed, which is told", () => {
    const set = withModule("fails.mjs", 'export const respond = () => { throw new Error("no game"); };');
    const { stdout, stderr, status } = ask("--json", QUESTION, ...set);
    expect(status).toBe(0);
    expect(stderr).toMatch(/^rlsd: 0#0: the environment did not answer: error: Error: no game/m);
    expect(lines(stdout)[0]).toMatchObject({ environment: { reward: null, reason: "error" } });
    expect(score(stdout)).toMatchObject({ reward: null, reason: "no-environment" });
    expect(ask(QUESTION, ...set).stderr).toMatch(/did not answer/);
  });
});

describe("a prompt on the command line", () => {
  test("is answered greedily, and how fast is told on stderr", async () => {
    const { status, stdout, stderr } = ask(QUESTION);
    expect({ status, stdout }).toEqual({ status: 0, stdout: `${(await drawn(QUESTION)).text}\n` });
    expect(stderr).toMatch(SPEED);
  });

  test("--json has the prompt, the messages, the tokens and their log-probs", async () => {
    const { text, tokenIds, logProbs, finish } = await drawn(QUESTION);
    const [line, ...more] = plain();
    expect(more).toEqual([]);
    expect(line).toEqual({
      id: "0#0",
      prompt: `<|user|>${QUESTION}<|assistant|>`,
      messages: [{ role: "user", content: QUESTION }],
      completion: text,
      tokenIds: [...tokenIds],
      logProbs: Array.from(logProbs, (p) => Number(p.toPrecision(7))),
      finish,
    });
    expect(askJson(QUESTION, "--max-tokens", "3")[0]).toMatchObject({
      tokenIds: [...tokenIds.slice(0, 3)],
      finish: "length",
    });
  });

  test("several have their answers under them, and numbers where there are several answers", async () => {
    const [one, other] = [(await drawn(QUESTION)).text, (await drawn(OTHER)).text];
    expect(ask(QUESTION, OTHER).stdout).toBe(`> ${QUESTION}\n${one}\n\n> ${OTHER}\n${other}\n`);
    // From one token there is nothing to choose.
    expect(ask(QUESTION, "--count", "2", "--top-k", "1").stdout).toBe(`[1] ${one}\n[2] ${one}\n`);
  });

  test("the same seed draws the same, another one something else", () => {
    const draw = (...args: string[]) => askJson(QUESTION, ...args).map(({ tokenIds }) => tokenIds.join());
    const four = draw("--count", "4", "--temperature", "2");
    expect(new Set(four).size).toBeGreaterThan(1);
    expect(draw("--count", "4", "--temperature", "2", "--seed", "1")).toEqual(four);
    expect(draw("--count", "4", "--temperature", "2", "--seed", "2")).not.toEqual(four);
    expect(draw("--count", "2", "--temperature", "2")).toEqual(four.slice(0, 2));
    expect(draw("--temperature", "0", "--seed", "2", "--top-p", "0.5")).toEqual(draw());
    const cold = draw("--count", "4", "--temperature", "2", "--top-p", "0.01");
    expect(new Set(cold).size).toBe(1);
    expect(draw("--count", "4", "--temperature", "2", "--min-p", "1")).toEqual(cold);
  });

  test("--stop and --system are as the settings have them", () => {
    expect(ask(QUESTION, "--stop", " = ").stdout).toBe("12 + 4 = \n");
    const [line] = askJson(QUESTION, "--system", "Count.");
    expect(line!.messages).toEqual([
      { role: "system", content: "Count." },
      { role: "user", content: QUESTION },
    ]);
    expect(line!.prompt).toBe(`<|system|>Count.<|user|>${QUESTION}<|assistant|>`);
  });
});

describe("standard input", () => {
  const pipe = (input: string | Buffer, ...args: string[]) => {
    const command = cliArgs(["generate", clock, ...args]);
    const { status, stdout, stderr } = spawnSync(process.execPath, command, { input, encoding: "utf8", cwd: folder });
    return { status, stdout, stderr };
  };

  test("is one prompt, without the line break that ends it", () => {
    const asked = plain();
    expect(lines(pipe(`${QUESTION}\n`, "--json").stdout)).toEqual(asked);
    expect(lines(pipe(`${QUESTION}\n\n${OTHER}\r\n`, "--json").stdout)[0]!.messages[0]!.content).toBe(
      `${QUESTION}\n\n${OTHER}`,
    );
    // Prompts that are named come before it.
    expect(lines(pipe("unread", "--json", QUESTION).stdout)).toEqual(asked);
  });

  test("that is empty, or no text, is an error", () => {
    expect(pipe(" \n")).toMatchObject({
      status: 2,
      stdout: "",
      stderr: expect.stringMatching(/prompt but it is empty/),
    });
    expect(pipe(Buffer.of(0xff, 0xfe))).toMatchObject({
      status: 2,
      stderr: "rlsd: Expected text in UTF-8 on standard input.\n",
    });
  });
});

describe("rows of a file", () => {
  test("are asked as rlsd eval asks them", () => {
    const [questions, output] = [join(clock, "eval.jsonl"), path("eval")];
    const set = ["--set", "eval.limit=150", "--set", "rollout.maxTokens=64"];
    expect(rlsd("eval", clock, questions, "--output", output, ...set).status).toBe(0);
    const predicted = lines(readFileSync(join(output, "predictions.jsonl"), "utf8"));
    const told = ask("--file", questions, "--limit", "150", "--max-tokens", "64", "--json");
    const pick = ({ id, prompt, completion, finish }: Line) => ({ id, prompt, completion, finish });
    expect(lines(told.stdout).map(pick)).toEqual(predicted.map(pick));
    expect(predicted).toHaveLength(150);
  });

  test("keep their columns beside what was drawn, so that it can be scored and credited", () => {
    const [question] = lines(readFileSync(join(clock, "eval.jsonl"), "utf8")) as unknown as { answer: string }[];
    const row = { ...question, id: "q", source: "mine", completion: "old", completions: ["older"], finish: "length" };
    write("whole.jsonl", [row]);
    const set = ["--set", "privileged.source=trace", "--set", "reward=numeric"];
    const told = ask("--file", "whole.jsonl", "--count", "3", "--max-tokens", "64", "--json");
    writeFileSync(path("drawn.jsonl"), told.stdout);
    const drawn = lines(told.stdout);
    expect(drawn).toHaveLength(3);
    for (const [i, line] of drawn.entries()) {
      const { id: _, completion, completions, finish, ...columns } = row;
      expect(line).toMatchObject({ ...columns, id: `q#${i}` });
      expect([Object.hasOwn(line, "completions"), line.completion === "old"]).toEqual([false, false]);
    }
    const scored = rlsd("score", "drawn.jsonl", "--verifier", "numeric", "--json");
    expect([scored.status, lines(scored.stdout).at(-1)]).toMatchObject([0, { summary: { judged: 3 } }]);
    const credited = rlsd("credit", clock, "drawn.jsonl", ...set, "--json");
    expect(credited.status).toBe(0);
    const texts = lines(credited.stdout).map(({ completion }) => completion);
    expect(texts).toEqual(drawn.map(({ completion }) => completion));
  });

  test("may have any column, and messages", () => {
    const messages = [
      { role: "system", content: "Count." },
      { role: "user", content: QUESTION },
    ];
    write("messages.jsonl", [{ id: "a", messages: [...messages, { role: "assistant", content: "4" }] }]);
    write("task.jsonl", [{ task: OTHER }]);
    expect(askJson("--file", "messages.jsonl", "--system", "Unused.")[0]).toMatchObject({ id: "a#0", messages });
    const [row] = askJson("--file", "task.jsonl", "--set", "data.fields.prompt=task");
    expect(row!.messages).toEqual([{ role: "user", content: OTHER }]);
    const both = ["--file", "task.jsonl", "--file", "task.jsonl", "--set", "data.fields.prompt=task"];
    expect(askJson(...both).map(({ id }) => id)).toEqual(["0#0", "1#0"]);
  });

  test("that leave no room for an answer are named, or left out", () => {
    write("long.jsonl", [{ prompt: QUESTION }, { prompt: "Clock at 12. ".repeat(60) }]);
    const told = ask("--file", "long.jsonl");
    expect([told.status, told.stdout]).toEqual([1, ""]);
    expect(told.stderr).toMatch(/long\.jsonl:2: the prompt has \d+ tokens, .* leaves room for 127: shorten it\n/);
    const skipped = ask("--file", "long.jsonl", "--set", "data.invalid=skip");
    expect([skipped.status, skipped.stdout]).toEqual([0, ask(QUESTION).stdout]);
    expect(skipped.stderr).toMatch(/rlsd: 1 rows left out: they do not fit\n/);
  });

  test("have as long an answer as the model's length leaves, each by itself", () => {
    // 5, 41 and 113 tokens of 128: no answer may be as long as the 256 that are allowed.
    const prompts = [0, 9, 27].map((n) => `Clock at 12, then${" + 4".repeat(n)}.`);
    write(
      "rooms.jsonl",
      prompts.map((prompt) => ({ prompt })),
    );
    const all = askJson("--file", "rooms.jsonl");
    const alone = prompts.map((prompt) => askJson(prompt)[0]!);
    expect(all.map(({ tokenIds }) => tokenIds)).toEqual(alone.map(({ tokenIds }) => tokenIds));
    expect(all[2]!.finish).toBe("length");
  });
});

describe("a run", () => {
  const run = path("run");
  beforeAll(() => {
    const set = [
      "steps=0",
      "data.eval=[]",
      "data.system=Count.",
      "rollout.maxTokens=4",
      "seed=7",
      `data.train=${fewRows(folder)}`,
    ];
    const args = ["train", "--json", "--no-report", "--output", run, ...set.flatMap((one) => ["--set", one])];
    expect(rlsd(...args).status).toBe(0);
  });

  test("brings its settings, which flags and --set win over", () => {
    const of = (...args: string[]) => lines(rlsd("generate", run, QUESTION, "--json", ...args).stdout);
    const [line] = of();
    expect([line!.messages[0], line!.tokenIds.length, line!.finish]).toEqual([
      { role: "system", content: "Count." },
      4,
      "length",
    ]);
    expect(of("--system", "")).toEqual(askJson(QUESTION, "--max-tokens", "4"));
    expect(of("--set", "data.system=null", "--set", "rollout.maxTokens=64")).toEqual(plain());
    const many = ["--count", "4", "--temperature", "2"];
    expect(of(...many)).toEqual(askJson(QUESTION, "--system", "Count.", "--max-tokens", "4", "--seed", "7", ...many));
    expect(lines(rlsd("generate", join(run, "checkpoints/step-000000"), QUESTION, "--json").stdout)).toEqual(of());
  });

  test("asks by its data.template, and prints what can be asked by it again", () => {
    const words = "Clock at 12, then{{ content }}";
    const asked = ["--set", `data.template=${words}`, "--json"];
    const [line] = lines(rlsd("generate", run, " + 4.", ...asked).stdout);
    expect([line!.messages.at(-1)!.content, line!.prompt]).toEqual([
      " + 4.",
      expect.stringContaining("Clock at 12, then + 4.<"),
    ]);
    write("again.jsonl", [line!]);
    const [again] = lines(rlsd("generate", run, "--file", "again.jsonl", ...asked).stdout);
    expect(again).toEqual({ ...line, id: again!.id });
  });

  test("of adapters is asked on the weights they stand on, by --base where these were moved", async () => {
    const [base, adapters] = [path("base"), path("adapters")];
    cpSync(clock, base, { recursive: true });
    const set = [`model=${base}`, "steps=1", "data.eval=[]", "lora.rank=2", "optimizer.learningRate=0.05"];
    const args = ["train", "--json", "--no-report", "--output", adapters, ...set.flatMap((one) => ["--set", one])];
    expect(rlsd(...args).status).toBe(0);
    const found = lines(rlsd("generate", adapters, QUESTION, "--json").stdout);
    expect(found[0]!.logProbs).not.toEqual(plain()[0]!.logProbs);
    const moved = path("moved");
    renameSync(base, moved);
    const lost = rlsd("generate", adapters, QUESTION);
    expect([lost.status, lost.stdout]).toEqual([1, ""]);
    expect(lost.stderr).toMatch(
      /stands on .*base, which is no model folder here, nor in .*: say where the model is by the option "base" \(--base\)/,
    );
    expect(lines(rlsd("generate", adapters, QUESTION, "--json", "--base", moved).stdout)).toEqual(found);
    const model = join(adapters, "checkpoints/step-000001/model");
    expect(lines(rlsd("generate", model, QUESTION, "--json", "--base", moved).stdout)[0]!.logProbs).toEqual(
      found[0]!.logProbs,
    );
  });
});

test.each([
  [["generate"], 2, /missing required argument 'model'/],
  [["generate", "nowhere", "x"], 1, /nowhere is neither a run, nor a checkpoint, nor a model folder/],
  [["generate", clock, ""], 2, /Expected a prompt but it is empty/],
  [["generate", clock, "x", "--file", "rows.jsonl"], 2, /prompts or --file but received both/],
  [["generate", clock, "x", "--limit", "2"], 2, /--limit is for the rows of --file/],
  [["generate", clock, "x", "--set", "data.fields.prompt=task"], 2, /--set data\.fields is for the rows of --file/],
  ...["--top-p 0.9", "--top-k 3", "--min-p 0.1", "--seed 2"].map((flag): [string[], number, RegExp] => [
    ["generate", clock, "x", ...flag.split(" ")],
    2,
    new RegExp(
      `${flag.split(" ")[0]} has no effect where the likeliest token is taken: give --temperature or --count too`,
    ),
  ]),
  [["generate", clock, "--file", "nothing.jsonl"], 1, /cannot read nothing\.jsonl/],
  [["generate", clock, "x", "--count", "0"], 2, /whole number of at least 1 for --count but received "0"/],
  [["generate", clock, "x", "--temperature", "hot"], 2, /number of at least 0 for --temperature but received "hot"/],
  [["generate", clock, "x", "--top-p", "0"], 2, /number above 0 and at most 1 for --top-p but received "0"/],
  [
    ["generate", clock, "x", "--stop", ""],
    2,
    /Expected a list, each a text that is not empty for "rollout\.stopStrings"/,
  ],
  [["generate", clock, "x", "--set", "reward=math"], 2, /There is no setting "reward"/],
  [["generate", clock, "x", "--set", "rollout.temperature=1"], 2, /There is no setting "rollout\.temperature"/],
  [["generate", clock, "x", "--base", clock], 1, /"base" is for a folder of adapters/],
  [["generate", clock, "Clock at 12. ".repeat(60)], 1, /leaves room for 127: shorten it/],
])("%j is an error in one line", (args, status, message) => {
  const told = rlsd(...args);
  expect({ status: told.status, stdout: told.stdout }).toEqual({ status, stdout: "" });
  expect(told.stderr).toMatch(message);
});

const onLinux = process.platform === "linux" ? test : test.skip;

onLinux("it ends at once when its output is lost, and says why where nobody chose it", () => {
  const many = ["generate", clock, "--file", join(clock, "train.jsonl"), "--json"];
  const command = [process.execPath, ...cliArgs(many)].map((word) => `'${word}'`).join(" ");
  const sh = (tail: string) =>
    spawnSync("sh", ["-c", `{ ${command}; echo "status $?" >&2; } ${tail}`], { encoding: "utf8" }).stderr;
  expect(sh("| head -n 1 >/dev/null")).toMatch(/^(rlsd: (reading the model|\d+ of 2000 completions.*)\n)*status 0\n$/);
  expect(sh("> /dev/full")).toMatch(/rlsd: cannot write the output: ENOSPC.*\nstatus 1\n$/);
});

test("--help has examples", () => {
  expect(rlsd("generate", "--help").stdout).toContain('$ rlsd generate runs/first "Clock at 12, then + 4 + 6 + 8."');
  expect(existsSync(path("runs"))).toBe(false);
});
