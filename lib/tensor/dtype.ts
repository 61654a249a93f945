/** Element types of tensors. f16 and bf16 live in a Uint16Array as raw bits. */
export type DType = "f32" | "f16" | "bf16";
