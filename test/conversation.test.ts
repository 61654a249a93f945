import { join } from "node:path";
import { Readable } from "node:stream";
import { createSpeed } from "../lib/cli/answer.js";
import { converse } from "../lib/cli/conversation.js";
import type { EnginePolicy } from "../lib/index.js";
import { openAsked } from "../lib/trainer/generate-run.js";

const clock = join(__dirname, "../assets/clock");

/** What a conversation prints, and what of its prompts was computed; `keeps`: whether its policy can keep prefixes. */
async function talk(lines: readonly string[], keeps: boolean) {
  const asked = await openAsked(clock);
  const policy = asked.policy as EnginePolicy;
  if (!keeps) Object.defineProperty(policy, "keepPrefixes", { value: undefined });
  const typed = Readable.from(lines.map((line) => `${line}\n`));
  const stdin = jest.spyOn(process, "stdin", "get").mockReturnValue(typed as never);
  const printed: string[] = [];
  const out = jest.spyOn(process.stdout, "write").mockImplementation((text) => printed.push(String(text)) > 0);
  const err = jest.spyOn(process.stderr, "write").mockImplementation(() => true);
  try {
    await converse(asked, { temperature: 0, json: true, speed: createSpeed() });
    return { printed: printed.join(""), use: await policy.prefixUse() };
  } finally {
    for (const spy of [stdin, out, err]) spy.mockRestore();
    await policy.dispose();
  }
}

test("a turn does not read earlier ones again, and is answered as if it did", async () => {
  const lines = ["Clock at 12, then + 4.", "Clock at 3, then + 5.", "Clock at 1, then + 2."];
  const [kept, plain] = [await talk(lines, true), await talk(lines, false)];
  expect(kept.printed.trim().split("\n")).toHaveLength(3);
  expect(kept.printed).toBe(plain.printed);
  expect(plain.use).toMatchObject({ reusedTokens: 0, bytes: 0 });
  const all = plain.use.computedTokens;
  expect(kept.use.reusedTokens + kept.use.computedTokens).toBe(all);
  expect(kept.use.computedTokens).toBeLessThan(0.6 * all);
});
