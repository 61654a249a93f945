/** (f(x + h e_i) - f(x - h e_i)) / 2h for every i; `x` is changed during the call and put back. */
export function centralDifferences(f: () => number, x: Float64Array, h = 1e-5): Float64Array {
  return x.map((value, i) => {
    x[i] = value + h;
    const above = f();
    x[i] = value - h;
    const below = f();
    x[i] = value;
    return (above - below) / (2 * h);
  });
}
