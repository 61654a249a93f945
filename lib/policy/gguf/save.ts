import { randomBytes } from "node:crypto";
import { link, open, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { checkObject, checkPath, checkSignal, checkWord } from "../../check.js";
import { messageOf, RlsdError } from "../../errors.js";
import { ALIGNMENT, aligned } from "../../gguf/types.js";
import { encodeHeader, planBytes, string, u32, type Value } from "../../gguf/write.js";
import { parseConfig } from "../config.js";
import { makeFolder, removeAbandoned, renameOver, syncDirectory } from "../folder.js";
import { generationOf } from "../model-folder.js";
import type { NativeModel } from "../model-handle.js";
import type { PolicyOrigin } from "../origin.js";
import { shapeMetadata } from "./metadata.js";
import { type FileTensor, fileTensors, GGUF_DTYPES, type GgufDType } from "./tensors.js";
import { tokenizerMetadata } from "./tokenizer-metadata.js";

/** How `saveGguf` writes. */
export interface GgufSaveOptions {
  /** Type of the matrices in the file; norms and biases are float32. Default "f32", which loses nothing. */
  readonly dtype?: GgufDType | undefined;
  /** Stops between parts of tensors: nothing of the file is left then, and it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What `saveGguf` wrote. */
export interface GgufSummary {
  /** What whoever uses the file should know: what llama.cpp does not do as the model does. */
  readonly notes: readonly string[];
}

const FIELDS = new Set(["dtype", "signal"]);
/** `general.file_type`, which programs show. */
const FILE_TYPES = { f32: 0, f16: 1, q8_0: 7, bf16: 32 } as const satisfies Record<GgufDType, number>;
/** Of the blocks' layout. */
const QUANTIZATION_VERSION = 2;

/** llama.cpp takes spaces behind special tokens away where a model's name has "phi-3", and fails where its tokens are others'. */
function nameOf(file: string, phi: boolean): string {
  const own = basename(file).replace(/\.gguf$/i, "");
  const plain = own.replace(/phi-?3/gi, "phi 3").replace(/modern-bert/gi, "modern bert");
  return phi ? `phi-3 ${plain}` : plain;
}

interface Contents {
  readonly metadata: ReadonlyMap<string, Value>;
  readonly tensors: readonly FileTensor[];
  readonly notes: readonly string[];
}

/** All that is told before the weights are read. */
function contentsOf(model: NativeModel, origin: PolicyOrigin, file: string, dtype: GgufDType): Contents {
  // Of the model as its files have it, whatever length this policy reads.
  const config = parseConfig(
    JSON.parse(JSON.stringify(origin.json)),
    generationOf(origin.companions, ""),
    "config.json",
  );
  const shape = shapeMetadata(config);
  const { json, companions: files, tokenizer } = origin;
  const text = tokenizerMetadata({
    files,
    tokenizer,
    json,
    vocabSize: config.vocabSize,
    endTokenIds: config.endTokenIds,
  });
  const general: [string, Value][] = [
    ["general.name", string(nameOf(file, text.phi))],
    ["general.file_type", u32(FILE_TYPES[dtype])],
    ["general.quantization_version", u32(QUANTIZATION_VERSION)],
  ];
  return {
    metadata: new Map([...shape.metadata, ...general, ...text.entries]),
    tensors: fileTensors(model, shape.extras, dtype),
    notes: [...shape.notes, ...text.notes],
  };
}

async function writeContents(aside: string, { metadata, tensors }: Contents, signal?: AbortSignal): Promise<void> {
  const handle = await open(aside, "wx");
  try {
    await handle.writeFile(encodeHeader(metadata, tensors));
    for (const tensor of tensors) {
      for await (const chunk of tensor.chunks()) {
        signal?.throwIfAborted();
        await handle.writeFile(chunk);
      }
      const bytes = planBytes(tensor);
      await handle.writeFile(new Uint8Array(aligned(bytes, ALIGNMENT) - bytes));
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Gives a finished file its name, which no other file has; where links are not made, another's of the same moment is lost. */
async function publish(aside: string, file: string): Promise<void> {
  try {
    await link(aside, file);
    await rm(aside);
  } catch (error) {
    if (!["EPERM", "ENOTSUP", "ENOSYS"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    await renameOver(aside, file);
  }
  await syncDirectory(dirname(file));
}

/** Writes a model as one GGUF file: whole and flushed under another name beside it first. */
export async function saveGgufFile(
  model: NativeModel,
  origin: PolicyOrigin,
  path: string,
  o: GgufSaveOptions,
): Promise<GgufSummary> {
  checkObject(o, "options", FIELDS);
  const { dtype = "f32", signal } = o;
  checkWord(dtype, "dtype", GGUF_DTYPES);
  checkSignal(signal);
  const file = resolve(checkPath(path, "file"));
  const contents = contentsOf(model, origin, file, dtype);
  const hidden = `.${basename(file)}.`;
  const aside = join(dirname(file), `${hidden}${randomBytes(6).toString("hex")}`);
  try {
    await makeFolder(dirname(file));
    await writeContents(aside, contents, signal);
    signal?.throwIfAborted();
    await publish(aside, file);
    await removeAbandoned(file, hidden).catch(() => undefined);
    return { notes: contents.notes };
  } catch (cause) {
    await rm(aside, { force: true }).catch(() => undefined);
    if (cause instanceof RlsdError || (signal?.aborted && cause === signal.reason)) throw cause;
    throw new RlsdError("ERR_RLSD_SAVE", `${file}: could not save the model: ${messageOf(cause)}`, { cause });
  }
}
