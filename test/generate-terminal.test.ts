import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createPolicy, type NewModelConfig } from "../lib/index.js";
import { cliArgs, runCli } from "./support/cli.js";

const folder = mkdtempSync(join(tmpdir(), "rlsd-terminal-"));
const clock = join(__dirname, "../assets/clock");
const bytes = join(__dirname, "fixtures/models/tokenizer-bpe");
const terminal = spawnSync("python3", ["-c", "import pty"]).status === 0;
if (!terminal) process.stdout.write("not run: rlsd generate on a terminal (no Python with pty)\n");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const QUESTION = "Clock at 12, then + 4 + 6.";
const SPEED = /\nrlsd: \d+ tokens in \d+\.\d\d s: [\d,]+ tokens\/s\n(rlsd: interrupted\n)?$/;

/** `rlsd generate` on a terminal; each step waits for a text and types another. */
function generate(args: readonly string[], ...steps: readonly (readonly [string, string])[]) {
  const command = [process.execPath, ...cliArgs(["generate", ...args])];
  const task = JSON.stringify({ command, steps });
  const { stdout, stderr } = spawnSync("python3", [join(__dirname, "support/terminal.py"), task], { encoding: "utf8" });
  if (stdout === "") throw new Error(stderr);
  const { status, shown } = JSON.parse(stdout) as { status: number; shown: string };
  // What moves the cursor and erases, and the progress of a slow machine, are no text.
  const escapes = new RegExp(`${String.fromCharCode(27)}\\[\\d*[A-Z]`, "g");
  const progress = /^rlsd: (reading the model|drawing.*|\d+ of \d+ completions.*)\n/gm;
  const text = shown.replaceAll(escapes, "").replaceAll("\r", "").replaceAll(progress, "");
  return { status, text };
}

/** What `--json` printed on a terminal. */
const said = (text: string): { messages: { role: string; content: string }[]; completion: string }[] =>
  [...text.matchAll(/^\{.*\}$/gm)].map(([line]) => JSON.parse(line));

/** A model with random weights that never ends by itself. */
async function endless(name: string, texts: string, names: readonly string[], c: Partial<NewModelConfig>) {
  const files = Object.fromEntries(names.map((file) => [file, readFileSync(join(texts, file), "utf8")]));
  const shape = { vocabSize: 48, hiddenSize: 64, numLayers: 2, numHeads: 4, maxLength: 60_000, ...c };
  await using policy = await createPolicy(shape, { files, seed: 3 });
  await policy.save(join(folder, name));
  return join(folder, name);
}

const TEXTS = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
const onTerminal = terminal ? test : test.skip;

onTerminal(
  "one completion appears as it is drawn, and is what it is elsewhere, also in halves of characters",
  async () => {
    const vocabSize = 1000;
    const model = await endless("bytes", bytes, TEXTS, { vocabSize, maxLength: 256, hiddenSize: 32 });
    for (const args of [
      [clock, QUESTION],
      [model, "数", "--temperature", "1"],
      [model, "数", "--temperature", "1", "--seed", "5"],
    ]) {
      const { stdout } = runCli(["generate", ...args], folder);
      const { status, text } = generate(args);
      expect(status).toBe(0);
      expect(text.slice(0, text.lastIndexOf("rlsd:"))).toBe(stdout);
    }
  },
);

onTerminal("Ctrl-C ends it, and what was drawn stays", async () => {
  const model = await endless("endless", clock, TEXTS, {});
  const draw = [model, "Clock", "--temperature", "1", "--max-tokens", "50000"];
  const { status, text } = generate(draw, ["1", "\u0003"]);
  expect(status).toBe(130);
  expect(text).toMatch(SPEED);
  // In a conversation the answer alone.
  const talk = draw.filter((word) => word !== "Clock");
  const typed = ["Clock\r", "\u0003", "/reset\r", "Clock\r", "\u0003", "\u0003", "\u0004"];
  const waits = ["> ", "1", "> ", "> ", "1", "> ", "(Ctrl-D ends the conversation)"];
  const conversation = generate(talk, ...waits.map((wait, i) => [wait, typed[i]!] as const));
  expect(conversation.status).toBe(0);
  expect(conversation.text.match(/^> Clock\n.+\n/gm)).toHaveLength(2);
});

onTerminal("a conversation keeps its turns until /reset", () => {
  const { status, text } = generate(
    [clock, "--json", "--system", "Count."],
    ["> ", `${QUESTION}\r`],
    ["}\r\n", "Clock at 1, then + 1.\r"],
    ["}\r\n", "/reset\r"],
    ["/reset", ""],
    ["> ", "\r"],
    ["> ", `${QUESTION}\r`],
    ["}\r\n", "\u0004"],
  );
  expect(status).toBe(0);
  const [first, second, third, ...more] = said(text);
  const system = { role: "system", content: "Count." };
  const asked = { role: "user", content: QUESTION };
  expect(first!.messages).toEqual([system, asked]);
  expect(second!.messages).toEqual([
    system,
    asked,
    { role: "assistant", content: first!.completion },
    { role: "user", content: "Clock at 1, then + 1." },
  ]);
  expect(third).toEqual({ ...first, id: "2#0" });
  expect(more).toEqual([]);
  expect(text).toMatch(/^rlsd: \/reset forgets what was said, Ctrl-C stops an answer, Ctrl-D ends\n/);
  expect(text).toMatch(SPEED);
});

onTerminal("a turn for which there is no room is refused, and the conversation goes on", () => {
  const { status, text } = generate(
    [clock, "--json", "--max-tokens", "4"],
    ["> ", `${QUESTION}\r`],
    ["}\r\n", `${"Clock at 12. ".repeat(60)}\r`],
    ["(/reset forgets what was said)", `${QUESTION}\r`],
    ["}\r\n", "\u0004"],
  );
  expect(status).toBe(0);
  expect(text).toMatch(/rlsd: the prompt has \d+ tokens, .*: shorten it \(\/reset forgets what was said\)\n/);
  expect(said(text).map(({ messages }) => messages.length)).toEqual([1, 3]);
});

onTerminal("without a chat template every line stands alone", () => {
  const plain = join(folder, "plain");
  cpSync(clock, plain, { recursive: true, filter: (file) => !file.endsWith(".jinja") });
  const { status, text } = generate(
    [plain, "--json", "--max-tokens", "8"],
    ["> ", `${QUESTION}\r`],
    ["}\r\n", `${QUESTION}\r`],
    ["}\r\n", "\u0004"],
  );
  expect(status).toBe(0);
  const asked = { role: "user", content: QUESTION };
  expect(said(text).map(({ messages }) => messages)).toEqual([[asked], [asked]]);
  expect(text).toMatch(/^rlsd: the model has no chat template: every line stands alone/);
});

onTerminal("--count is for prompts", () => {
  const { status, text } = generate([clock, "--count", "2"]);
  expect([status, text]).toEqual([2, "rlsd: --count is for prompts: in a conversation every line has one answer.\n"]);
});
