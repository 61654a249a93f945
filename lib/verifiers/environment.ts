import { define } from "./definition.js";
import type { Sample } from "./verifier.js";

type Given = Sample["environment"];

/** As `rlsd generate --json` printed it; undefined: the row has none. */
function printed(value: unknown): Given {
  const { reward, detail } = Object(value) as { readonly reward?: unknown; readonly detail?: object };
  return typeof reward === "number" ? { reward, detail: { ...detail } } : undefined;
}

/** What the environment that the model talked to gave, turn by turn, added up. */
export const environment = define({
  type: "environment",
  summary: "the sum of what a run's environment gave in the conversation",
  where: "inline",
  drawnAlone: true,
  readers: {},
  create() {
    return {
      judge({ environment, row }) {
        const given = environment ?? printed(row.environment);
        if (given === undefined) return { reward: null, reason: "no-environment" };
        return { reward: given.reward, detail: { ...given.detail } };
      },
    };
  },
});
