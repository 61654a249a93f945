import { spawnSync } from "node:child_process";
import { join } from "node:path";
import fc from "fast-check";
import {
  type Call,
  empty,
  grpo,
  type PolicyBatch,
  packTokens,
  policyLoss,
  policyLossSync,
  RlsdError,
  rlsd,
  rlsdCredit,
  tensor,
  tokenLogProbsSync,
} from "../lib/index.js";
import { runs } from "./support/batches.js";
import { kept } from "./support/queueable.js";

const N = 6;
const B = 2;
const f32 = (n: number, value = -1): Float32Array => new Float32Array(n).fill(value);

type Loose = Record<string, unknown>;

/** A batch in which every field is given and right. */
const goodBatch = (): Loose => ({
  student: { logProbs: f32(N) },
  teacher: { logProbs: f32(N, -0.9) },
  contrast: { logProbs: f32(N, -1.2) },
  tokenIds: new Int32Array(N),
  cuSeqlens: Int32Array.of(0, 2, N),
  completionMask: Uint8Array.of(1, 1, 0, 1, 1, 1),
  spanMask: Uint8Array.of(1, 0, 1, 1, 1, 1),
  advantages: f32(B, 0.5),
  oldLogProbs: f32(N, -1.1),
  refLogProbs: f32(N, -1.2),
  samplerLogProbs: f32(N, -1.3),
});
const OUT = ["logProbs", "teacherLogProbs", "tokenAdvantages", "evidenceWeights", "gradientLogProbs"] as const;
const goodOut = (): Loose => Object.fromEntries(OUT.map((name) => [name, f32(N, 7)]));

function detached(): Float32Array {
  const array = f32(N);
  structuredClone(array.buffer, { transfer: [array.buffer as ArrayBuffer] });
  return array;
}

function shrunk(): Float32Array {
  const buffer = new (ArrayBuffer as unknown as new (n: number, o: object) => ArrayBuffer)(4 * N, {
    maxByteLength: 8 * N,
  });
  const array = new Float32Array(buffer);
  (buffer as unknown as { resize(n: number): void }).resize(4);
  return array;
}

/** Values that are wrong almost everywhere; some are right somewhere. */
const WRONG: Record<string, () => unknown> = {
  undefined: () => undefined,
  null: () => null,
  zero: () => 0,
  "a huge number": () => 1e308,
  NaN: () => Number.NaN,
  "-1": () => -1,
  "2^53": () => 2 ** 53,
  "a bigint": () => 10n,
  true: () => true,
  "a string": () => "Float32Array",
  "a symbol": () => Symbol("x"),
  "an empty object": () => ({}),
  "a null prototype": () => Object.create(null),
  "a function": () => () => f32(N),
  "a proxy": () => new Proxy(f32(N), {}),
  "a list": () => [1, 2, 3, 4, 5, 6],
  "an array-like": () => ({ length: N, 0: 1 }),
  "a faked class": () => Object.create(Float32Array.prototype),
  "bytes with the prototype of floats": () => Object.setPrototypeOf(new Uint8Array(N), Float32Array.prototype),
  "bytes with the prototype of offsets": () => Object.setPrototypeOf(new Uint8Array(3), Int32Array.prototype),
  "an array without a prototype": () => Object.setPrototypeOf(f32(N + 1), null),
  "a signal in name": () => Object.create(AbortSignal.prototype),
  "a false length": () => Object.defineProperty(f32(1), "length", { value: N }),
  "too short": () => f32(N - 1),
  "too long": () => f32(N + 1),
  empty: () => new Float32Array(0),
  "an offset view": () => new Float32Array(new ArrayBuffer(4 * N + 8), 8, N),
  Float64Array: () => new Float64Array(N),
  Int32Array: () => new Int32Array(N),
  Uint8Array: () => new Uint8Array(N).fill(1),
  Uint8ClampedArray: () => new Uint8ClampedArray(N),
  Uint16Array: () => new Uint16Array(N),
  BigInt64Array: () => new BigInt64Array(N),
  "a DataView": () => new DataView(new ArrayBuffer(4 * N)),
  "an ArrayBuffer": () => new ArrayBuffer(4 * N),
  "a Buffer": () => Buffer.alloc(N, 1),
  NaNs: () => f32(N, Number.NaN),
  infinities: () => f32(N, Number.POSITIVE_INFINITY),
  "wild offsets": () => Int32Array.of(0, 2 ** 31 - 1, -(2 ** 31)),
  "negative offsets": () => Int32Array.of(0, -5, N),
  "late offsets": () => Int32Array.of(0, 2, N + 100),
  "a mask of 255": () => new Uint8Array(N).fill(255),
  "a promise": () => Promise.resolve(f32(N)),
  "a nested view": () => ({ logProbs: { logProbs: f32(N) } }),
  "a view of NaN": () => ({ logProbs: f32(N, Number.NaN) }),
  "a long view": () => ({ logProbs: f32(N + 3) }),
  "a tensor": () => kept(tensor(f32(N), [N])),
  "a view of a tensor": () => ({ logProbs: kept(tensor(f32(N), [N])) }),
  "a view of a wrong tensor": () => ({ logProbs: kept(tensor(new Uint16Array(N), [N], "bf16")) }),
  "logits without ids": () => ({ logits: kept(tensor(f32(N * 3), [N, 3])) }),
  "detached memory": detached,
  "a view of detached memory": () => ({ logProbs: detached() }),
  "shrunk memory": shrunk,
  "shared memory": () => new Float32Array(new SharedArrayBuffer(4 * N)),
  "shared offsets": () => {
    const offsets = new Int32Array(new SharedArrayBuffer(12));
    offsets.set([0, 2, N]);
    return offsets;
  },
};

const CALL_FIELDS = [
  "signal",
  "threads",
  "stream",
  "inPlace",
  "accumulate",
  "lossScale",
  "frozenHead",
  "skipZeroRows",
  "results",
];
const fields = [...Object.keys(goodBatch()), ...CALL_FIELDS, ...OUT.map((name) => `out.${name}`), "out", "extra"];

/** How a value gets into its field: as it is, by a getter, by a prototype. */
const WAYS = ["own", "getter", "inherited"] as const;
type Way = (typeof WAYS)[number];

function place(object: Loose, name: string, value: unknown, way: Way): Loose {
  const { [name]: _, ...rest } = object;
  if (way === "inherited") return Object.assign(Object.create({ [name]: value }), rest);
  return Object.defineProperty(rest, name, {
    enumerable: true,
    ...(way === "getter" ? { get: () => value } : { value }),
  });
}

interface Malformed {
  readonly batch: Loose;
  readonly call: Loose;
}

function spoil(parts: Malformed, field: string, value: unknown, way: Way): Malformed {
  const { batch, call } = parts;
  if (field.startsWith("out."))
    return { batch, call: { ...call, out: place(call.out as Loose, field.slice(4), value, way) } };
  if (field === "out" || CALL_FIELDS.includes(field)) return { batch, call: place(call, field, value, way) };
  return { batch: place(batch, field, value, way), call };
}

/** The error must be ours and name a field that was spoiled; an aborted or wrong signal's own reason cannot come. */
function expectNamed(error: unknown, spoiled: readonly string[]): void {
  expect(error).toBeInstanceOf(RlsdError);
  const { code, message } = error as RlsdError;
  expect(code).toMatch(/^ERR_RLSD_(INVALID_ARGUMENT|NON_FINITE|DISPOSED)$/);
  if (code === "ERR_RLSD_NON_FINITE") return;
  // How many tokens and sequences there are, others learn from the student and from cuSeqlens.
  const counted = spoiled.some((name) => ["student", "cuSeqlens", "contrast"].includes(name))
    ? [`${N}`, " 0 ", "(0)"]
    : [];
  const words = [...spoiled, ...counted, "log-probs", "a teacher beside"];
  if (!words.some((word) => message.includes(word))) throw new Error(`${spoiled.join(", ")}: ${message}`);
}

const isWhole = (v: unknown): v is Float32Array =>
  v instanceof Float32Array && ArrayBuffer.isView(v) && v.byteLength > 0;

/** A copy of what the given results hold. */
const written = (call: Loose): Float32Array[] =>
  Object.values((call.out ?? {}) as Loose)
    .filter(isWhole)
    .map((values) => values.slice());

describe("malformed calls", () => {
  const spot = fc.tuple(fc.constantFrom(...fields), fc.constantFrom(...Object.keys(WRONG)), fc.constantFrom(...WAYS));
  const spots = fc.array(spot, { minLength: 1, maxLength: 3 });
  const objective = rlsd({ klCoef: 0.1, nonFinite: "error" });

  function malformed(list: [string, string, Way][]): Malformed {
    const start: Malformed = { batch: goodBatch(), call: { out: goodOut() } };
    return list.reduce((parts, [field, kind, way]) => {
      if (field.startsWith("out.") && (typeof parts.call.out !== "object" || parts.call.out === null)) return parts;
      return spoil(parts, field, WRONG[kind]!(), way);
    }, start);
  }

  it("each field takes each wrong value: it works, or it is named and nothing is written", () => {
    const refused = new Set<string>();
    for (const field of fields) {
      for (const kind of Object.keys(WRONG)) {
        const { batch, call } = malformed([[field, kind, "own"]]);
        const before = written(call);
        try {
          policyLossSync(batch as unknown as PolicyBatch, objective, call as Call);
        } catch (error) {
          expectNamed(error, [field]);
          refused.add(field);
          if ((error as RlsdError).code === "ERR_RLSD_NON_FINITE") continue;
          expect(written(call)).toEqual(before);
        }
      }
    }
    expect(fields.filter((field) => !refused.has(field))).toEqual([]);
  });

  it("several at once, in getters and prototypes, at once and queued", async () => {
    await fc.assert(
      fc.asyncProperty(spots, fc.boolean(), async (list, queued) => {
        const { batch, call } = malformed(list);
        const before = written(call);
        try {
          const args = [batch as unknown as PolicyBatch, objective, call as Call] as const;
          if (queued) await policyLoss(...args);
          else policyLossSync(...args);
        } catch (error) {
          expectNamed(
            error,
            list.map(([field]) => field),
          );
          if ((error as RlsdError).code !== "ERR_RLSD_NON_FINITE")
            expect([String(error), ...written(call)]).toEqual([String(error), ...before]);
        }
      }),
      runs(2500),
    );
  });

  it("whole arguments of the wrong kind", () => {
    for (const make of Object.values(WRONG)) {
      const value = make() as never;
      for (const call of [
        () => policyLossSync(value, objective),
        () => policyLossSync(goodBatch() as never, value),
        () => policyLossSync(goodBatch() as never, objective, value),
        () => rlsdCredit(value),
        () =>
          rlsdCredit(
            { logProbs: f32(1), teacherLogProbs: f32(1), advantages: f32(1), cuSeqlens: Int32Array.of(0, 1) },
            value,
          ),
        () => grpo(value),
      ]) {
        try {
          call();
        } catch (error) {
          expect(error).toBeInstanceOf(RlsdError);
        }
      }
    }
  });
});

describe("getters", () => {
  const objective = rlsd({ klCoef: 0.1 });

  it("that throw: their own error comes out and nothing is written", () => {
    for (const field of Object.keys(goodBatch())) {
      const out = goodOut();
      const own = new Error("mine");
      const batch = Object.defineProperty(goodBatch(), field, {
        enumerable: true,
        get() {
          throw own;
        },
      });
      expect(() => policyLossSync(batch as never, objective, { out })).toThrow(own);
      expect(Object.values(out)).toEqual(OUT.map(() => f32(N, 7)));
    }
  });

  it.each([1, 2, 3])("that detach another field's memory when read for time %d are found out", (time) => {
    const arrays = Object.keys(goodBatch()).filter((name) => !["student", "teacher", "contrast"].includes(name));
    for (const reader of Object.keys(goodBatch())) {
      for (const victim of [...arrays, "student", "teacher", ...OUT.map((name) => `out.${name}`)]) {
        if (victim === reader) continue;
        const out = goodOut();
        const batch = goodBatch();
        const kept = batch[reader];
        const array = (
          victim.startsWith("out.")
            ? out[victim.slice(4)]
            : ((batch[victim] as { logProbs?: unknown }).logProbs ?? batch[victim])
        ) as Float32Array;
        let reads = 0;
        Object.defineProperty(batch, reader, {
          enumerable: true,
          get() {
            if (++reads === time) structuredClone(array.buffer, { transfer: [array.buffer as ArrayBuffer] });
            return kept;
          },
        });
        try {
          policyLossSync(batch as never, objective, { out });
        } catch (error) {
          expectNamed(error, [victim, reader]);
        }
      }
    }
  });

  it("are read once: a second value never gets through", () => {
    for (const field of Object.keys(goodBatch())) {
      for (const second of [f32(N + 5), new Int32Array(1), undefined, "x", { logProbs: f32(1) }]) {
        const batch = goodBatch();
        const kept = batch[field];
        let reads = 0;
        Object.defineProperty(batch, field, { enumerable: true, get: () => (reads++ === 0 ? kept : second) });
        const got = policyLossSync(batch as never, objective);
        expect(got).toEqual(policyLossSync(goodBatch() as never, objective));
        expect(reads).toBe(1);
      }
    }
  });

  it("of other functions' options are read once too", () => {
    const logits = empty([4, 10], "f32");
    const ids = new Int32Array(4);
    const good = { temperature: 2, entropy: true, completionMask: Uint8Array.of(1, 0, 1, 1), threads: 1 };
    const expected = tokenLogProbsSync({ logits }, ids, good);
    for (const [name, kept] of Object.entries(good)) {
      for (const second of ["x", new Uint8Array(1), null, 1e300]) {
        let reads = 0;
        const options: Loose = { ...good };
        Object.defineProperty(options, name, { enumerable: true, get: () => (reads++ === 0 ? kept : second) });
        expect(tokenLogProbsSync({ logits }, ids, options)).toEqual(expected);
        expect([name, reads]).toEqual([name, 1]);
      }
    }
    let reads = 0;
    const list = Object.defineProperty([], 0, { enumerable: true, get: () => [[1], [1, 2]][reads++]! });
    expect(packTokens(list as never).values).toEqual(Float32Array.of(1));
  });

  it("may call the library themselves", () => {
    const batch = goodBatch();
    const kept = batch.spanMask;
    Object.defineProperty(batch, "spanMask", {
      enumerable: true,
      get() {
        policyLossSync({ student: { logProbs: f32(1) }, cuSeqlens: Int32Array.of(0, 1), advantages: f32(1) }, grpo());
        return kept;
      },
    });
    const out = Object.defineProperty({}, "tokenAdvantages", {
      enumerable: true,
      get() {
        policyLossSync(goodBatch() as never, grpo(), { lossScale: 99 });
        return undefined;
      },
    });
    expect(policyLossSync(batch as never, objective, { out })).toEqual(policyLossSync(goodBatch() as never, objective));
  });
});

describe("memory", () => {
  const objective = rlsd({ klCoef: 0.1 });
  const run = (batch: Loose, out?: Loose) =>
    policyLossSync(batch as never, objective, out === undefined ? {} : { out });

  it("at any offset and shared gives the same numbers", () => {
    const expected = run(goodBatch());
    const moved = (from: unknown): unknown => {
      if (!ArrayBuffer.isView(from)) {
        if (typeof from !== "object" || from === null) return from;
        return Object.fromEntries(Object.entries(from).map(([key, value]) => [key, moved(value)]));
      }
      const source = from as Float32Array;
      const type = source.constructor as Float32ArrayConstructor;
      const target = new type(new SharedArrayBuffer(source.byteLength + 64), 12, source.length);
      target.set(source);
      return target;
    };
    expect(run(moved(goodBatch()) as Loose)).toEqual(expected);
  });

  it("of a result over an input or another result is refused, at once and queued", async () => {
    const batch = goodBatch();
    const { logProbs } = batch.student as { logProbs: Float32Array };
    const two = f32(N + 1);
    for (const out of [
      { tokenAdvantages: logProbs },
      { logProbs: batch.oldLogProbs },
      { evidenceWeights: new Float32Array((batch.advantages as Float32Array).buffer.slice(0, 0)) },
      { logProbs: two.subarray(0, N), tokenAdvantages: two.subarray(1) },
    ] as Loose[]) {
      expect(() => run(batch, out)).toThrow(/out\./);
    }
    const out = { logProbs: two.subarray(0, N), tokenAdvantages: two.subarray(1) };
    // No token is at fault.
    expect(() => run(batch, out)).toThrow(expect.not.objectContaining({ index: expect.anything() }));
    await expect(policyLoss(batch as never, objective, { out })).rejects.toThrow(
      /own for out\.\w+ but it overlaps out\./,
    );
    const apart = f32(2 * N);
    expect(() => run(batch, { logProbs: apart.subarray(0, N), tokenAdvantages: apart.subarray(N) })).not.toThrow();
  });

  it("detached while a queued call runs is found out, and the process lives", async () => {
    const out = { gradientLogProbs: f32(N) };
    const batch = goodBatch();
    const call = policyLoss(batch as never, objective, { out });
    structuredClone(out.gradientLogProbs.buffer, { transfer: [out.gradientLogProbs.buffer as ArrayBuffer] });
    (batch.advantages as Float32Array).fill(Number.NaN);
    await expect(call).rejects.toThrow("out.gradientLogProbs was detached or resized while the call ran.");
  });

  it("of a queued call's inputs may be changed once the call is made", async () => {
    const batch = goodBatch();
    const call = policyLoss(batch as never, objective);
    for (const value of Object.values(batch)) if (ArrayBuffer.isView(value)) (value as Float32Array).fill(0);
    expect(await call).toEqual(run(goodBatch()));
  });
});

describe("the native functions themselves", () => {
  it("refuse any arguments without a crash, in a process of their own", () => {
    const child = spawnSync(process.execPath, [join(__dirname, "support/native-abuse.cjs")], { encoding: "utf8" });
    expect([child.status, child.signal, child.stderr]).toEqual([0, null, ""]);
    expect(child.stdout).toMatch(/^\d{4,} calls\n$/);
  });
});
