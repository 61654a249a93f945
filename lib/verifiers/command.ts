/**
 * A program in any language, in killable workers: it reads a sample as one line of JSON and writes { id, reward, reason?,
 * detail? } as one line. A worker runs one such program for all of its samples, one after another.
 */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { messageOf, RlsdError } from "../errors.js";
import { define } from "./definition.js";
import { badVerdict, stringMap, toVerdict } from "./function.js";
import { flag, listOf, optional, rowError, text } from "./options.js";
import { MOST_BYTES, sampleJson } from "./sample-json.js";
import type { Sample, Verdict } from "./verifier.js";

const readers = {
  /** The program and its arguments; no shell is asked. */
  command: listOf(text()),
  /** Its working directory; default: that of this process. */
  cwd: optional(text()),
  /** Variables besides those of this process. */
  env: stringMap,
  /** It writes {"ready": true} when it has loaded what it needs: `startMs` is for that, `deadlineMs` for samples alone. */
  ready: flag(false),
  /** Fields that every row must have. */
  fields: optional(listOf(text())),
};

type Reply = Readonly<Record<string, unknown>>;

/** A number that is none, as Python writes it where JSON has no word for it. */
const NO_NUMBER = /([:[,]\s*)(-?(?:NaN|Infinity))(?=\s*[,}\]])/g;

/** A reply whose reward is no number is one all the same: nobody waits for another. In its detail such a number is null. */
function withoutNumber(line: string): Reply | undefined {
  try {
    const reply = JSON.parse(line.replace(NO_NUMBER, "$1null")) as Reply;
    const given = /"reward"\s*:\s*(-?(?:NaN|Infinity))\b/.exec(line)?.[1];
    return given === undefined ? reply : { ...reply, reward: Number(given) };
  } catch {
    return undefined;
  }
}

/** What a line says to us; anything else that a program writes is its own business. */
function replyIn(line: string): Reply | undefined {
  if (!line.trimStart().startsWith("{")) return undefined;
  try {
    return JSON.parse(line) as Reply;
  } catch {
    return withoutNumber(line);
  }
}

/** Lines of a stream that never end would fill memory. */
function boundLines(stream: NodeJS.ReadableStream, tooLong: () => void): void {
  let bytes = 0;
  stream.on("data", (chunk: Buffer) => {
    const end = chunk.lastIndexOf("\n");
    bytes = end < 0 ? bytes + chunk.length : chunk.length - end - 1;
    if (bytes > MOST_BYTES) tooLong();
  });
}

/** Characters of a program's words that are kept to say why it ended. */
const MOST_SAID = 400;

/** One running program. When it ends, so does this worker, and the harness blames the sample that it was at. */
class Program {
  readonly #child: ChildProcessWithoutNullStreams;
  #listener: ((reply: Reply) => void) | undefined;

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    child.stderr.pipe(process.stderr);
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => {
      said = (said + chunk).slice(-MOST_SAID);
    });
    // Its end tells more than a pipe that broke.
    child.stdin.on("error", () => {});
    const end = (why: string) => {
      const last = said.trim().split(/\r?\n/).at(-1);
      process.stderr.write(`\nError: the program ${why}${last ? `: ${last}` : ""}\n`, () => process.exit(1));
    };
    // "close" comes when the last of its words has been read.
    child.on("close", (code, signal) => end(signal === null ? `ended with code ${code}` : `was ended by ${signal}`));
    boundLines(child.stdout, () => end(`wrote a line longer than ${MOST_BYTES} bytes`));
    createInterface({ input: child.stdout, crlfDelay: Number.POSITIVE_INFINITY }).on("line", (line) => {
      const reply = replyIn(line);
      if (reply !== undefined) this.#listener?.(reply);
      // Talk, or what was meant as a verdict: where none comes in time, its last words are told.
      else process.stderr.write(`${line.slice(0, MOST_SAID)}\n`);
    });
  }

  static async start(o: { command: readonly string[]; cwd: string | undefined; env: Reply }): Promise<Program> {
    const [file = "", ...args] = o.command;
    const env = { ...process.env, PYTHONUNBUFFERED: "1", ...o.env } as NodeJS.ProcessEnv;
    const child = spawn(file, args, { cwd: o.cwd, env, stdio: "pipe", windowsHide: true });
    try {
      await once(child, "spawn");
    } catch (error) {
      const why = messageOf(error);
      const at = o.cwd === undefined ? "" : ` in ${o.cwd}`;
      throw new RlsdError("ERR_RLSD_VERIFIER_START", `The verifier's command ${file} could not be run${at}: ${why}.`);
    }
    return new Program(child);
  }

  /** The first reply that `wanted` takes, after `line` was written. */
  reply<T>(line: string, wanted: (reply: Reply) => T | undefined): Promise<T> {
    return new Promise((resolve) => {
      this.#listener = (reply) => {
        const taken = wanted(reply);
        if (taken === undefined) return;
        this.#listener = undefined;
        resolve(taken);
      };
      if (line !== "") this.#child.stdin.write(`${line}\n`);
    });
  }

  judge(sample: Sample): Promise<Verdict> {
    return this.reply(sampleJson(sample), (reply) => {
      if (String(reply.id) === sample.id) return toVerdict(reply);
      // A reply to nobody: taken for this sample, every later one would be the verdict of the one before it.
      if ("id" in reply || !("reward" in reply)) return undefined;
      return badVerdict('Expected the sample\'s "id" beside "reward" in the program\'s line, but it has none.');
    });
  }
}

export const command = define({
  type: "command",
  summary: "a program of your own in any language, in killable workers: a line of JSON in, a line out",
  where: "worker",
  drawnAlone: true,
  readers,
  create({ command, cwd, env, ready, fields }) {
    let program: Promise<Program> | undefined;
    const start = async (): Promise<Program> => {
      const started = await Program.start({ command, cwd, env });
      if (ready) await started.reply("", (reply) => (reply.ready === true ? true : undefined));
      return started;
    };
    return {
      check(row) {
        for (const field of fields ?? []) {
          if (row[field] === undefined || row[field] === null) throw rowError("command", field, "present", row[field]);
        }
      },
      async prepare() {
        program = start();
        await program;
      },
      async judge(sample) {
        program ??= start();
        return (await program).judge(sample);
      },
    };
  },
});
