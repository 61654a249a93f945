import { createHash } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { hostname } from "node:os";

/** A process that writes into a folder, as it saw itself. null: the system does not tell; all but `host` is Linux's. */
export interface Owner {
  readonly pid: number;
  readonly host: string;
  /** When the process began, in the kernel's ticks: a number that is used again belongs to another. */
  readonly begun: string | null;
  /** Of the kernel, from its start to its end. */
  readonly boot: string | null;
  /** The PID namespace: a container numbers its processes by itself. */
  readonly space: string | null;
  /** Stays when a machine starts anew. null in a container: the image may have brought it along. */
  readonly machine: string | null;
  /** What kind of file system the folder is on, by the kernel's number. */
  readonly files: number;
}

/** unknown: it cannot be seen from here. */
export type Life = "alive" | "dead" | "unknown";

/** The PID namespace of a machine itself; the kernel's own constant. */
const OUTERMOST = "pid:[4026531836]";
/** ext, XFS, Btrfs, F2FS, ZFS, bcachefs and a container's layers: one kernel at a time writes there. */
const DISKS = new Set([0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x2fc12fc1, 0xca451a4e, 0x794c7630]);
const FUSE = 0x65735546;

function attempt(read: () => string): string | null {
  try {
    return read().trim();
  } catch {
    return null;
  }
}

/** Fields 3 and 22 of /proc/PID/stat; what comes before may hold spaces, but ends with the last bracket. */
function processAt(pid: number): { readonly state: string; readonly begun: string } | undefined {
  const text = attempt(() => readFileSync(`/proc/${pid}/stat`, "utf8"));
  const fields = text?.slice(text.lastIndexOf(")") + 2).split(" ");
  return fields?.[19] === undefined ? undefined : { state: fields[0]!, begun: fields[19] };
}

/** A machine's own number is not for others' eyes: what is written cannot be traced back to it. */
function machineId(): string | null {
  const id = attempt(() => readFileSync("/etc/machine-id", "utf8"));
  return id === null || id === "" ? null : createHash("sha256").update(`rlsd ${id}`).digest("hex").slice(0, 16);
}

/** This process, as a writer of that folder. */
export async function thisProcess(folder: string): Promise<Owner> {
  const { pid } = process;
  const space = attempt(() => readlinkSync("/proc/self/ns/pid"));
  return {
    pid,
    host: hostname(),
    begun: processAt(pid)?.begun ?? null,
    boot: attempt(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8")),
    space,
    machine: space === OUTERMOST ? machineId() : null,
    files: (await statfs(folder)).type,
  };
}

/** Whether both see the same file under the same inode: some file systems give a number of the moment. */
export const sameInodes = (one: Owner, other: Owner): boolean => one.files === other.files && one.files !== FUSE;

/** A process of this kernel and this PID namespace. */
function lifeHere({ pid, begun }: Owner): Life {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: it is there, and somebody else's.
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return "dead";
  }
  const found = processAt(pid);
  if (found === undefined) return "unknown";
  // Z: it has ended, and its parent did not ask for its exit status yet.
  if (found.state === "Z" || found.state === "X") return "dead";
  if (begun === null) return "unknown";
  return begun === found.begun ? "alive" : "dead";
}

/** Whether an owner may still be writing, as far as `here` can know. */
export function lifeOf(owner: Owner, here: Owner): Life {
  if (owner.boot === here.boot) {
    const visible = here.boot === null ? owner.host === here.host : owner.space === here.space;
    return visible ? lifeHere(owner) : "unknown";
  }
  if (owner.boot === null || here.boot === null) return "unknown";
  // Another kernel: it has ended where this machine started anew, or where it had the disk that is mounted here now. Both
  // must have seen a disk: what is one on a file server is none for the others who write there.
  const restarted = owner.machine !== null && owner.machine === here.machine && owner.host === here.host;
  return restarted || (DISKS.has(owner.files) && DISKS.has(here.files)) ? "dead" : "unknown";
}
