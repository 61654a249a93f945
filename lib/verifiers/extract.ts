/**
 * Where a completion states its final answer. One statement is chosen by position, before anybody knows the right answer, so
 * that listing many answers cannot win: never "is any of these equal to the gold one".
 */

import type { Sample } from "./verifier.js";

/** A final answer and where it stood. `start` and `end` are offsets into the completion. */
export interface Extracted {
  readonly text: string;
  readonly from: "tag" | "boxed" | "phrase" | "last line" | "whole";
  readonly start: number;
  readonly end: number;
}

const THINK_OPEN = "<think>";
const THINK_CLOSE = "</think>";
const MARK = "####";

/**
 * The completion with the `<think>` that its prompt ends with: templates of reasoning models open the thought themselves, and
 * what the model draws begins inside it.
 */
export function spoken({ prompt, completion }: Pick<Sample, "prompt" | "completion">): string {
  const opened = typeof prompt === "string" && prompt.trimEnd().endsWith(THINK_OPEN);
  return opened && !completion.trimStart().startsWith(THINK_OPEN) ? THINK_OPEN + completion : completion;
}

/**
 * Offset at which the answer part starts: after the last `</think>`; -1 when a thought was opened and never closed, because
 * then nothing was answered yet.
 */
export function answerStart(completion: string): number {
  const close = completion.lastIndexOf(THINK_CLOSE);
  const open = completion.lastIndexOf(THINK_OPEN);
  if (open > close) return -1;
  return close < 0 ? 0 : close + THINK_CLOSE.length;
}

/** For each `{`, the offset just past its `}`; -1 where there is none. `\\{` and `\\}` are text. One pass: linear. */
function braceEnds(text: string): Int32Array {
  const ends = new Int32Array(text.length).fill(-1);
  const open: number[] = [];
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "\\") i++;
    else if (c === "{") open.push(i);
    else if (c === "}") {
      const start = open.pop();
      if (start !== undefined) ends[start] = i + 1;
    }
  }
  return ends;
}

const BOX = /\\(?:boxed|fbox)\s{0,4}(\{|[^\s{}$\\])/g;

/** Every `\boxed{...}` and `\fbox{...}` from `from` on, outermost ones only, in order. An unclosed box is none. */
export function boxes(text: string, from = 0): Extracted[] {
  const found: Extracted[] = [];
  let ends: Int32Array | undefined;
  BOX.lastIndex = from;
  for (let match = BOX.exec(text); match !== null; match = BOX.exec(text)) {
    const brace = match.index + match[0].length - 1;
    ends ??= braceEnds(text);
    const braced = match[1] === "{";
    const end = braced ? (ends[brace] ?? -1) : brace + 1;
    if (end < 0) continue;
    const inner = braced ? text.slice(brace + 1, end - 1) : text.slice(brace, end);
    found.push({ text: inner.trim(), from: "boxed", start: match.index, end });
    BOX.lastIndex = end;
  }
  return found;
}

/** What a worked solution gives as its answer: its last box, or the line behind its last "####" (GSM8K); else all of it. */
export function goldStatement(gold: string): string {
  const box = boxes(gold).at(-1);
  if (box !== undefined) return box.text;
  const mark = gold.lastIndexOf(MARK);
  return mark < 0 ? gold : gold.slice(mark + MARK.length).trim();
}

/** The last `<tag>...</tag>` at or after `from`. */
export function lastTag(text: string, tag: string, from = 0): Extracted | undefined {
  const close = text.lastIndexOf(`</${tag}>`);
  if (close < from) return undefined;
  const open = text.lastIndexOf(`<${tag}>`, close);
  if (open < from) return undefined;
  const start = open + tag.length + 2;
  return { text: text.slice(start, close).trim(), from: "tag", start, end: close };
}

const PHRASE =
  /(?:\b(?:final\s+answer|correct\s+answer|right\s+answer|answer|correct\s+(?:option|choice)|result|solution)\b(?:\s{1,4}\w{1,12}){0,3}?(?:\s{0,4}\*\*)?\s{0,4}(?:\bis\b|\bare\b|:|=)|####)\s{0,4}:?\s{0,4}/gi;

/** What follows the last "the answer is", "Answer:", "####": up to the end of the line. */
export function lastPhrase(text: string, from = 0): Extracted | undefined {
  let last: Extracted | undefined;
  PHRASE.lastIndex = from;
  for (let match = PHRASE.exec(text); match !== null; match = PHRASE.exec(text)) {
    const start = match.index + match[0].length;
    const line = text.indexOf("\n", start);
    const end = line < 0 ? text.length : line;
    const said = text.slice(start, end).trim();
    if (said !== "") last = { text: said, from: "phrase", start, end };
  }
  return last;
}

/** The last line that is not blank. */
function lastLine(text: string, from: number): Extracted | undefined {
  const kept = text.trimEnd();
  const start = Math.max(from, kept.lastIndexOf("\n") + 1);
  const line = kept.slice(start).trim();
  return line === "" ? undefined : { text: line, from: "last line", start, end: kept.length };
}

const WRAPPERS: readonly (readonly [string, string])[] = [
  ["**", "**"],
  ["__", "__"],
  ["*", "*"],
  ["`", "`"],
  ['"', '"'],
  ["'", "'"],
  ["“", "”"],
  ["‘", "’"],
];

/** `**28**`, `"28"`, `28.` and `` `28` `` are 28: Markdown, quotes and the full stop around an answer. Linear time. */
export function unwrap(said: string): string {
  let now = said.trim();
  for (let before = ""; before !== now; ) {
    before = now;
    for (const [open, close] of WRAPPERS) {
      if (now.length > open.length + close.length && now.startsWith(open) && now.endsWith(close)) {
        now = now.slice(open.length, -close.length).trim();
      }
    }
    let end = now.length;
    while (end > 1 && ".!;,:*".includes(now[end - 1] ?? " ")) end--;
    now = now.slice(0, end).trim();
    if (now.startsWith("**")) now = now.slice(2).trim();
  }
  return now;
}

/**
 * The one statement of the final answer: in `tag` when a tag is asked for and nowhere else; otherwise the last box, the last
 * "answer is", or (with `fallback`) the last line. Undefined: the completion answers nothing.
 */
export function finalAnswer(completion: string, tag: string | undefined, fallback: boolean): Extracted | undefined {
  const from = answerStart(completion);
  if (from < 0) return undefined;
  if (tag !== undefined) {
    const tagged = lastTag(completion, tag, from);
    if (tagged === undefined) return undefined;
    return boxes(tagged.text).at(-1) ?? tagged;
  }
  const said = boxes(completion, from).at(-1) ?? lastTag(completion, "answer", from) ?? lastPhrase(completion, from);
  return said ?? (fallback ? lastLine(completion, from) : undefined);
}
