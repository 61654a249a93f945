import { answered } from "../verifiers/answered.js";
import type { Environment, EnvironmentFunction } from "./environment.js";
import { toReply } from "./reply.js";

/** A user's own function as an environment, in this process. */
export function fromFunction(respond: EnvironmentFunction): Environment {
  return {
    tools: [],
    start: async () => {},
    async respond(turn, signal) {
      const outcome = await answered((limit) => respond(turn, limit), signal);
      return "fault" in outcome ? outcome : toReply(outcome.ok, turn.state);
    },
    dispose: async () => {},
  };
}
