import { createInterface, type Interface } from "node:readline";
import { RlsdError } from "../errors.js";
import { type Asked, answers, promptOf } from "../trainer/generate-run.js";
import type { Rollout } from "../trainer/rollout.js";
import type { Message } from "../verifiers/verifier.js";
import { answerLine, createLiveText, type Speed, tellFault } from "./answer.js";
import { Interrupted, printJson, tell } from "./command.js";

interface ConversationOptions {
  readonly temperature: number;
  readonly json: boolean;
  readonly speed: Speed;
}

const RESET = "/reset";

/** A turn of the assistant; of nothing, none. */
const said = (content: string): readonly Message[] => (content === "" ? [] : [{ role: "assistant", content }]);

/** Errors of what was typed: the next line may do better. */
const OF_A_LINE = new Set(["ERR_RLSD_PROMPT", "ERR_RLSD_CHAT_TEMPLATE"]);

/** Runs answers, each with a signal that Ctrl-C gives. Between them Ctrl-C empties the line: it never ends the program. */
function createStoppable(lines: Interface) {
  let control: AbortController | undefined;
  lines.on("SIGINT", () => {
    if (control !== undefined) return control.abort(new Interrupted());
    if (lines.line === "") tell("\n(Ctrl-D ends the conversation)");
    lines.write(null, { ctrl: true, name: "e" });
    lines.write(null, { ctrl: true, name: "u" });
    lines.prompt();
  });
  return async <T>(body: (signal: AbortSignal) => Promise<T>): Promise<T> => {
    control = new AbortController();
    try {
      return await body(control.signal);
    } finally {
      control = undefined;
    }
  };
}

/** What follows the messages, shown as it is drawn: the answer, or what was shown of it where it was stopped. */
async function answer(
  asked: Asked,
  messages: readonly Message[],
  turn: number,
  signal: AbortSignal,
  { temperature, json, speed }: ConversationOptions,
): Promise<readonly Message[]> {
  const prompt = promptOf(asked, messages, String(turn));
  const live = json ? undefined : createLiveText(asked.tokenizer);
  const onToken = (id: number) => {
    speed.token();
    live?.token(id);
  };
  try {
    const onReply = (replies: readonly Message[]) => live?.reply(replies);
    const o = { count: 1, temperature, before: turn, signal, onToken, onReply, keepsPrefixes: asked.prompter.chat };
    const drawn = answers(asked, [prompt], o);
    const [rollout] = await speed.during(async () => (await drawn.next()).value as Rollout[]);
    if (json) printJson(answerLine(rollout!));
    live?.end(rollout!.text);
    tellFault(rollout!, live !== undefined);
    return rollout!.conversation?.messages ?? said(rollout!.text);
  } catch (error) {
    if (error instanceof Interrupted) return said(live?.shown ?? "");
    throw error;
  } finally {
    if (live !== undefined && live.shown !== "") process.stdout.write("\n");
  }
}

/** A conversation on a terminal, line by line. Without a chat template every line stands alone. */
export async function converse(asked: Asked, o: ConversationOptions): Promise<void> {
  const { chat } = asked.prompter;
  tell(
    chat
      ? `rlsd: ${RESET} forgets what was said, Ctrl-C stops an answer, Ctrl-D ends`
      : "rlsd: the model has no chat template: every line stands alone; Ctrl-C stops an answer, Ctrl-D ends",
  );
  // A turn's prompt begins with the turns before it.
  if (chat) await asked.policy.keepPrefixes?.();
  const output = process.stdout.isTTY ? process.stdout : process.stderr;
  const lines = createInterface({ input: process.stdin, output, prompt: "> " });
  let open = true;
  lines.once("close", () => {
    open = false;
  });
  const stoppable = createStoppable(lines);
  let messages: Message[] = [];
  let turn = 0;
  try {
    lines.prompt();
    for await (const line of lines) {
      if (line.trim() === RESET) messages = [];
      else if (line.trim() !== "") {
        const asking: Message[] = [...messages, { role: "user", content: line }];
        try {
          const answered = await stoppable((signal) => answer(asked, asking, turn++, signal, o));
          if (chat && answered.length > 0) messages = [...asking, ...answered];
        } catch (error) {
          if (!(error instanceof RlsdError && OF_A_LINE.has(error.code))) throw error;
          tell(`rlsd: ${error.message}${messages.length > 0 ? ` (${RESET} forgets what was said)` : ""}`);
        }
      }
      if (open) lines.prompt();
    }
    process.stderr.write("\n");
  } finally {
    lines.close();
  }
}
