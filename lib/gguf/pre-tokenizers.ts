/** How a text is cut before its parts are merged, as tokenizer.json says it and as llama.cpp names it. */

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const WORDS = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+";
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const PREFIX = "[^\\r\\n\\p{L}\\p{N}]?";
const SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const SIGNS = " ?[^\\s\\p{L}\\p{N}]+";

const digits = (count: string) => `${CONTRACTIONS}|${WORDS}|\\p{N}${count}|${SIGNS}[\\r\\n]*|${SPACES}`;
const cased = (suffix: string, count: string) =>
  `${PREFIX}${UPPER}*${LOWER}+${suffix}|${PREFIX}${UPPER}+${LOWER}*${suffix}|\\p{N}${count}|${SIGNS}[\\r\\n/]*|${SPACES}`;

export interface PreTokenizer {
  /** llama.cpp's names, in files `tokenizer.ggml.pre`; the first is written. */
  readonly names: readonly string[];
  /** A text is cut where the first matches, the rest where the next does, and so on. */
  readonly patterns: readonly string[];
  /** A part that is a token is one, whatever the merges say. */
  readonly ignoreMerges: boolean;
  /** The text is composed first (NFC). llama.cpp leaves that out. */
  readonly composed?: boolean;
  /** llama.cpp takes a combining mark for no part of a word. */
  readonly cutsMarks?: boolean;
  /** Whether llama.cpp begins a text with the first token where the file does not say. */
  readonly addsBegin?: boolean;
}

export const PRE_TOKENIZERS: readonly PreTokenizer[] = [
  {
    names: ["gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion", "granite-docling", "exaone4"],
    patterns: [GPT2],
    ignoreMerges: false,
  },
  {
    names: ["smollm", "refact", "starcoder", "command-r", "codeshell", "exaone", "minerva-7b"],
    patterns: ["\\p{N}", GPT2],
    ignoreMerges: false,
  },
  {
    names: ["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"],
    patterns: [digits("{1,3}")],
    ignoreMerges: true,
    addsBegin: true,
  },
  { names: ["dbrx", "smaug-bpe"], patterns: [digits("{1,3}")], ignoreMerges: false },
  {
    names: ["qwen2", "deepseek-r1-qwen", "megrez"],
    patterns: [digits("")],
    ignoreMerges: false,
    composed: true,
  },
  { names: ["tekken"], patterns: [cased("", "")], ignoreMerges: true, cutsMarks: true, addsBegin: true },
  { names: ["gpt-4o", "llama4"], patterns: [cased(`${CONTRACTIONS}?`, "{1,3}")], ignoreMerges: false, cutsMarks: true },
];

/** Other ways to write what matches the same. */
const ALIKE: readonly (readonly [RegExp, string])[] = [
  [/\r/g, "\\r"],
  [/\n/g, "\\n"],
  [/([?*+]|\{\d+(?:,\d*)?\})\+/g, "$1"], // possessive: nothing that these patterns give up would match otherwise
  [/'\(\?i:\[sdmt\]\|ll\|ve\|re\)/g, CONTRACTIONS],
  [/\(\?:'\[sS\]\|'\[tT\]\|'\[rR\]\[eE\]\|'\[vV\]\[eE\]\|'\[mM\]\|'\[lL\]\[lL\]\|'\[dD\]\)/g, CONTRACTIONS],
  [/\|\\s\*\[\\r\\n\]\|/g, "|\\s*[\\r\\n]+|"], // the first part takes all but the last line's end anyway
  [/\\p\{N\}\{1\}/g, "\\p{N}"],
];

const canonical = (pattern: string): string =>
  ALIKE.reduce((text, [form, plain]) => text.replace(form, plain), pattern);

const NAMED: ReadonlySet<string> = new Set(PRE_TOKENIZERS.flatMap(({ patterns }) => patterns));

/** Whether llama.cpp has a name for what is cut so, however it is written. */
export const isNamedPattern = (pattern: string): boolean => NAMED.has(canonical(pattern));

type Json = Readonly<Record<string, unknown>>;

/** The patterns of a pre-tokenizer of bytes; undefined: it does something else. */
function patternsOf(step: Json | null): string[] | undefined {
  if (step === null) return [];
  if (step.type === "Sequence") {
    const parts = (step.pretokenizers as Json[]).map(patternsOf);
    return parts.includes(undefined) ? undefined : (parts as string[][]).flat();
  }
  if (step.type === "Digits") return step.individual_digits === true ? ["\\p{N}"] : undefined;
  if (step.type === "ByteLevel") {
    if (step.add_prefix_space === true) return undefined;
    return step.use_regex === false ? [] : [GPT2];
  }
  if (step.type !== "Split") return undefined;
  const pattern = (step.pattern as Json | undefined)?.Regex;
  const whole = step.invert === true ? step.behavior === "Removed" : step.behavior === "Isolated";
  return typeof pattern === "string" && whole ? [canonical(pattern)] : undefined;
}

const ofBytes = (step: Json | null): boolean =>
  step?.type === "ByteLevel" || (step?.type === "Sequence" && (step.pretokenizers as Json[]).some(ofBytes));

/** What llama.cpp calls the way in which a tokenizer of bytes cuts a text; undefined: it has none such. */
export function preTokenizerOf(step: Json | null, ignoreMerges: boolean): PreTokenizer | undefined {
  const patterns = ofBytes(step) ? patternsOf(step)?.join("\n") : undefined;
  const alike = PRE_TOKENIZERS.filter((one) => one.patterns.join("\n") === patterns);
  return alike.find((one) => one.ignoreMerges === ignoreMerges);
}

/** As tokenizer.json has it. */
export const preTokenizerJson = ({ patterns }: PreTokenizer): Json => ({
  type: "Sequence",
  pretokenizers: [
    ...patterns.map((Regex) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false })),
    { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
  ],
});
