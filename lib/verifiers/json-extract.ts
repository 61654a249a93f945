/** JSON out of prose: a tag, a fenced block, or the last balanced object or array. Linear time. */
import { answerStart, type Extracted, lastTag } from "./extract.js";

interface ExtractedJson {
  readonly value: unknown;
  readonly from: Extracted["from"] | "fence" | "prose";
}

/** `{"a": 1}` inside ```json ... ```: the last closed fence. */
function lastFence(text: string): string | undefined {
  const close = text.lastIndexOf("```");
  const open = close < 0 ? -1 : text.lastIndexOf("```", close - 1);
  if (open < 0) return undefined;
  const line = text.indexOf("\n", open);
  const start = line < 0 || line > close ? open + 3 : line + 1;
  return text.slice(start, close).trim();
}

/** Every outermost balanced `{...}` or `[...]` outside strings, as [start, end). */
function balanced(text: string): [number, number][] {
  const spans: [number, number][] = [];
  const open: { at: number; close: string }[] = [];
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    if (inString) {
      if (c === "\\") i++;
      else if (c === '"') inString = false;
      else if (c === "\n") {
        // A quotation mark of the prose, not the start of a JSON string: those have no raw line breaks.
        inString = false;
        open.length = 0;
      }
    } else if (c === '"') inString = open.length > 0;
    else if (c === "{" || c === "[") open.push({ at: i, close: c === "{" ? "}" : "]" });
    else if (c === "}" || c === "]") {
      const top = open.pop();
      if (top?.close !== c) open.length = 0;
      else {
        while (spans.length > 0 && spans.at(-1)![0] > top.at) spans.pop();
        spans.push([top.at, i + 1]);
      }
    }
  }
  return spans;
}

function tryParse(text: string): { value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) };
  } catch {
    return undefined;
  }
}

/**
 * The JSON that a completion states. Order: `tag`; the whole answer; the last fence; the last balanced object or array that
 * parses. Undefined where there is none.
 */
export function extractJson(completion: string, tag?: string): ExtractedJson | undefined {
  const from = answerStart(completion);
  if (from < 0) return undefined;
  const answer = completion.slice(from).trim();
  if (tag !== undefined) {
    const inside = lastTag(answer, tag);
    const parsed = inside && tryParse(inside.text);
    return parsed && { ...parsed, from: "tag" };
  }
  const whole = tryParse(answer);
  if (whole !== undefined) return { ...whole, from: "whole" };
  const fence = lastFence(answer);
  const fenced = fence === undefined ? undefined : tryParse(fence);
  if (fenced !== undefined) return { ...fenced, from: "fence" };
  for (const [start, end] of balanced(answer).reverse().slice(0, 100)) {
    const parsed = tryParse(answer.slice(start, end));
    if (parsed !== undefined) return { ...parsed, from: "prose" };
  }
  return undefined;
}
