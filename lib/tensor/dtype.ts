/** Element types of tensors. f16 and bf16 live in a Uint16Array as raw bits. */
export type DType = "f32" | "f16" | "bf16";

/** rlsd_dtype of csrc/include/rlsd/rlsd.h. */
export const DTYPE_CODES: Readonly<Record<DType, number>> = { f32: 0, f16: 1, bf16: 2 };

/** What was expected, for an error. */
export const DTYPES_TEXT = '"f32", "f16" or "bf16"';

export function isDType(value: unknown): value is DType {
  return value === "f32" || value === "f16" || value === "bf16";
}
