/** The CUDA kernels, and whether each has passed its checks on a GPU. Written by scripts/passed-kernels.cjs from bench/results. */
export const CUDA_KERNELS: Readonly<Record<string, boolean>> = {
  "policy-tokens": false,
  "rows-plain": false,
  "rows-resident": false,
};
