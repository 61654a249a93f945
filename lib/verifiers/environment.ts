import { define } from "./definition.js";

/** What the environment that the model talked to gave, turn by turn, added up. */
export const environment = define({
  type: "environment",
  summary: "the sum of what a run's environment gave in the conversation",
  where: "inline",
  drawnAlone: true,
  readers: {},
  create() {
    return {
      judge({ environment: given }) {
        if (given === undefined) return { reward: null, reason: "no-environment" };
        return { reward: given.reward, detail: { ...given.detail } };
      },
    };
  },
});
