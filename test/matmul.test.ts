import { spawnSync } from "node:child_process";
import { bf16Bits, bf16Value, f16Bits, f16Value } from "../lib/rounding.js";
import type { DType } from "../lib/tensor/dtype.js";
import { compiler, cpuLibrary, testProgram } from "./support/cpu-library.js";
import { type SeededRandom, seededRandom } from "./support/random.js";

/** op(A) (m, k), op(B) (k, n) and C (m, n) as numbers, whatever order and dtype they are stored in. */
interface Product {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: Float64Array;
  readonly b: Float64Array;
  readonly c: Float64Array;
  readonly bias?: Float64Array | undefined;
  readonly beta: number;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  /** Of A, B and C. */
  readonly dtypes?: readonly [DType, DType, DType];
  /** Elements between the rows of every matrix that belong to nobody. */
  readonly padding?: number;
  readonly threads?: number;
  readonly workspaceShortBy?: number;
  /** What factors may be rounded to. */
  readonly factors?: DType;
}

interface Outcome {
  readonly status: number;
  /** C, and its bits. */
  readonly c: Float64Array;
  readonly bits: Uint32Array;
}

const codes: Readonly<Record<DType, number>> = { f32: 0, f16: 1, bf16: 2 };
const unitRoundoff: Readonly<Record<DType, number>> = { f32: 2 ** -24, f16: 2 ** -11, bf16: 2 ** -8 };
const toBits = { f16: f16Bits, bf16: bf16Bits };
const fromBits = { f16: f16Value, bf16: bf16Value };

function encode(values: ArrayLike<number>, dtype: DType): Uint8Array {
  const array = dtype === "f32" ? Float32Array.from(values) : Uint16Array.from(values, toBits[dtype]);
  return new Uint8Array(array.buffer);
}

/** (rows, columns) in storage order, each row followed by `padding` NaN. */
function stored(x: Float64Array, rows: number, columns: number, transpose: boolean, padding: number): Float64Array {
  const height = transpose ? columns : rows;
  const width = transpose ? rows : columns;
  const out = new Float64Array(height * (width + padding)).fill(Number.NaN);
  for (let i = 0; i < height; i++) {
    for (let j = 0; j < width; j++) out[i * (width + padding) + j] = x[transpose ? j * columns + i : i * columns + j]!;
  }
  return out;
}

const written = new WeakMap<Float64Array, Map<string, Uint8Array>>();

/** As it goes to the runner; once for all products that have it. */
function bytesOf(x: Float64Array, rows: number, columns: number, transpose: boolean, padding: number, dtype: DType) {
  const layout = [rows, columns, transpose, padding, dtype].join();
  const known = written.get(x) ?? new Map<string, Uint8Array>();
  const bytes = known.get(layout) ?? encode(stored(x, rows, columns, transpose, padding), dtype);
  written.set(x, known.set(layout, bytes));
  return bytes;
}

function request(p: Product): Uint8Array[] {
  const [a, b, c] = p.dtypes ?? ["f32", "f32", "f32"];
  const { m, n, k, transposeA = false, transposeB = false, padding = 0 } = p;
  const header = [m, n, k, Number(transposeA), Number(transposeB), codes[a], codes[b], codes[c]];
  header.push(
    p.bias === undefined ? -1 : 0,
    padding,
    p.threads ?? 1,
    p.workspaceShortBy ?? 0,
    codes[p.factors ?? "f32"],
  );
  return [
    new Uint8Array(BigInt64Array.from(header, BigInt).buffer),
    new Uint8Array(Float64Array.of(p.beta).buffer),
    bytesOf(p.a, m, k, transposeA, padding, a),
    bytesOf(p.b, k, n, transposeB, padding, b),
    bytesOf(p.c, m, n, false, padding, c),
    ...(p.bias === undefined ? [] : [encode(p.bias, "f32")]),
  ];
}

function readC(bytes: Uint8Array, { m, n, padding = 0, dtypes }: Product): { c: Float64Array; bits: Uint32Array } {
  const dtype = dtypes?.[2] ?? "f32";
  const words = dtype === "f32" ? new Uint32Array(bytes.buffer) : Uint32Array.from(new Uint16Array(bytes.buffer));
  const decode = dtype === "f32" ? undefined : fromBits[dtype];
  const floats = decode === undefined ? new Float32Array(bytes.buffer) : Float64Array.from(words, decode);
  const inside = (_: unknown, at: number): boolean => at % (n + padding) < n;
  const c = Float64Array.from(floats).filter(inside);
  if (c.length !== m * n) throw new Error(`Expected ${m * n} numbers but received ${c.length}`);
  return { c, bits: words.filter(inside) };
}

let library: string;
let runner: string;
let roundsBf16: boolean;

function multiply(products: readonly Product[], isa = ""): Outcome[] {
  const env = { ...process.env, RLSD_NUM_THREADS: "3", RLSD_ISA: isa };
  const input = Buffer.concat(products.flatMap(request));
  const { status, stdout, stderr } = spawnSync(runner, [library], { input, env, maxBuffer: 1 << 30 });
  if (status !== 0) throw new Error(`The runner ended with ${status}: ${stderr}`);
  let at = 0;
  return products.map((p) => {
    const code = Number(stdout.readBigInt64LE(at));
    const size = p.m * (p.n + (p.padding ?? 0)) * ((p.dtypes?.[2] ?? "f32") === "f32" ? 4 : 2);
    const bytes = Uint8Array.from(stdout.subarray(at + 8, at + 8 + size));
    at += 8 + size;
    return { status: code, ...readC(bytes, p) };
  });
}

/** Random operands that the dtypes hold exactly. */
function randomProduct(random: SeededRandom, m: number, n: number, k: number, rest: Partial<Product> = {}): Product {
  const [a, b, c] = rest.dtypes ?? ["f32", "f32", "f32"];
  const draw = (count: number, dtype: DType): Float64Array =>
    random.uniforms(count, -1, 1).map(dtype === "f32" ? Math.fround : (x) => fromBits[dtype](toBits[dtype](x)));
  return { m, n, k, a: draw(m * k, a), b: draw(k * n, b), c: draw(m * n, c), beta: 0, ...rest };
}

/** Whether this processor rounds factors to bfloat16 where it may. */
function roundsFactors(): boolean {
  const one = { m: 1, n: 1, k: 1, b: Float64Array.of(1), c: new Float64Array(1), beta: 0 };
  const [outcome] = multiply([{ ...one, a: Float64Array.of(1 + 2 ** -10), factors: "bf16" }]);
  return outcome!.c[0] === 1;
}

function expectProduct(p: Product, { status, c }: Outcome): void {
  expect(status).toBe(0);
  const { m, n, k, beta, bias } = p;
  const rounded =
    p.factors === "bf16" && roundsBf16 ? (x: Float64Array) => x.map((v) => bf16Value(bf16Bits(v))) : undefined;
  const [a, b] = [rounded?.(p.a) ?? p.a, rounded?.(p.b) ?? p.b];
  const rounding = 1.01 * unitRoundoff[p.dtypes?.[2] ?? "f32"];
  const row = new Float64Array(n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) row[j] = (beta === 0 ? 0 : beta * p.c[i * n + j]!) + (bias?.[j] ?? 0);
    for (let l = 0; l < k; l++) {
      const scale = a[i * k + l]!;
      for (let j = 0; j < n; j++) row[j] = row[j]! + scale * b[l * n + j]!;
    }
    for (let j = 0; j < n; j++) {
      const error = Math.abs(c[i * n + j]! - row[j]!);
      const tolerance = 16 * 2 ** -24 * Math.sqrt(k + 1) + rounding * (Math.abs(row[j]!) + 2 ** -14);
      if (!(error <= tolerance)) throw new Error(`(${i}, ${j}) of ${m} x ${n} x ${k} is off by ${error}`);
    }
  }
}

const cxx = compiler();
if (cxx === undefined) console.log("not run: matmul, as there is no C++ compiler");
const isas = ["avx512", "avx2", "portable"];
const modes = [...isas.map((isa) => ({ isa, factors: "f32" as DType })), { isa: "avx512", factors: "bf16" as DType }];
const dtypes: readonly DType[] = ["f32", "f16", "bf16"];
const sizes = [1, 2, 3, 5, 6, 7, 12, 13, 14, 15, 16, 17, 29, 31, 32, 33, 64, 97, 130];

(cxx === undefined ? describe.skip : describe)("the matrix product", () => {
  beforeAll(async () => {
    library = await cpuLibrary(cxx!);
    runner = await testProgram(cxx!, "matmul_runner.cc");
    roundsBf16 = roundsFactors();
    if (!roundsBf16) console.log("not run: products of bfloat16 pairs, which this processor has no instructions for");
  }, 600_000);

  it.each(modes)(
    "agrees with float64 for every layout, dtype and ragged size: $isa, factors $factors",
    ({ isa, factors }) => {
      const random = seededRandom(7);
      const pick = <T>(from: readonly T[]): T => from[random.integer(from.length)]!;
      const products = Array.from({ length: 120 }, () => {
        const [m, n, k] = [pick(sizes), pick(sizes), pick([0, 1, 8, 31, 255, 257, 600])];
        return randomProduct(random, m, n, k, {
          transposeA: pick([false, true]),
          transposeB: pick([false, true]),
          dtypes: [pick(dtypes), pick(dtypes), pick(dtypes)],
          beta: pick([0, 1, -0.5]),
          bias: pick([undefined, random.uniforms(n, -1, 1).map(Math.fround)]),
          padding: pick([0, 3]),
          threads: pick([1, 2, 3]),
          factors,
        });
      });
      multiply(products, isa).forEach((outcome, i) => {
        expectProduct(products[i]!, outcome);
      });
    },
  );

  /** One product and, for each of its rows, the same row alone. */
  function rowByRow(whole: Product): Product[] {
    return Array.from({ length: whole.m }, (_, i) => ({
      ...whole,
      m: 1,
      a: whole.a.subarray(i * whole.k, (i + 1) * whole.k),
      c: whole.c.subarray(i * whole.n, (i + 1) * whole.n),
    }));
  }

  it.each(modes)(
    "gives a row the same bits alone and among 64, in every layout and thread count: $isa, factors $factors",
    ({ isa, factors }) => {
      const random = seededRandom(8);
      for (const [n, k, beta, biased] of [
        [70, 600, 1, true],
        [512, 256, 1, true],
        [33, 19, 1, true],
        [70, 600, 0, true],
        [700, 300, 0, false],
        [65, 1, 0, true],
      ] as const) {
        const bias = biased ? random.uniforms(n, -1, 1).map(Math.fround) : undefined;
        const base = randomProduct(random, 64, n, k, { beta, bias, factors });
        const layouts = [false, true].flatMap((transposeA) =>
          [false, true].flatMap((transposeB) =>
            [1, 3].map((threads) => ({ ...base, transposeA, transposeB, threads })),
          ),
        );
        const [expected, ...others] = multiply([...layouts, { ...base, padding: 5 }], isa);
        for (const other of others) expect(other!.bits).toEqual(expected!.bits);
        const alone = multiply([...rowByRow(base), ...rowByRow({ ...base, transposeB: true })], isa);
        alone.forEach(({ bits }, at) => {
          const row = at % base.m;
          expect(bits).toEqual(expected!.bits.subarray(row * n, (row + 1) * n));
        });
      }
    },
  );

  // Up to 8 rows have kernels of their own where both operands lie along k; beyond, products are cut in tiles.
  it.each(modes)(
    "gives the first rows the same bits where there are few: $isa, factors $factors",
    ({ isa, factors }) => {
      const random = seededRandom(14);
      for (const dtype of dtypes) {
        for (const [n, k, beta, biased] of [
          [16, 1, 0, true],
          [17, 8, 0, false],
          [40, 257, 0, true],
          [131, 523, 0, false],
          [4100, 31, 0, true],
          [40, 257, 1, true],
          [131, 523, -0.5, false],
          [4100, 31, 1, true],
        ] as const) {
          const bias = biased ? random.uniforms(n, -1, 1).map(Math.fround) : undefined;
          const whole = randomProduct(random, 30, n, k, {
            dtypes: [k === 257 ? "bf16" : "f32", dtype, "f32"],
            transposeB: true,
            factors,
            threads: 2,
            beta,
            bias,
          });
          const few = [1, 2, 3, 4, 5, 6, 7, 8, 9].map((m) => ({
            ...whole,
            m,
            a: whole.a.subarray(0, m * k),
            c: beta === 0 ? new Float64Array(m * n).fill(Number.NaN) : whole.c.subarray(0, m * n),
          }));
          const [expected, ...others] = multiply([whole, ...few], isa);
          others.forEach(({ bits }, i) => {
            expect(bits).toEqual(expected!.bits.subarray(0, few[i]!.m * n));
          });
        }
      }
    },
  );

  it.each(["f32", "bf16"] as const)("gives a column the same bits alone and among 100: factors %s", (factors) => {
    const whole = randomProduct(seededRandom(9), 20, 100, 513, { transposeB: true, factors });
    const columns = Array.from({ length: 100 }, (_, j) => ({
      ...whole,
      n: 1,
      b: whole.b.filter((_value, at) => at % 100 === j),
      c: new Float64Array(20),
    }));
    const [all, ...each] = multiply([whole, ...columns]);
    each.forEach(({ bits }, j) => {
      expect(bits).toEqual(all!.bits.filter((_value, at) => at % 100 === j));
    });
  });

  it("gives the same bits on 1, 2 and 3 threads where the product is cut in many blocks", () => {
    const p = randomProduct(seededRandom(10), 300, 530, 270, { beta: 1, dtypes: ["bf16", "f32", "bf16"] });
    const [one, two, three] = multiply([1, 2, 3].map((threads) => ({ ...p, threads })));
    expect(two!.bits).toEqual(one!.bits);
    expect(three!.bits).toEqual(one!.bits);
    expectProduct(p, one!);
  });

  it("does not read C when beta is 0", () => {
    for (const dtype of dtypes) {
      const p = randomProduct(seededRandom(11), 15, 40, 300, { dtypes: ["f32", "f32", dtype] });
      const [outcome] = multiply([{ ...p, c: new Float64Array(15 * 40).fill(Number.NaN) }]);
      expectProduct(p, outcome!);
    }
  });

  it.each(["f32", "bf16"] as const)(
    "carries NaN to the elements that it reaches, and to no other: factors %s",
    (factors) => {
      const p = randomProduct(seededRandom(12), 20, 50, 300, { factors });
      p.a[3 * 300 + 17] = Number.NaN;
      const [outcome] = multiply([p]);
      outcome!.c.forEach((value, at) => {
        expect(Number.isNaN(value)).toBe(Math.floor(at / 50) === 3);
      });
    },
  );

  it("rounds a 16-bit C once, after the whole sum", () => {
    // 1 + 2^-9 six hundred times over: sums that were kept in bfloat16 would stay at 512.
    const p = { m: 1, n: 1, k: 600, a: new Float64Array(600).fill(1), b: new Float64Array(600).fill(1 + 2 ** -7) };
    const dtypes = ["bf16", "bf16", "bf16"] as const;
    const [outcome] = multiply([{ ...p, c: new Float64Array(1), beta: 0, dtypes }]);
    expect(outcome!.c[0]).toBe(bf16Value(bf16Bits(600 * (1 + 2 ** -7))));
  });

  it("refuses a workspace that is too small", () => {
    const [outcome] = multiply([randomProduct(seededRandom(13), 4, 4, 4, { workspaceShortBy: 1 })]);
    expect(outcome!.status).toBe(1);
  });
});
