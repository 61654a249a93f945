import { readFileSync, writeFileSync } from "node:fs";

export interface HostTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | Uint16Array;
}

function convert(dtype: string, bytes: Buffer): HostTensor["data"] {
  const copy = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  if (dtype === "F32") return new Float32Array(copy);
  if (dtype === "I64") return Int32Array.from(new BigInt64Array(copy), Number);
  if (dtype === "BF16" || dtype === "F16") return new Uint16Array(copy);
  if (dtype === "I32") return new Int32Array(copy);
  throw new Error(`no reader for ${dtype}`);
}

/** All tensors of a small safetensors file, without the checks that the package itself makes. */
export function readTensors(file: string): Map<string, HostTensor> {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + length)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const out = new Map<string, HostTensor>();
  for (const [name, { dtype, shape, data_offsets: at }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    out.set(name, { dtype, shape, data: convert(dtype, bytes.subarray(8 + length + at[0], 8 + length + at[1])) });
  }
  return out;
}

/** The largest absolute difference, as a share of the largest expected value. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let difference = 0;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const d = Math.abs((actual[i] as number) - (expected[i] as number));
    difference = Number.isNaN(d) ? Number.POSITIVE_INFINITY : Math.max(difference, d);
    largest = Math.max(largest, Math.abs(expected[i] as number));
  }
  return largest === 0 ? difference : difference / largest;
}

/** Whether two arrays are of one type and hold the same bits; quicker than a deep comparison of many numbers. */
export function sameBits(a: HostTensor["data"], b: HostTensor["data"]): boolean {
  const bytes = (x: HostTensor["data"]): Buffer => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
  return a.constructor === b.constructor && bytes(a).equals(bytes(b));
}

/** A safetensors file of these tensors, one after another. */
export function writeTensors(file: string, tensors: ReadonlyMap<string, HostTensor>): void {
  let end = 0;
  const header: Record<string, unknown> = {};
  for (const [name, { dtype, shape, data }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end + data.byteLength] };
    end += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(BigInt(json.length));
  const parts = [...tensors.values()].map(({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  writeFileSync(file, Buffer.concat([start, json, ...parts]));
}
