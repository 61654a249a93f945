import { duration } from "../duration.js";
import { asksTeacher, showsPrivileged } from "./algorithms.js";
import { bytesText } from "./bytes-text.js";
import type { FieldMap } from "./data/fields.js";
import { diskShortage, diskText } from "./disk.js";
import type { DryRun, Spread } from "./dry-run.js";
import { heldOutText } from "./prepare.js";
import { sum } from "./statistics.js";
import { parametersText } from "./student.js";
import type { TimeRange } from "./time-plan.js";

const spreadText = ({ min, median, p95, max }: Spread) => `${min} to ${max} (median ${median}, 95 % at most ${p95})`;

/** Files that are shown of many: the first and the last. */
const FILES_SHOWN = 6;

function filesText(what: string, files: readonly string[]): string[] {
  const left = files.length - FILES_SHOWN;
  const shown = left > 0 ? [...files.slice(0, FILES_SHOWN - 1), `... (${left} more)`, ...files.slice(-1)] : files;
  return shown.map((file, i) => `           ${(i === 0 ? `${what}:` : "").padEnd(10)}${file}`);
}

function columnsText({ train, eval: held }: DryRun["columns"]): string[] {
  const told = (columns: FieldMap | null) =>
    Object.entries(columns ?? {})
      .flatMap(([part, column]) => (column === null ? [] : [part === column ? part : `${part} from ${column}`]))
      .join(", ");
  const [first, second] = [told(train), told(held)];
  return [`columns    ${first}`, ...(held === null || second === first ? [] : [`           held out: ${second}`])];
}

function endingsText({ endings, turnEnd }: DryRun): string[] {
  if (endings === null) return [];
  const told = endings.map((text) => JSON.stringify(text)).join(", ");
  const end = JSON.stringify(turnEnd);
  const missing = `           not ${end}, with which the chat template ends a turn: rollout.stopStrings=[${end}] does`;
  return [
    `ends       ${told || "nowhere: the model has no end token, so that all completions are cut off"}`,
    ...(turnEnd === null ? [] : [missing]),
  ];
}

/** Characters of a prompt that are shown from each of its ends. */
const SHOWN = 600;

function askedText({ student, teacher, demonstration, earlier = [] }: DryRun["asked"]): string[] {
  const told = (what: string, text: string) => {
    const left = text.length - 2 * SHOWN;
    const shown = left > 0 ? `${text.slice(0, SHOWN)} ... (${left} characters) ... ${text.slice(-SHOWN)}` : text;
    return [`${what}:`, ...shown.split("\n").map((line) => `  | ${line}`)];
  };
  return [
    ...told("the first prompt, as the model reads it", student),
    ...(teacher === null ? [] : told("the first prompt, as the teacher reads it", teacher)),
    ...(demonstration === null ? [] : told("what the model learns to say then", demonstration)),
    ...earlier.flatMap((turn, i) => told(`and before that, as turn ${i + 1}`, turn)),
  ];
}

function environmentText({ environment }: DryRun): string[] {
  if (environment === null) return [];
  const { tools, turns } = environment;
  const offered = tools.length === 0 ? "answers" : `offers ${tools.join(", ")}`;
  return [`environment ${offered}; at most ${turns} turns, and what is read between them counts as tokens`];
}

function stepText({ config, sequencesPerStep, tokensPerStep, traceTokens }: DryRun): string[] {
  const { prompts, count, maxTokens } = config.rollout;
  if (traceTokens === null) {
    const drawn = `${prompts} prompts x ${count} completions x ${maxTokens} tokens: ${sequencesPerStep} sequences`;
    return [`step       ${drawn}, at most ${tokensPerStep} tokens`];
  }
  return [
    `traces     ${spreadText(traceTokens)} tokens`,
    `step       ${prompts} rows with ${config.sft.turns === "all" ? "all turns" : "their traces"}: at most ${tokensPerStep} tokens`,
  ];
}

function successText({ success: { threshold, parts, rest } }: DryRun): string[] {
  if (parts.length === 0) return threshold === null ? [] : [`right      rewards of at least ${threshold}`];
  const named = parts.join(" and ");
  if (threshold === null)
    return [`right      where ${named} ${parts.length > 1 ? "give" : "gives"} 1, whatever the other parts do`];
  const told = `right      rewards of at least ${threshold}`;
  if (rest < threshold) return [told];
  return [
    told,
    `           without ${named} there are up to ${rest}: what is wrong counts as right (eval.successThreshold)`,
  ];
}

/** Whether a completion can earn anything, by what is right for sure. */
function tracesText({ judgedTraces: judged }: DryRun): string[] {
  if (judged === null) return [];
  const { traces, right, unjudged } = judged;
  const counted = (prefix: string, times: number) =>
    Object.entries(judged.reasons).flatMap(([name, n]) =>
      name.startsWith(prefix) ? [`${name.slice(prefix.length)} ${Math.round(n * times)}`] : [],
    );
  const said = [...counted("reason/", traces - unjudged), ...counted("unjudged/", 1)];
  const without = unjudged > 0 ? `, ${unjudged} not judged` : "";
  return [
    `verifier   of the first ${traces} traces ${right} are right${without}${said.length > 0 ? ` (${said.join(", ")})` : ""}`,
    ...(right === 0 && unjudged < traces
      ? [
          "           unless traces are no whole answers, no completion will be: see the reward's answer, tag and format",
        ]
      : []),
  ];
}

function teacherText({ config, privileged }: DryRun): string[] {
  if (!asksTeacher(config)) return ["teacher    none"];
  if (!showsPrivileged(config)) return [`teacher    ${config.teacher.kind}; reads the student's own prompts`];
  const found = privileged.fromRollouts
    ? `made from completions (${config.privileged.source})`
    : `${privileged.whole} rows whole, ${privileged.cut} cut to fit, ${privileged.noRoom} without room, ${privileged.none} without any`;
  return [
    `teacher    ${config.teacher.kind}; privileged text: ${found}`,
    ...(privileged.teacherPromptTokens === null
      ? []
      : [`           its prompts ${spreadText(privileged.teacherPromptTokens)} tokens`]),
    ...privileged.firstWithout.map((where) => `           without privileged text: ${where}`),
  ];
}

function timeText({ config, time }: DryRun): string[] {
  if ("unknown" in time) return [`time       not estimated: ${time.unknown}`];
  const range = ({ from, to }: TimeRange) => `${duration(1000 * from)} to ${duration(1000 * to)}`;
  const parts = [
    `a step ${range(time.step)}`,
    ...(time.evaluation.to > 0 ? [`an evaluation ${range(time.evaluation)}`] : []),
    `all ${config.steps} steps ${range(time.run)}`,
  ];
  return [
    `time       ${parts.join(", ")}`,
    "           an estimate from tokens drawn here just now: short completions to all at their limit; verifiers not counted",
  ];
}

/** The plan of a run for people. */
export function dryRunText(plan: DryRun): string {
  const { config, rows, memory } = plan;
  const total = sum(Object.values(memory));
  const shares = Object.entries(memory).filter(([, n]) => n > 0);
  // What the policy does not tell.
  const unknown = ["activations", "keyValueCache"].filter((name) => !(name in memory));
  const short = diskShortage(plan.disk);
  return [
    `model      ${config.model}: ${parametersText(plan)}, ${plan.maxLength} tokens`,
    `data       ${rows.train} rows, ${rows.eval} held out, ${rows.leftOut} left out; ${plan.passes.toFixed(2)} passes`,
    ...filesText("train", config.data.train),
    ...filesText("held out", config.data.eval),
    ...(plan.heldOutInTraining > 0 ? [`           ${heldOutText(plan)}`] : []),
    ...columnsText(plan.columns),
    `prompts    ${spreadText(plan.promptTokens)} tokens`,
    ...(plan.chat
      ? []
      : ["           the model has no chat template: contents are read one after the other, as by a base model"]),
    ...endingsText(plan),
    ...environmentText(plan),
    ...stepText(plan),
    `memory     ${bytesText(total)}: ${shares.map(([name, n]) => `${name} ${bytesText(n)}`).join(", ")}` +
      (unknown.length === 0 ? "" : `, and ${unknown.join(" and ")}`),
    ...timeText(plan),
    `disk       ${diskText(plan.disk)}`,
    ...(short === undefined ? [] : [`           ${short}`]),
    ...successText(plan),
    ...tracesText(plan),
    ...teacherText(plan),
    ...plan.unused.map(({ settings, because }) => `unused     ${settings.join(", ")}: ${because}`),
    "schedule   step  creditMix  learningRate",
    ...plan.schedule.map(
      (s) =>
        `           ${String(s.step).padStart(4)}  ${s.creditMix.toFixed(4).padStart(9)}  ${s.learningRate.toExponential(2)}`,
    ),
    ...askedText(plan.asked),
  ].join("\n");
}
