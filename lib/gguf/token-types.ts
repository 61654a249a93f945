import { RlsdError } from "../errors.js";

/** `tokenizer.ggml.token_type`. */
export const TOKEN = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** What stands for a space in tokens of a SentencePiece tokenizer. */
export const SPACE = "\u2581";

export const isByte = (token: string): boolean => /^<0x[0-9A-F]{2}>$/.test(token);

export const byteToken = (byte: number): string => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;

/** Tokens that have a part of their own, beside those that begin and end a text, by their names in tokenizer_config.json. */
export const SPECIALS = {
  unk_token: "unknown_token_id",
  sep_token: "seperator_token_id", // so the format spells it
  pad_token: "padding_token_id",
  mask_token: "mask_token_id",
} as const;

export const tokenizerError = (message: string): RlsdError => new RlsdError("ERR_RLSD_TOKENIZER", message);
