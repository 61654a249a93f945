import { isObject } from "../check.js";

type Detail = Readonly<Record<string, unknown>>;

/** What the verifier said besides the reward; of a sum or a gate each part with its own. */
export function detailText(detail: Detail): string {
  const told = Object.entries(detail).flatMap(([name, value]) => {
    if (["string", "number", "boolean"].includes(typeof value)) return [`${name} ${String(value).slice(0, 200)}`];
    if (!isObject(value) || !("reward" in value)) return [];
    const inner = isObject(value.detail) ? detailText(value.detail) : "";
    return [`${name} ${value.reward ?? "none"}${inner && ` (${inner})`}`];
  });
  return told.join(", ");
}
