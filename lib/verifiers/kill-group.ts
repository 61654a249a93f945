/** SIGKILL, which no code can catch, to a process and all that it has started, by the id of the process that leads them. */
export function killGroup(pid: number): void {
  try {
    process.kill(process.platform === "win32" ? pid : -pid, "SIGKILL");
  } catch {
    // ESRCH: the whole group has gone already.
  }
}
