import type { EngineLayout } from "../native/engine-binding.js";
import type { Decoding } from "./gguf/sources.js";
import type { TensorEntry } from "./safetensors.js";

/** A parameter of the model and where its data lies. */
export interface ParameterSource {
  readonly name: string;
  readonly file: string;
  readonly entry: TensorEntry;
  /** Of a GGUF file. Absent: the data are the parameter's numbers, as they are. */
  readonly decoding?: Decoding | undefined;
}

export const shapeOf = (layout: EngineLayout, i: number): number[] =>
  layout.rows[i] === 0 ? [layout.columns[i] as number] : [layout.rows[i] as number, layout.columns[i] as number];
