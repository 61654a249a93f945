import { checkBoolean, checkInteger, checkNumber, checkObject, invalid } from "../check.js";
import { ARCHITECTURES, type ModelType } from "./architecture.js";
import { type Multipliers, modelTypeOf, writeConfig } from "./config.js";
import { Fields } from "./config-fields.js";
import type { PlainRope } from "./rope.js";
import { newLayers } from "./window.js";

/** Layers that see the tokens near their own alone. */
export interface NewSlidingWindow {
  /** Tokens that a query sees, its own included. */
  readonly size: number;
  /** One a layer: whether it slides. */
  readonly layers?: readonly boolean[] | undefined;
}

/**
 * Shape of a new decoder. q, k and v have biases in a qwen2; queries and keys have norms in a qwen3, a gemma3_text, an olmo2 and an
 * olmo3.
 */
export interface NewModelConfig {
  /** Default "llama". */
  readonly modelType?: ModelType | undefined;
  /** V: rows of the embedding and of the head. */
  readonly vocabSize: number;
  /** H: numbers that stand for a token between layers. */
  readonly hiddenSize: number;
  /** Default 4 hiddenSize. */
  readonly intermediateSize?: number | undefined;
  readonly numLayers: number;
  readonly numHeads: number;
  /** Default numHeads. */
  readonly numKvHeads?: number | undefined;
  /** Default hiddenSize / numHeads. */
  readonly headDim?: number | undefined;
  /** Longest sequence, prompt and completion together. */
  readonly maxLength: number;
  /** Default 1e-6. */
  readonly normEps?: number | undefined;
  /** Default false. */
  readonly tieEmbeddings?: boolean | undefined;
  /** All but mistral, qwen2 and phi3: biases on q, k, v and attention's output. Default false. */
  readonly attentionBias?: boolean | undefined;
  /** llama, smollm3 and granite: biases in the feed-forward part. Default false. */
  readonly mlpBias?: boolean | undefined;
  /** Default { type: "default", theta: 10000 }. */
  readonly rope?: PlainRope | undefined;
  /** gemma3_text and olmo3: of the layers that slide. Default { type: "default", theta: 10000 }. */
  readonly localRope?: PlainRope | undefined;
  /** gemma3_text: attention's scores are divided by its square root. Default headDim. */
  readonly queryScalar?: number | undefined;
  /** phi3: numbers of each head that are rotated, its first ones. Default headDim. */
  readonly rotaryDim?: number | undefined;
  /** granite alone. Default 1, attention 1 / sqrt(headDim). */
  readonly multipliers?: Partial<Multipliers> | undefined;
  /** smollm3: every so manieth layer has no rotary positions; 0: all have. Default 4. */
  readonly noRopeInterval?: number | undefined;
  /**
   * All but llama, olmo2 and granite: layers whose queries see `size` tokens, their own included. `layers` says which; default
   * all, in a gemma3_text all but every sixth, in an olmo3 all but every fourth. Default: none.
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
  "localRope",
  "queryScalar",
  "multipliers",
  "rotaryDim",
  "noRopeInterval",
  "slidingWindow",
  "endTokenIds",
]);

const CONFIG_NUMBERS = ["vocabSize", "hiddenSize", "intermediateSize", "numLayers", "numHeads", "numKvHeads"] as const;
const MORE_NUMBERS = ["headDim", "maxLength", "normEps"] as const;
const CONFIG_FLAGS = ["tieEmbeddings", "attentionBias", "mlpBias"] as const;

const MULTIPLIERS = ["embedding", "attention", "residual", "logitsScaling"] as const;
const MULTIPLIER_FIELDS = new Set<string>(MULTIPLIERS);

function checkMultipliers(multipliers: Partial<Multipliers>, modelType: unknown): void {
  if (modelType !== "granite") throw invalid("nothing, but in a granite,", "config.multipliers", multipliers);
  checkObject(multipliers, "config.multipliers", MULTIPLIER_FIELDS);
  for (const name of MULTIPLIERS) {
    if (multipliers[name] !== undefined) checkNumber(multipliers[name], `config.multipliers.${name}`, { above: 0 });
  }
}

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

/** The models that may have a field. */
const OWNERS = { queryScalar: ["gemma3_text"], localRope: ["gemma3_text", "olmo3"], rotaryDim: ["phi3"] } as const;

function checkRope(rope: PlainRope | undefined, name: string): void {
  if (rope === undefined) return;
  if (typeof rope !== "object" || rope === null || typeof rope.type !== "string") {
    throw invalid("an object with type and theta", name, rope);
  }
  if ((rope.type as string) === "longrope") throw invalid("another type for a new model", `${name}.type`, rope.type);
  for (const [field, value] of Object.entries(rope)) {
    if (field === "truncate") checkBoolean(value, `${name}.${field}`);
    else if (field !== "type" && value !== undefined) checkNumber(value, `${name}.${field}`);
  }
  checkNumber(rope.theta, `${name}.theta`, { above: 0 });
}

/** Types alone, which JSON would not keep: it says null for NaN. What fits a model is checked as that of a file. */
function checkTypes(c: NewModelConfig): void {
  checkObject(c, "config", CONFIG_FIELDS);
  for (const name of [...CONFIG_NUMBERS, ...MORE_NUMBERS]) {
    if (c[name] !== undefined) checkNumber(c[name], `config.${name}`);
  }
  for (const name of CONFIG_FLAGS) checkBoolean(c[name], `config.${name}`);
  const { modelType, endTokenIds, noRopeInterval } = c;
  checkWindow(c.slidingWindow);
  if (modelType !== undefined && typeof modelType !== "string") throw invalid("a text", "config.modelType", modelType);
  if (noRopeInterval !== undefined) {
    checkInteger(noRopeInterval, "config.noRopeInterval", { min: 0 });
    if (modelType !== "smollm3") throw invalid("nothing, but in a smollm3,", "config.noRopeInterval", noRopeInterval);
  }
  if (c.multipliers !== undefined) checkMultipliers(c.multipliers, modelType);
  if (c.queryScalar !== undefined) checkInteger(c.queryScalar, "config.queryScalar", { min: 1 });
  if (c.rotaryDim !== undefined) checkInteger(c.rotaryDim, "config.rotaryDim", { min: 2 });
  for (const name of ["queryScalar", "localRope", "rotaryDim"] as const) {
    if (c[name] === undefined || OWNERS[name].some((type) => type === modelType)) continue;
    const owners = OWNERS[name].map((type) => `${type.startsWith("o") ? "an" : "a"} ${type}`);
    throw invalid(`nothing, but in ${owners.join(" or ")},`, `config.${name}`, c[name]);
  }
  if (endTokenIds !== undefined) {
    if (!Array.isArray(endTokenIds)) throw invalid("an array of token ids", "config.endTokenIds", endTokenIds);
    for (const [i, id] of endTokenIds.entries()) checkInteger(id, `config.endTokenIds[${i}]`, { min: 0 });
  }
  checkRope(c.rope, "config.rope");
  checkRope(c.localRope, "config.localRope");
}

const PLAIN: PlainRope = { type: "default", theta: 10000 };

function completeMultipliers(given: Partial<Multipliers> = {}, headDim: number): Multipliers {
  const { embedding = 1, attention = 1 / Math.sqrt(headDim), residual = 1, logitsScaling = 1 } = given;
  return { embedding, attention, residual, logitsScaling };
}

/** As config.json, so that a new model and a loaded one are checked by the same rules. */
export function completeConfig(c: NewModelConfig): Record<string, unknown> {
  checkTypes(c);
  const { attentionBias = false, modelType = "llama", intermediateSize = 4 * c.hiddenSize } = c;
  const { numKvHeads = c.numHeads, headDim = Math.floor(c.hiddenSize / c.numHeads), normEps = 1e-6 } = c;
  const { tieEmbeddings = false, mlpBias = false, rope = PLAIN, endTokenIds = [], slidingWindow } = c;
  const architecture = ARCHITECTURES[modelTypeOf(new Fields({ model_type: modelType }, "config"))];
  const { localTheta, queryScalar, multipliers, partialRotary } = architecture;
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
    localRope: localTheta === undefined ? undefined : (c.localRope ?? PLAIN),
    queryScalar: queryScalar === undefined ? undefined : (c.queryScalar ?? headDim),
    rotaryDim: partialRotary ? (c.rotaryDim ?? headDim) : undefined,
    multipliers: multipliers ? completeMultipliers(c.multipliers, headDim) : undefined,
    endTokenIds,
    noRopeInterval: (c.noRopeInterval ?? 4) || undefined,
    slidingWindow: slidingWindow && {
      ...slidingWindow,
      layers: slidingWindow.layers ?? newLayers(modelType, c.numLayers),
    },
    outputBias: attentionBias,
    qkvBias: attentionBias,
    qkNorm: false,
  });
}
