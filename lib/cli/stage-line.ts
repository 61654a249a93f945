import { clockTime } from "../duration.js";
import type { Stage } from "../trainer/stage.js";

/** ", 1,234 tokens" where some were drawn. */
export const tokensDrawn = ({ tokens }: Pick<Stage, "tokens">): string =>
  tokens === undefined ? "" : `, ${tokens.toLocaleString("en")} tokens drawn`;

const DOING: Readonly<Record<Stage["doing"], (stage: Stage) => string>> = {
  rollout: (stage) => `drawing ${stage.total} completions${tokensDrawn(stage)}`,
  verify: ({ done, total }) => `${done} of ${total} completions judged`,
  teacher: () => "asking the teacher",
  update: () => "updating",
  evaluation: (stage) => `held-out rows: ${stage.done} of ${stage.total} completions judged${tokensDrawn(stage)}`,
};

/** "step 3/200  12 of 64 completions judged  0:05": what a run has been doing for so long. */
function describeStage(stage: Stage, steps: number, ms: number): string {
  const place = `step ${String(stage.step).padStart(String(steps).length)}/${steps}`;
  return `${place}  ${DOING[stage.doing](stage)}  ${clockTime(ms / 1000)}`;
}

/** A stage is worth a word once it has lasted so long; where lines stay, once nothing was told for so long. */
const WORTH_MS = { live: 2000, lines: 30_000 };

/** Follows the stages of a run; `tick` tells of the present one where it lasts. */
export function createStageLine(live: boolean, now: () => number, tell: (text: string) => void) {
  let present: Stage | undefined;
  let since = 0;
  let toldAt = now();
  let shown = false;
  return {
    enter(stage: Stage): void {
      if (stage.doing !== present?.doing || stage.step !== present.step) since = now();
      present = stage;
    },
    /** Whether the last words were of the stage that is left. */
    leave(): boolean {
      const was = shown;
      present = undefined;
      shown = false;
      return was;
    },
    /** Something else was told. */
    told: (): void => {
      toldAt = now();
    },
    tick(steps: number): void {
      if (present === undefined) return;
      const lasted = now() - since;
      if (live ? lasted >= WORTH_MS.live : now() - toldAt >= WORTH_MS.lines) {
        tell(describeStage(present, steps, lasted));
        shown = true;
      }
    },
  };
}
