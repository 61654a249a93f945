import { RlsdError } from "../../errors.js";
import { readGguf } from "../../gguf/read.js";
import type { TensorType } from "../../gguf/types.js";
import type { EngineLayout } from "../../native/engine-binding.js";
import { ARCHITECTURES } from "../architecture.js";
import type { ModelConfig } from "../config.js";
import { fileError } from "../safetensors.js";
import type { ParameterSource } from "../sources.js";
import { shapeOf } from "../sources.js";
import { GGUF_ARCHITECTURES } from "./architectures.js";
import { ggufName, headsOf, isNorm } from "./names.js";
import { LONG_FACTORS, ROPE_FACTORS, SHORT_FACTORS } from "./rope-metadata.js";

/** How a tensor of a GGUF file becomes a parameter. */
export interface Decoding {
  readonly type: TensorType;
  /** Rows of a head that lie in pairs; undefined: they lie as they should. */
  readonly pairedRows: number | undefined;
  /** What norms have in the file beside their weight. */
  readonly offset: number;
}

/** Read with the shape, or of no use. */
const OTHERS = new Set([ROPE_FACTORS, LONG_FACTORS, SHORT_FACTORS]);

/** Where each parameter of the layout lies in a GGUF file, in the layout's order, all of it checked. */
export async function ggufParameters(
  file: string,
  config: ModelConfig,
  layout: EngineLayout,
): Promise<ParameterSource[]> {
  const tensors = new Map((await readGguf(file)).tensors);
  const { modelType, headDim } = config;
  const found = layout.names.map((name, i): ParameterSource => {
    const own = ggufName(modelType, name);
    const tensor = tensors.get(own);
    const shape = shapeOf(layout, i).join(", ");
    if (tensor === undefined) {
      throw fileError(file, `tensor "${own}" is missing: expected [${shape}], as its metadata say`);
    }
    const { type, start, end } = tensor;
    const came = tensor.shape.join(", ");
    if (came !== shape) throw fileError(file, `tensor "${own}": expected [${shape}] but found [${came}]`);
    if (tensor.shape.length === 1 && type.blockSize > 1) {
      throw fileError(file, `tensor "${own}": expected no ${type.name} but F32`);
    }
    tensors.delete(own);
    const paired = GGUF_ARCHITECTURES[modelType].paired && headsOf(name) !== undefined;
    const offset = isNorm(name) ? ARCHITECTURES[modelType].normOffset : 0;
    const decoding = { type, pairedRows: paired ? headDim : undefined, offset };
    return { name, file, entry: { dtype: type.name, shape: tensor.shape, start, end }, decoding };
  });
  const extra = [...tensors.keys()].find((name) => !OTHERS.has(name));
  if (extra === undefined) return found;
  const message = `${file}: tensor "${extra}" has no place in a ${modelType} decoder as its metadata describe it`;
  throw new RlsdError("ERR_RLSD_UNSUPPORTED_MODEL", message);
}
