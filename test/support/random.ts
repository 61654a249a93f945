/** Numbers that a seed decides: the same on every machine and run. */
export interface SeededRandom {
  /** In [0, 1). */
  uniform(): number;
  normal(): number;
  /** An integer in [0, below). */
  integer(below: number): number;
  uniforms(count: number, low: number, high: number): Float64Array;
  normals(count: number, scale?: number): Float64Array;
}

/** mulberry32: 32 bits of state, good enough to choose test inputs. */
export function seededRandom(seed: number): SeededRandom {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return {
    uniform,
    normal,
    integer: (below) => Math.floor(uniform() * below),
    uniforms: (count, low, high) => Float64Array.from({ length: count }, () => low + (high - low) * uniform()),
    normals: (count, scale = 1) => Float64Array.from({ length: count }, () => scale * normal()),
  };
}
