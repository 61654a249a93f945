import type { ModelType } from "./architecture.js";
import type { ModelConfig } from "./config.js";
import type { Fields } from "./config-fields.js";

/** Layers whose queries see the last tokens alone. */
export interface SlidingWindow {
  /** Tokens that a query of such a layer sees, its own included. */
  readonly size: number;
  /** By layer: whether it slides. At least one does. */
  readonly layers: readonly boolean[];
}

const FULL = "full_attention";
const SLIDING = "sliding_attention";

/** What a model's files say of windows, and what transformers takes where they say nothing. */
interface WindowRules {
  /** A field that must be true for `sliding_window` to count. Absent: it always does. */
  readonly enabledBy?: string;
  /** Where `sliding_window` is left out; null, there or in the file, is none, unless `required`. */
  readonly size: number | null;
  /** It is a number, though no layer may slide. */
  readonly required?: boolean;
  /** Which layers slide where `layer_types` does not say. */
  readonly layer: (f: Fields, i: number, rotates: boolean) => boolean;
  /** Whether its layers may differ, as `layer_types` says. */
  readonly mixed: boolean;
  /** In a new model, where its maker names none, every so manieth layer sees all. */
  readonly pattern?: number;
}

/** Every so manieth layer sees all, where the file does not say another number under the name that it may have. */
const patterned = (pattern: number, field?: string): WindowRules => ({
  size: 4096,
  required: true,
  layer: (f, i) => (i + 1) % (field === undefined ? pattern : f.size(field, pattern)) !== 0,
  mixed: true,
  pattern,
});

const aboveFirst = (f: Fields, i: number): boolean => i >= f.number("max_window_layers", 28);
const QWEN: WindowRules = { enabledBy: "use_sliding_window", size: 4096, layer: aboveFirst, mixed: true };

/** Of the models that have windows. */
const RULES: Readonly<Partial<Record<ModelType, WindowRules>>> = {
  mistral: { size: 4096, layer: () => true, mixed: false },
  phi3: { size: null, layer: () => true, mixed: false },
  qwen2: QWEN,
  qwen3: QWEN,
  olmo3: patterned(4),
  gemma3_text: patterned(6, "sliding_window_pattern"),
  smollm3: { enabledBy: "use_sliding_window", size: null, layer: (_, __, rotates) => !rotates, mixed: true },
};

const rotatesAt = (interval: number | undefined, i: number): boolean =>
  interval === undefined || (i + 1) % interval !== 0;

function listedLayers(f: Fields, layers: number): boolean[] | undefined {
  const listed = f.get("layer_types");
  if (listed === undefined) return undefined;
  if (!Array.isArray(listed) || listed.length !== layers) {
    throw f.fail(`expected a list of ${layers} for layer_types but found ${JSON.stringify(listed)}`);
  }
  const foreign = listed.find((kind) => kind !== FULL && kind !== SLIDING);
  if (foreign === undefined) return listed.map((kind) => kind === SLIDING);
  throw f.fail(`layer_types ${JSON.stringify(foreign)} is not supported: expected "${FULL}" or "${SLIDING}"`);
}

/** Undefined: every layer sees all. */
export function parseWindow(
  f: Fields,
  type: ModelType,
  layers: number,
  noRopeInterval: number | undefined,
): SlidingWindow | undefined {
  const rules = RULES[type];
  const listed = listedLayers(f, layers);
  if (rules === undefined) {
    f.only("use_sliding_window", false);
    if (listed?.includes(true)) throw f.fail(`layer_types "${SLIDING}" is not supported in models of type ${type}`);
    return undefined;
  }
  const counts = rules.enabledBy === undefined || f.boolean(rules.enabledBy, false);
  const none = f.has("sliding_window") ? f.get("sliding_window") === undefined : rules.size === null;
  const size = counts && (rules.required || !none) ? f.size("sliding_window", rules.size ?? undefined) : undefined;
  const usual = Array.from(
    { length: layers },
    (_, i) => size !== undefined && rules.layer(f, i, rotatesAt(noRopeInterval, i)),
  );
  const sliding = listed ?? usual;
  if (!rules.mixed && sliding.some((slides, i) => slides !== usual[i])) {
    throw f.fail(`layer_types and sliding_window say different things: expected one of them, or both alike`);
  }
  if (!sliding.includes(true)) return undefined;
  if (size !== undefined) return { size, layers: sliding };
  const mend = rules.enabledBy === undefined ? "a sliding_window" : `${rules.enabledBy} true and a sliding_window`;
  throw f.fail(`layer_types has "${SLIDING}": expected ${mend}`);
}

/** Those of a new model that slide, where its maker names none. */
export function newLayers(type: ModelType, layers: number): boolean[] {
  const pattern = RULES[type]?.pattern ?? layers + 1;
  return Array.from({ length: layers }, (_, i) => (i + 1) % pattern !== 0);
}

/** What config.json says of the window of a model that was made here; parseWindow refuses what its kind has not. */
export function windowFields({ modelType, slidingWindow, numLayers }: ModelConfig): Record<string, unknown> {
  const rules = RULES[modelType];
  const layers = slidingWindow?.layers ?? new Array<boolean>(numLayers).fill(false);
  const first = layers.includes(true) ? layers.indexOf(true) : layers.length;
  const mixed = layers.includes(true) && layers.includes(false);
  const listed = rules === undefined ? slidingWindow !== undefined : rules.mixed || mixed;
  return {
    ...(rules !== undefined && { sliding_window: slidingWindow?.size ?? (rules.required ? rules.size : null) }),
    ...(rules?.enabledBy !== undefined && { [rules.enabledBy]: slidingWindow !== undefined }),
    // For readers that are older than layer_types.
    ...(rules === QWEN && !layers.slice(first).includes(false) && { max_window_layers: first }),
    ...(listed && { layer_types: layers.map((slides) => (slides ? SLIDING : FULL)) }),
  };
}
