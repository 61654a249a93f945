/** The GGUF format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3. */

export const MAGIC = "GGUF";
export const VERSION = 3;
/** Where `general.alignment` does not say it: each tensor's data begin at a multiple. Bytes. */
export const ALIGNMENT = 32;

/** Types of metadata by the numbers that files have for them, with their bytes; null: of any length. */
export const VALUE_TYPES = {
  u8: { code: 0, bytes: 1 },
  i8: { code: 1, bytes: 1 },
  u16: { code: 2, bytes: 2 },
  i16: { code: 3, bytes: 2 },
  u32: { code: 4, bytes: 4 },
  i32: { code: 5, bytes: 4 },
  f32: { code: 6, bytes: 4 },
  bool: { code: 7, bytes: 1 },
  string: { code: 8, bytes: null },
  array: { code: 9, bytes: null },
  u64: { code: 10, bytes: 8 },
  i64: { code: 11, bytes: 8 },
  f64: { code: 12, bytes: 8 },
} as const;
export type ValueType = keyof typeof VALUE_TYPES;

/** A tensor's type: numbers come in blocks of so many, each block in so many bytes. */
export interface TensorType {
  readonly name: string;
  readonly blockSize: number;
  readonly blockBytes: number;
}

const type = (name: string, blockSize: number, blockBytes: number): TensorType => ({ name, blockSize, blockBytes });

/** Types of tensors that are read, by the numbers that files have for them. */
export const TENSOR_TYPES: ReadonlyMap<number, TensorType> = new Map([
  [0, type("F32", 1, 4)],
  [1, type("F16", 1, 2)],
  [2, type("Q4_0", 32, 18)],
  [3, type("Q4_1", 32, 20)],
  [6, type("Q5_0", 32, 22)],
  [7, type("Q5_1", 32, 24)],
  [8, type("Q8_0", 32, 34)],
  [10, type("Q2_K", 256, 84)],
  [11, type("Q3_K", 256, 110)],
  [12, type("Q4_K", 256, 144)],
  [13, type("Q5_K", 256, 176)],
  [14, type("Q6_K", 256, 210)],
  [30, type("BF16", 1, 2)],
]);

/** Names of others, for errors. */
export const OTHER_TYPES: ReadonlyMap<number, string> = new Map([
  [4, "Q4_2"],
  [5, "Q4_3"],
  [9, "Q8_1"],
  [15, "Q8_K"],
  [16, "IQ2_XXS"],
  [17, "IQ2_XS"],
  [18, "IQ3_XXS"],
  [19, "IQ1_S"],
  [20, "IQ4_NL"],
  [21, "IQ3_S"],
  [22, "IQ2_S"],
  [23, "IQ4_XS"],
  [24, "I8"],
  [25, "I16"],
  [26, "I32"],
  [27, "I64"],
  [28, "F64"],
  [29, "IQ1_M"],
  [34, "TQ1_0"],
  [35, "TQ2_0"],
  [39, "MXFP4"],
  [40, "NVFP4"],
]);

/** Those that are written. */
export const WRITTEN = { F32: 0, F16: 1, Q8_0: 8, BF16: 30 } as const;
export type WrittenType = keyof typeof WRITTEN;

export const typeOf = (name: WrittenType): TensorType => TENSOR_TYPES.get(WRITTEN[name]) as TensorType;

/** Bytes of so many numbers; whole blocks. */
export const bytesOf = ({ blockSize, blockBytes }: TensorType, count: number): number =>
  (count / blockSize) * blockBytes;

export const aligned = (bytes: number, to: number): number => Math.ceil(bytes / to) * to;
