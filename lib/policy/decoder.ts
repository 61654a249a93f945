import type { ByteDecoder } from "./token-bytes.js";

type Ids = ArrayLike<number>;

/** Ids to text, special tokens left out or not. */
export interface Decoder {
  decode(ids: Ids, skipSpecialTokens: boolean): string;
  /** Takes ids one at a time; gives the text that each completes. */
  stream(skipSpecialTokens: boolean): (id: number) => string;
}

/** The tokens of a vocabulary. */
export interface Vocabulary {
  /** undefined: no token has this id. */
  tokenOf(id: number): string | undefined;
  readonly special: ReadonlySet<number>;
}

/** Bytes that form no character become U+FFFD as they do in every decoder of the web, and a mark of byte order is text. */
const utf8 = () => new TextDecoder("utf-8", { ignoreBOM: true });

/** Takes away what stands at the front of a text that comes in pieces. */
function stripper({ content, count }: ByteDecoder["strip"]): (text: string) => string {
  let left = count;
  return (text) => {
    let at = 0;
    while (left > 0 && text[at] === content) {
      at++;
      left--;
    }
    if (at < text.length) left = 0;
    return at === 0 ? text : text.slice(at);
  };
}

/** One that gives every token bytes of its own: a text is decoded at once, and streamed without looking back. */
export function decoderOfBytes({ append, strip }: ByteDecoder, { tokenOf, special }: Vocabulary): Decoder {
  const add = (id: number, skip: boolean, out: number[]): void => {
    const token = skip && special.has(id) ? undefined : tokenOf(id);
    if (token !== undefined) append(token, out);
  };
  return {
    decode(ids, skip) {
      const bytes: number[] = [];
      for (let i = 0; i < ids.length; i++) add(ids[i]!, skip, bytes);
      return stripper(strip)(utf8().decode(Uint8Array.from(bytes)));
    },
    stream(skip) {
      const decoder = utf8();
      const stripped = stripper(strip);
      return (id) => {
        const bytes: number[] = [];
        add(id, skip, bytes);
        return bytes.length === 0 ? "" : stripped(decoder.decode(Uint8Array.from(bytes), { stream: true }));
      };
    },
  };
}

/** What a decoder shows for bytes that do not form a character (yet). */
const REPLACEMENT = "\ufffd";
/** A character has at most so many bytes, and so many tokens. */
const LONGEST_CHARACTER = 4;

/**
 * One whose tokens may look at their neighbours (a leading space): what a token adds is the difference between two texts of a
 * short window that starts at a place where the text was whole.
 */
export function decoderOfTokens(join: (ids: number[]) => string, { tokenOf, special }: Vocabulary): Decoder {
  const kept = (ids: Ids, skip: boolean) =>
    Array.from(ids).filter((id) => tokenOf(id) !== undefined && !(skip && special.has(id)));
  const decode = (ids: Ids, skip: boolean): string => {
    const known = kept(ids, skip);
    return known.length === 0 ? "" : join(known);
  };
  return {
    decode,
    stream(skip) {
      let window: number[] = [];
      let settled = 0;
      return (id) => {
        // One that is left out must not stand at the start of a window: what follows would lose its leading space.
        if (kept([id], skip).length === 0) return "";
        window.push(id);
        const before = decode(window.slice(0, settled), skip);
        const text = decode(window, skip);
        if (text.endsWith(REPLACEMENT) && window.length - settled < LONGEST_CHARACTER) return "";
        window = window.slice(settled);
        settled = window.length;
        return text.slice(before.length);
      };
    },
  };
}
