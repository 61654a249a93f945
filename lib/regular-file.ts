import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";

/** Windows has no such flag, and no such pipes. */
const AT_ONCE = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0);

/**
 * Opens a file for reading. A pipe that nobody writes to would be waited for at its opening, on one of the four threads that read all
 * files of a process: here it is an error, as a folder or a device is.
 */
export async function openRegular(file: string): Promise<FileHandle> {
  const handle = await open(file, AT_ONCE);
  const found = await handle.stat().catch(async (error: unknown) => {
    await handle.close();
    throw error;
  });
  if (found.isFile()) return handle;
  await handle.close();
  throw new Error(found.isDirectory() ? "it is a folder" : "it is no file, but a pipe or a device");
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
