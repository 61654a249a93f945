/** Calls of tools against those that are right. */
import { isDeepStrictEqual } from "node:util";
import { show } from "../check.js";
import { define, type Row } from "./definition.js";
import { bestAssignment } from "./iou.js";
import { flag, rowError, text } from "./options.js";
import { type ReadCall, readCalls, toCall } from "./tool-calls.js";

const readers = {
  /** Field with the right calls: a list of {name, arguments} or {function: {name, arguments}}, or its JSON. Empty: none is right. */
  answer: text("answer"),
  /** A share for what is right in part. */
  graded: flag(false),
};

type Call = Extract<ReadCall, { readonly arguments: unknown }>;

/** Calls of one turn; more are as wrong as that many. */
const MOST_CALLS = 100;

/** The right calls of a row; undefined: they are none. */
function rightCalls(value: unknown): readonly Call[] | undefined {
  let list = value;
  if (typeof value === "string") {
    try {
      list = JSON.parse(value);
    } catch {
      return undefined;
    }
  }
  if (!Array.isArray(list) || list.length > MOST_CALLS) return undefined;
  const calls = list.map((one) => toCall((one as { readonly function?: unknown } | null)?.function ?? one));
  return calls.every((call) => "arguments" in call) ? (calls as Call[]) : undefined;
}

/** Of a call's arguments, the share that another has alike; 1 where neither has any. */
function alike(a: Call["arguments"], b: Call["arguments"]): number {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  const same = [...names].filter(
    (name) => Object.hasOwn(a, name) && Object.hasOwn(b, name) && isDeepStrictEqual(a[name], b[name]),
  );
  return names.size === 0 ? 1 : same.length / names.size;
}

/** 1: the same call; else a half for the name and a half for the arguments. */
function worth(said: ReadCall, right: Call): number {
  if ("fault" in said || said.name !== right.name) return 0;
  return (1 + alike(said.arguments, right.arguments)) / 2;
}

export const calls = define({
  type: "calls",
  summary: "calls of tools, by names and arguments",
  where: "inline",
  readers,
  create(options) {
    const expected = (row: Row): readonly Call[] | undefined => rightCalls(row[options.answer]);
    return {
      check(row) {
        if (expected(row) !== undefined) return;
        const what = `a list of at most ${MOST_CALLS} calls {name, arguments}, or its JSON`;
        throw rowError("calls", options.answer, what, row[options.answer]);
      },
      judge({ completion, raw = completion, row }) {
        const right = expected(row);
        if (right === undefined)
          return { reward: null, reason: "gold", detail: { message: "the row has no right calls" } };
        const said = readCalls(raw)?.calls ?? [];
        const detail = { extracted: show(said), expected: show(right) };
        if (said.length > MOST_CALLS) return { reward: 0, reason: "too-many", detail };
        const most = Math.max(said.length, right.length);
        const matched = most === 0 ? 1 : bestAssignment(said.map((a) => right.map((b) => worth(a, b)))) / most;
        return { reward: options.graded || matched === 1 ? matched : 0, detail };
      },
    };
  },
});
