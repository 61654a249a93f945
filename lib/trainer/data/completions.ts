import { RlsdError } from "../../errors.js";
import type { Row } from "./read-rows.js";

/** The completions that a row brings along: `completion`, a text, or `completions`, a list of texts. */
export function completionsOf(row: Row): readonly string[] {
  const given = row.completions ?? (row.completion === undefined ? undefined : [row.completion]);
  if (Array.isArray(given) && given.every((one) => typeof one === "string")) return given;
  const columns = Object.keys(row).join(", ");
  throw new RlsdError(
    "ERR_RLSD_DATA",
    `expected "completion", a text, or "completions", a list of texts, among: ${columns}.`,
  );
}

/** How a row says that its completions ended: cut off where `finish` is "length". */
export const finishOf = (row: Row): "stop" | "length" => (row.finish === "length" ? "length" : "stop");
