import { checkBoolean, checkInteger, checkNumber, checkObject, invalid } from "../check.js";
import { type ModelType, writeConfig } from "./config.js";
import type { RopeConfig } from "./rope.js";
import { allLayers } from "./window.js";

export interface NewSlidingWindow {
  readonly size: number;
  readonly layers?: readonly boolean[] | undefined;
}

/** Shape of a new decoder. q, k and v have biases in a qwen2; queries and keys have norms in a qwen3. */
export interface NewModelConfig {
  /** Default "llama". */
  readonly modelType?: ModelType | undefined;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  /** Default 4 hiddenSize. */
  readonly intermediateSize?: number | undefined;
  readonly numLayers: number;
  readonly numHeads: number;
  /** Default numHeads. */
  readonly numKvHeads?: number | undefined;
  /** Default hiddenSize / numHeads. */
  readonly headDim?: number | undefined;
  readonly maxLength: number;
  /** Default 1e-6. */
  readonly normEps?: number | undefined;
  /** Default false. */
  readonly tieEmbeddings?: boolean | undefined;
  /** llama, qwen3 and smollm3: biases on q, k, v and attention's output. Default false. */
  readonly attentionBias?: boolean | undefined;
  /** llama and smollm3: biases in the feed-forward part. Default false. */
  readonly mlpBias?: boolean | undefined;
  /** Default { type: "default", theta: 10000 }. */
  readonly rope?: RopeConfig | undefined;
  /** smollm3: every so manieth layer has no rotary positions; 0: all have. Default 4. */
  readonly noRopeInterval?: number | undefined;
  /**
   * mistral, qwen2, qwen3 and smollm3: layers whose queries see `size` tokens, their own included. `layers` says which;
   * default all. Default: none.
   */
  readonly slidingWindow?: NewSlidingWindow | undefined;
  /** Ids that end a completion. Default none. Those of a generation_config.json among the files go before them. */
  readonly endTokenIds?: readonly number[] | undefined;
}

const CONFIG_FIELDS = new Set([
  "modelType",
  "vocabSize",
  "hiddenSize",
  "intermediateSize",
  "numLayers",
  "numHeads",
  "numKvHeads",
  "headDim",
  "maxLength",
  "normEps",
  "tieEmbeddings",
  "attentionBias",
  "mlpBias",
  "rope",
  "noRopeInterval",
  "slidingWindow",
  "endTokenIds",
]);

const CONFIG_NUMBERS = ["vocabSize", "hiddenSize", "intermediateSize", "numLayers", "numHeads", "numKvHeads"] as const;
const MORE_NUMBERS = ["headDim", "maxLength", "normEps"] as const;
const CONFIG_FLAGS = ["tieEmbeddings", "attentionBias", "mlpBias"] as const;

const WINDOW_FIELDS = new Set(["size", "layers"]);

function checkWindow(window: NewSlidingWindow | undefined): void {
  if (window === undefined) return;
  checkObject(window, "config.slidingWindow", WINDOW_FIELDS);
  checkInteger(window.size, "config.slidingWindow.size", { min: 1 });
  const { layers } = window;
  if (layers === undefined) return;
  if (!Array.isArray(layers)) throw invalid("an array of booleans", "config.slidingWindow.layers", layers);
  for (const [i, slides] of layers.entries()) {
    if (typeof slides !== "boolean") throw invalid("a boolean", `config.slidingWindow.layers[${i}]`, slides);
  }
}

/** Types alone, which JSON would not keep: it says null for NaN. What fits a model is checked as that of a file. */
function checkTypes(c: NewModelConfig): void {
  checkObject(c, "config", CONFIG_FIELDS);
  for (const name of [...CONFIG_NUMBERS, ...MORE_NUMBERS]) {
    if (c[name] !== undefined) checkNumber(c[name], `config.${name}`);
  }
  for (const name of CONFIG_FLAGS) checkBoolean(c[name], `config.${name}`);
  const { modelType, endTokenIds, rope, noRopeInterval } = c;
  checkWindow(c.slidingWindow);
  if (modelType !== undefined && typeof modelType !== "string") throw invalid("a text", "config.modelType", modelType);
  if (noRopeInterval !== undefined) {
    checkInteger(noRopeInterval, "config.noRopeInterval", { min: 0 });
    if (modelType !== "smollm3") throw invalid("nothing, but in a smollm3,", "config.noRopeInterval", noRopeInterval);
  }
  if (endTokenIds !== undefined) {
    if (!Array.isArray(endTokenIds)) throw invalid("an array of token ids", "config.endTokenIds", endTokenIds);
    for (const [i, id] of endTokenIds.entries()) checkInteger(id, `config.endTokenIds[${i}]`, { min: 0 });
  }
  if (rope === undefined) return;
  if (typeof rope !== "object" || rope === null || typeof rope.type !== "string") {
    throw invalid("an object with type and theta", "config.rope", rope);
  }
  for (const [name, value] of Object.entries(rope)) if (name !== "type") checkNumber(value, `config.rope.${name}`);
  checkNumber(rope.theta, "config.rope.theta", { above: 0 });
}

/** As config.json, so that a new model and a loaded one are checked by the same rules. */
export function completeConfig(c: NewModelConfig): Record<string, unknown> {
  checkTypes(c);
  const { attentionBias = false, modelType = "llama", intermediateSize = 4 * c.hiddenSize } = c;
  const { numKvHeads = c.numHeads, headDim = Math.floor(c.hiddenSize / c.numHeads), normEps = 1e-6 } = c;
  const { tieEmbeddings = false, mlpBias = false, rope = { type: "default", theta: 10000 }, endTokenIds = [] } = c;
  return writeConfig({
    ...c,
    modelType,
    intermediateSize,
    numKvHeads,
    headDim,
    normEps,
    tieEmbeddings,
    mlpBias,
    rope,
    endTokenIds,
    noRopeInterval: (c.noRopeInterval ?? 4) || undefined,
    slidingWindow: c.slidingWindow && { ...c.slidingWindow, layers: c.slidingWindow.layers ?? allLayers(c.numLayers) },
    outputBias: attentionBias,
    qkvBias: attentionBias,
    qkNorm: false,
  });
}
