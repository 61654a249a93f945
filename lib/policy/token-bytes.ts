/** Puts the bytes that a token stands for behind those in `out`. */
type Append = (token: string, out: number[]) => void;

/** Decoding token by token: the text is that of all bytes together. */
export interface ByteDecoder {
  readonly append: Append;
  /** What is taken away from the front of the whole text, and how often at most. */
  readonly strip: { readonly content: string; readonly count: number };
}

interface Part {
  readonly type?: unknown;
  readonly decoders?: unknown;
  readonly pattern?: { readonly String?: unknown };
  readonly content?: unknown;
  readonly start?: unknown;
  readonly stop?: unknown;
}

/** GPT-2's `bytes_to_unicode` the other way: printable characters of Latin-1 are their own byte, the other bytes follow from U+0100 on. */
const BYTE_OF: ReadonlyMap<number, number> = (() => {
  const printable = (byte: number) => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const hidden = bytes.filter((byte) => !printable(byte));
  return new Map([
    ...bytes.filter(printable).map((byte) => [byte, byte] as const),
    ...hidden.map((byte, i) => [0x100 + i, byte] as const),
  ]);
})();

/** And that way: the character of every byte. */
const CHARACTERS: readonly string[] = [...BYTE_OF]
  .sort(([, a], [, b]) => a - b)
  .map(([code]) => String.fromCharCode(code));

/** A text as the characters that stand for its bytes. */
export function byteLevelText(text: string): string {
  let out = "";
  for (const byte of Buffer.from(text, "utf8")) out += CHARACTERS[byte];
  return out;
}

const appendText: Append = (text, out) => {
  for (const byte of Buffer.from(text, "utf8")) out.push(byte);
};

/** A token with a character that stands for no byte is text as it is, as in the library `tokenizers`. */
const appendByteLevel: Append = (token, out) => {
  const start = out.length;
  for (let i = 0; i < token.length; i++) {
    const byte = BYTE_OF.get(token.charCodeAt(i));
    if (byte === undefined) {
      out.length = start;
      appendText(token, out);
      return;
    }
    out.push(byte);
  }
};

const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;

const appendWithFallback: Append = (token, out) => {
  const byte = BYTE_TOKEN.exec(token);
  if (byte === null) appendText(token, out);
  else out.push(Number.parseInt(byte[1]!, 16));
};

/** `append` behind the replacement of one text by another. */
function replacing({ pattern, content }: Part, append: Append): Append | undefined {
  const from = pattern?.String;
  if (typeof from !== "string" || from === "" || typeof content !== "string") return undefined;
  return (token, out) => append(token.replaceAll(from, content), out);
}

/** What a Strip at the end takes from the front. */
function stripOf({ content, start, stop }: Part): ByteDecoder["strip"] | undefined {
  if (typeof content !== "string" || content.length !== 1 || typeof start !== "number" || stop !== 0) return undefined;
  return { content, count: start };
}

const SEQUENCE = /^(Replace,)*(ByteLevel|ByteFallback,Fuse)(,Fuse)?(,Strip)?$/;
const NO_STRIP = { content: "", count: 0 };

/**
 * The decoder of a `tokenizer.json` where it gives every token bytes of its own, whatever stands beside it: ByteLevel, as most
 * language models have it, or Replace, ByteFallback, Fuse and perhaps Strip, as Llama 2, Mistral, Phi 3 and Gemma. undefined: another.
 */
export function byteDecoder(decoder: unknown): ByteDecoder | undefined {
  if (typeof decoder !== "object" || decoder === null) return undefined;
  const { type, decoders } = decoder as Part;
  const parts = (type === "Sequence" && Array.isArray(decoders) ? decoders : [decoder]) as readonly Part[];
  const found = SEQUENCE.exec(parts.map((part) => part.type).join());
  if (found === null) return undefined;
  const last = parts.at(-1)!;
  const strip = last.type === "Strip" ? stripOf(last) : NO_STRIP;
  const bytes = found[2] === "ByteLevel" ? appendByteLevel : appendWithFallback;
  const append = parts
    .filter((part) => part.type === "Replace")
    .reduceRight<Append | undefined>((then, part) => then && replacing(part, then), bytes);
  return append && strip && { append, strip };
}
