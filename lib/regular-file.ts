import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";

/** Windows has no such flag, and no such pipes. */
const AT_ONCE = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);

/** How what Git leaves in the place of a large file begins, where Git LFS is not installed; it has some 130 bytes. */
const POINTER = "version https://git-lfs.github.com/spec/";
const MOST_POINTER_BYTES = 1024;

async function requireNoPointer(handle: FileHandle, size: number): Promise<void> {
  if (size < POINTER.length || size > MOST_POINTER_BYTES) return;
  const { buffer } = await handle.read(Buffer.alloc(POINTER.length), 0, POINTER.length, 0);
  if (buffer.toString("latin1") !== POINTER) return;
  throw new Error("it is a pointer of Git LFS: `git lfs pull` in its folder puts the file in its place");
}

/**
 * Opens a file for reading. A pipe that nobody writes to would be waited for at its opening, on one of the four threads that read all
 * files of a process: here it is an error, as a folder or a device is, and what Git LFS left in a file's place.
 */
export async function openRegular(file: string): Promise<FileHandle> {
  const handle = await open(file, AT_ONCE);
  try {
    const found = await handle.stat();
    if (!found.isFile())
      throw new Error(found.isDirectory() ? "it is a folder" : "it is no file, but a pipe or a device");
    await requireNoPointer(handle, found.size);
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** All bytes of such a file. */
export async function readRegular(file: string): Promise<Buffer> {
  const handle = await openRegular(file);
  try {
    return await handle.readFile();
  } finally {
    await handle.close();
  }
}
