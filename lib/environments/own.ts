import { show, textOf } from "../check.js";
import { RlsdError } from "../errors.js";
import type { Environment } from "./environment.js";
import { toReply } from "./reply.js";

/** Throws ERR_RLSD_ENVIRONMENT for an object that answers but lacks the rest of an environment. */
function checkOwn(environment: Partial<Environment>): void {
  const missing: string[] = (["start", "dispose"] as const).filter((name) => typeof environment[name] !== "function");
  if (!Array.isArray(environment.tools)) missing.unshift("tools");
  if (missing.length === 0) return;
  const expected = "the list tools and the functions start, respond and dispose";
  const message = `Expected an environment to have ${expected}, but this one lacks ${missing.join(" and ")}.`;
  throw new RlsdError("ERR_RLSD_ENVIRONMENT", `${message} What answers and no more can be a function.`);
}

const isTurn = (turn: unknown): boolean => {
  const { role, content } = Object(turn) as { readonly role?: unknown; readonly content?: unknown };
  return role === "assistant" && typeof content === "string";
};

/** A user's own environment: what it throws or returns that is no reply is a fault, as of any other. */
export function fromOwn(environment: Environment): Environment {
  checkOwn(environment);
  return {
    get tools() {
      return environment.tools;
    },
    start: (signal) => environment.start(signal),
    async respond(turn, signal) {
      let returned: unknown;
      try {
        returned = await environment.respond(turn, signal);
      } catch (error) {
        signal.throwIfAborted();
        return { fault: { reason: "error", detail: { message: textOf(error) } } };
      }
      const said = Object(returned) as Awaited<ReturnType<Environment["respond"]>>;
      if ("fault" in said) return said;
      if (said.turn === undefined) return toReply(returned, turn.state);
      const { turn: understood, ...reply } = said;
      if (!isTurn(understood)) {
        const message = `Expected a message of the assistant as turn but the environment returned ${show(understood)}.`;
        return { fault: { reason: "bad-reply", detail: { message } } };
      }
      const checked = toReply(reply, turn.state);
      return "fault" in checked ? checked : { ...checked, turn: understood };
    },
    dispose: () => environment.dispose(),
  };
}
