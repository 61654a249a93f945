import { isUtf8 } from "node:buffer";

/** The text of bytes in UTF-8, without the mark that some programs put before it; undefined: they are in another encoding. */
export const utf8Text = (bytes: Buffer): string | undefined =>
  isUtf8(bytes) ? bytes.toString("utf8").replace(/^\ufeff/, "") : undefined;

export const NOT_UTF8 = "not UTF-8: save the file in that encoding";
