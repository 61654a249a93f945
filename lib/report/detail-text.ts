type Detail = Readonly<Record<string, unknown>>;

const isDetail = (value: unknown): value is Detail =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What the verifier said besides the reward; of a sum or a gate each part with its own. */
export function detailText(detail: Detail): string {
  const told = Object.entries(detail).flatMap(([name, value]) => {
    if (["string", "number", "boolean"].includes(typeof value)) return [`${name} ${String(value).slice(0, 200)}`];
    if (!isDetail(value) || !("reward" in value)) return [];
    const inner = isDetail(value.detail) ? detailText(value.detail) : "";
    return [`${name} ${value.reward ?? "none"}${inner && ` (${inner})`}`];
  });
  return told.join(", ");
}
