/**
 * TensorBoard's event files: records (TFRecord) of Event messages in protobuf's wire format, of which only scalars are
 * written. https://github.com/tensorflow/tensorboard, tensorboard/compat/proto/event.proto and summary.proto
 */
import { appendFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";

/** The polynomial of CRC-32C (Castagnoli), bits reversed. */
const POLYNOMIAL = 0x82f63b78;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
  return crc;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** A record's checksum: of bytes that may hold checksums themselves. */
const masked = (bytes: Uint8Array): number => {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
};

/** length (uint64), its checksum, the data, its checksum; little-endian. */
function record(data: Uint8Array): Buffer {
  const head = Buffer.alloc(12);
  head.writeBigUInt64LE(BigInt(data.length));
  head.writeUInt32LE(masked(head.subarray(0, 8)), 8);
  const tail = Buffer.alloc(4);
  tail.writeUInt32LE(masked(data));
  return Buffer.concat([head, data, tail]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let left = BigInt(value);
  do {
    bytes.push(Number(left & 0x7fn) | (left > 0x7fn ? 0x80 : 0));
    left >>= 7n;
  } while (left > 0n);
  return Buffer.from(bytes);
}

/** Wire types: 0 a varint, 1 eight bytes, 2 bytes with their length, 5 four bytes. */
const key = (field: number, wire: number): Buffer => varint(8 * field + wire);
const bytesField = (field: number, bytes: Uint8Array): Buffer =>
  Buffer.concat([key(field, 2), varint(bytes.length), bytes]);
const textField = (field: number, text: string): Buffer => bytesField(field, Buffer.from(text));
const integerField = (field: number, value: number): Buffer => Buffer.concat([key(field, 0), varint(value)]);

function doubleField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([key(field, 1), bytes]);
}

function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([key(field, 5), bytes]);
}

/** Event: wall_time 1, step 2 (left out where it is 0, as protobuf does), file_version 3, summary 5, session_log 7. */
const event = (seconds: number, step: number, what: Buffer): Buffer =>
  record(Buffer.concat([doubleField(1, seconds), ...(step === 0 ? [] : [integerField(2, step)]), what]));

/** The first record of a file. */
export const versionEvent = (seconds: number): Buffer => event(seconds, 0, textField(3, "brain.Event:2"));

/** SessionLog, of which status 1 is START: what earlier files have of this step and later ones is out of date. */
export const startEvent = (seconds: number, step: number): Buffer =>
  event(seconds, step, bytesField(7, integerField(1, 1)));

/** Summary: value 1; of it tag 1, simple_value 2. */
export function scalarsEvent(seconds: number, step: number, values: Readonly<Record<string, number>>): Buffer {
  const all = Object.entries(values).map(([tag, value]) =>
    bytesField(1, Buffer.concat([textField(1, tag), floatField(2, value)])),
  );
  return event(seconds, step, bytesField(5, Buffer.concat(all)));
}

const now = (): number => Date.now() / 1000;

/** Of this process: two files of one second have two names. */
let created = 0;

export interface EventFile {
  scalars(step: number, values: Readonly<Record<string, number>>): void;
}

/**
 * A new event file in a folder that is there. Points of `firstStep` and later that older files of the folder have are
 * out of date: TensorBoard leaves them out.
 */
export function createEventFile(folder: string, firstStep: number): EventFile {
  const path = join(folder, `events.out.tfevents.${Math.floor(now())}.${hostname()}.${process.pid}.${created++}`);
  appendFileSync(path, Buffer.concat([versionEvent(now()), startEvent(now(), firstStep)]));
  return { scalars: (step, values) => appendFileSync(path, scalarsEvent(now(), step, values)) };
}
