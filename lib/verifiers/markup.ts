/** Markup: XML that is well formed, and answers laid out in tags. Linear time, no entity but XML's own five is expanded. */
import { createRequire } from "node:module";
import type * as Saxes from "saxes";
import { RlsdError } from "../errors.js";
import { define, noAnswer } from "./definition.js";
import { answerStart, lastTag } from "./extract.js";
import { flag, listOf, optional, text } from "./options.js";

const load = createRequire(import.meta.url);

interface XmlReport {
  readonly elements: number;
  readonly roots: readonly string[];
  /** The first error, with line and column; absent when the text is well formed. */
  readonly error?: string;
}

/** The parser resolves a prefix level by level, so its time grows with the square of the depth. */
const MAX_DEPTH = 500;

/** Ends the parse at the first error; the rest cannot mend it. */
class Malformed extends Error {}

/** Whether `source` is a well-formed XML 1.0 document, or with `fragment` its content. Namespaces are checked. */
function checkXml(source: string, fragment: boolean): XmlReport {
  const { SaxesParser } = load("saxes") as typeof Saxes;
  const parser = new SaxesParser({ xmlns: true, fragment });
  const roots: string[] = [];
  let [depth, elements] = [0, 0];
  parser.on("error", ({ message }) => {
    throw new Malformed(message);
  });
  parser.on("opentag", ({ name }) => {
    if (depth++ === 0) roots.push(name);
    if (depth > MAX_DEPTH) throw new Malformed(`elements nested more than ${MAX_DEPTH} deep`);
    elements++;
  });
  parser.on("closetag", () => {
    depth--;
  });
  try {
    parser.write(source).close();
    return { elements, roots };
  } catch (error) {
    if (error instanceof Malformed) return { elements, roots, error: error.message };
    throw error;
  }
}

/** Inside a tag, a fenced block, or from the first "<" to the last ">". */
function stated(completion: string, tag: string | undefined): string | undefined {
  const from = answerStart(completion);
  if (from < 0) return undefined;
  if (tag !== undefined) return lastTag(completion, tag, from)?.text;
  const answer = completion.slice(from);
  const fence = answer.lastIndexOf("```");
  const open = fence < 0 ? -1 : answer.lastIndexOf("```", fence - 1);
  const inside = open < 0 ? answer : answer.slice(open + 3, fence);
  const [start, end] = [inside.indexOf("<"), inside.lastIndexOf(">")];
  return start < 0 || end < start ? undefined : inside.slice(start, end + 1);
}

const xmlReaders = {
  /** Accept only XML inside this tag of the completion. */
  tag: optional(text()),
  /** Name of the root element. */
  root: optional(text()),
  /** Accept content with several roots or text beside them. */
  fragment: flag(false),
};

export const xml = define({
  type: "xml",
  summary: "well-formed XML",
  where: "inline",
  readers: xmlReaders,
  create(options) {
    return {
      judge({ completion }) {
        const source = stated(completion, options.tag);
        if (source === undefined) return noAnswer("XML");
        const report = checkXml(source, options.fragment);
        const detail = { extracted: source.slice(0, 500), roots: report.roots.slice(0, 10), elements: report.elements };
        if (report.error !== undefined)
          return { reward: 0, reason: "not-well-formed", detail: { ...detail, why: report.error } };
        if (options.root !== undefined && (report.roots.length !== 1 || report.roots[0] !== options.root)) {
          return { reward: 0, reason: "root", detail: { ...detail, expected: options.root } };
        }
        return { reward: 1, detail };
      },
    };
  },
});

const tagReaders = {
  /** Tags that must stand in this order, each opened and closed exactly once, none inside another. */
  tags: listOf(text()),
  /** Allow text outside the tags. White space is always allowed. */
  outside: flag(false),
  /** Allow a tag without content. */
  empty: flag(false),
  /** Reward the share of tags that are in order, instead of all or nothing. */
  partial: flag(false),
};

/** Offsets of every occurrence. */
function occurrences(s: string, what: string): number[] {
  const found: number[] = [];
  for (let at = s.indexOf(what); at >= 0; at = s.indexOf(what, at + what.length)) found.push(at);
  return found;
}

/** What is wrong with each tag, and with the text as a whole; empty: nothing. */
function layoutFaults(
  completion: string,
  tags: readonly string[],
  outside: boolean,
  empty: boolean,
): Map<string, string> {
  const faults = new Map<string, string>();
  let end = 0;
  let between = "";
  for (const tag of tags) {
    const [opens, closes] = [occurrences(completion, `<${tag}>`), occurrences(completion, `</${tag}>`)];
    const [open, close] = [opens[0], closes[0]];
    if (open === undefined || close === undefined) faults.set(tag, "missing");
    else if (opens.length + closes.length > 2) faults.set(tag, "repeated");
    else if (open < end || close < open) faults.set(tag, "out of order");
    else {
      const content = completion.slice(open + tag.length + 2, close);
      if (!empty && content.trim() === "") faults.set(tag, "empty");
      between += completion.slice(end, open);
      end = close + tag.length + 3;
    }
  }
  if (!outside && (between + completion.slice(end)).trim() !== "") faults.set("", "text outside the tags");
  return faults;
}

export const tags = define({
  type: "tags",
  summary: "a layout of tags, such as <think> and <answer>, each once and in order",
  where: "inline",
  readers: tagReaders,
  create(options) {
    const bad = options.tags.find((tag, i) => !/^[\w:-]+$/.test(tag) || options.tags.indexOf(tag) !== i);
    if (bad !== undefined) {
      const message = `Expected different names for option "tags" of the verifier "tags" but received "${bad}".`;
      throw new RlsdError("ERR_RLSD_VERIFIER_OPTION", message);
    }
    return {
      judge({ completion }) {
        const faults = layoutFaults(completion, options.tags, options.outside, options.empty);
        if (faults.size === 0) return { reward: 1 };
        const share = Math.max(0, 1 - faults.size / options.tags.length);
        const why = [...faults].map(([tag, fault]) => (tag === "" ? fault : `<${tag}>: ${fault}`));
        return { reward: options.partial ? share : 0, reason: "layout", detail: { why } };
      },
    };
  },
});
