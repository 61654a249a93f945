import { MOVES } from "./clock.js";

const SPECIALS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"];

/** A step is one move, one sign and one hour: the tokens are as large as the task allows, and the text stays plain. */
const WORDS = [
  "Clock at ",
  ", then",
  ".",
  " Reference: ",
  " = ",
  "\nAnswer: ",
  ...Array.from({ length: 12 }, (_, i) => String(i + 1)),
  ...["+", "-"].flatMap((sign) => Array.from({ length: 9 }, (_, i) => ` ${sign} ${i + 1}`)),
];

const escaped = (word: string) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

function tokenizerJson(): string {
  const vocab = Object.fromEntries([...SPECIALS, ...WORDS].map((word, id) => [word, id]));
  const added = SPECIALS.map((content, id) => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  }));
  // The longest words first, so that 12 is not read as 1 and 2.
  const pattern = WORDS.toSorted((a, b) => b.length - a.length).map(escaped);
  return JSON.stringify({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: { type: "Split", pattern: { Regex: pattern.join("|") }, behavior: "Isolated", invert: false },
    post_processor: null,
    decoder: { type: "Fuse" },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: true,
      vocab,
      merges: [],
    },
  });
}

const CHAT_TEMPLATE =
  "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% if message.role == 'assistant' %}<|end|>" +
  "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

export const END_TOKEN = "<|end|>";

/** What the teacher of the example reads in place of the question. */
export const PRIVILEGED_TEMPLATE = "{{ content }} Reference: {{ privileged }}";

/** Start, three tokens a move, the answer's mark, the answer, the end. */
export const COMPLETION_TOKENS = 1 + 3 * MOVES + 3;

/** 88 thousand parameters. */
export const MODEL = {
  modelType: "llama" as const,
  vocabSize: 48,
  hiddenSize: 64,
  intermediateSize: 128,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 4,
  headDim: 16,
  maxLength: 128,
  endTokenIds: [SPECIALS.indexOf(END_TOKEN)],
};

/** The files that go with the weights. */
export const MODEL_FILES: Readonly<Record<string, string>> = {
  "tokenizer.json": tokenizerJson(),
  "tokenizer_config.json": JSON.stringify({ eos_token: END_TOKEN, pad_token: "<|pad|>" }),
  "chat_template.jinja": CHAT_TEMPLATE,
};
