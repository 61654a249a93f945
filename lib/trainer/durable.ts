import { randomBytes } from "node:crypto";
import { type FileHandle, open, rm, truncate, writeFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { RlsdError } from "../errors.js";
import { LINE_FEED } from "../file-lines.js";
import { removeAbandoned, renameOver, syncDirectory } from "../policy/folder.js";
import { openRegular } from "../regular-file.js";
import { isRefusedWrite, writeError } from "../write-error.js";

/** Runs a write; what the disk refuses becomes ERR_RLSD_WRITE. */
export async function writing<T>(what: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    // A policy that could not be saved says in its cause what the disk said.
    const origin = error instanceof RlsdError && error.code === "ERR_RLSD_SAVE" ? error.cause : error;
    throw isRefusedWrite(origin) ? writeError(what, origin) : error;
  }
}

/** Runs a body; where it fails, what was taken for it is given up, and the failure stays the one that is told. */
export async function releasing<T>(giveUp: () => Promise<void>, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    await giveUp().catch(() => {});
    throw error;
  }
}

/** Gives up one thing after the other, the later ones also where an earlier one fails; the first failure is told. */
export async function giveUpAll(...steps: readonly (() => unknown)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

/** Replaces a file in one stroke: written aside, flushed, renamed. Of several at once the last one stays, whole. */
export async function writeWhole(file: string, content: string | Iterable<string>): Promise<void> {
  // A number of the process would not do: another machine's may be the same.
  const aside = `${file}.${randomBytes(6).toString("hex")}.partial`;
  await writing(file, async () => {
    try {
      await writeFile(aside, content, { flush: true });
      await renameOver(aside, file);
      await syncDirectory(dirname(file));
    } catch (error) {
      await rm(aside, { force: true });
      throw error;
    }
  });
  await removeAbandoned(file, `${basename(file)}.`, ".partial").catch(() => {});
}

/**
 * That a file of lines, which is written to from `length` on, has so many bytes and a line's end there; one that is not there
 * has none. Nothing is written.
 *
 * @throws RlsdError ERR_RLSD_RUN_FOLDER
 */
export async function checkLines(path: string, length: number): Promise<void> {
  const fail = (message: string, cause?: unknown) => new RlsdError("ERR_RLSD_RUN_FOLDER", message, { cause });
  const handle = await openRegular(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw fail(`${path} cannot be used: ${error.message}.`, error);
  });
  try {
    const size = handle === undefined ? 0 : (await handle.stat()).size;
    const told = `but the checkpoint was made when it had ${length}: it was changed since. Start a new run.`;
    if (size < length) throw fail(`${path} has ${size} bytes, ${told}`);
    if (handle === undefined || length === 0) return;
    const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, length - 1);
    if (buffer[0] !== LINE_FEED) throw fail(`${path} has no line that ends there, ${told}`);
  } finally {
    await handle?.close();
  }
}

/** A file of lines that only grows, and knows how long it is. */
export class LineFile {
  private constructor(
    readonly path: string,
    private readonly handle: FileHandle,
    private length: number,
  ) {}

  /** Opens for appending after the first `length` bytes; what lay beyond is cut off. */
  static async open(path: string, length = 0): Promise<LineFile> {
    await checkLines(path, length);
    return writing(path, async () => {
      const handle = await open(path, "a");
      return releasing(
        () => handle.close(),
        async () => {
          if ((await handle.stat()).size > length) await truncate(path, length);
          return new LineFile(path, handle, length);
        },
      );
    });
  }

  /** Bytes written so far. */
  get offset(): number {
    return this.length;
  }

  async append(lines: readonly string[]): Promise<void> {
    if (lines.length === 0) return;
    const bytes = Buffer.from(`${lines.join("\n")}\n`);
    const write = async () => {
      let done = 0;
      while (done < bytes.length) done += (await this.handle.write(bytes, done)).bytesWritten;
    };
    // What is written next must not follow a part of a line.
    await writing(this.path, () => releasing(() => this.handle.truncate(this.length), write));
    this.length += bytes.length;
  }

  async flush(): Promise<void> {
    await writing(this.path, () => this.handle.sync());
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}
