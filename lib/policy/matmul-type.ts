/** Types that the factors of matrix products may be rounded to. */
export const MATMUL_TYPES = ["f32", "bf16"] as const;
