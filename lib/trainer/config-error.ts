import { RlsdError } from "../errors.js";

/** Settings that cannot be meant. */
export function fail(message: string): never {
  throw new RlsdError("ERR_RLSD_CONFIG", message);
}
