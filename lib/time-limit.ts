import { createContext, Script } from "node:vm";

/** Node ends a script that takes too long wherever it is: in a loop or a regular expression of a library too. */
const RUN = new Script("run()");
const ROOM: { run?: () => unknown } = createContext({});

/** What a function gives that does not wait for anything; `late`: the error of one that takes longer. It may not call itself so. */
export function within<T>(milliseconds: number, run: () => T, late: () => Error): T {
  ROOM.run = run;
  try {
    return RUN.runInContext(ROOM, { timeout: Math.ceil(milliseconds) }) as T;
  } catch (error) {
    throw (error as { code?: unknown } | undefined)?.code === "ERR_SCRIPT_EXECUTION_TIMEOUT" ? late() : error;
  } finally {
    delete ROOM.run;
  }
}
