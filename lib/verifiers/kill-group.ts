import { spawnSync } from "node:child_process";

const onWindows = process.platform === "win32";

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // ESRCH: it has gone already.
  }
}

/**
 * SIGKILL, which no code can catch, to a process and all that it has started, by the id of the process that leads them.
 * Windows has no groups: there its own command follows who has started whom.
 */
export function killGroup(pid: number): void {
  if (onWindows) spawnSync("taskkill", ["/pid", String(pid), "/t", "/f"], { stdio: "ignore", windowsHide: true });
  kill(onWindows ? pid : -pid);
}

/** What the leader of a group left running when it ended. Windows does not know, and its number may be another's by now. */
export function killRest(pid: number): void {
  if (!onWindows) kill(-pid);
}
