import type { Judged } from "../lib/trainer/judge.js";
import { reasonMetrics } from "../lib/trainer/reasons.js";

const said = (reward: number | null, reason?: string, detail: Record<string, unknown> = {}): Judged => ({
  reward,
  detail,
  ...(reason !== undefined && { reason }),
});

describe("reasons of verdicts", () => {
  test("are shares of what was judged, and counts of what was not", () => {
    const verdicts = [
      said(1),
      said(0, "no-answer"),
      said(0, "no-answer"),
      said(0, "cut"),
      said(null, "http"),
      said(null),
    ];
    expect(reasonMetrics(verdicts)).toEqual({
      "reason/no-answer": 0.5,
      "reason/cut": 0.25,
      "unjudged/http": 1,
      "unjudged/none": 1,
    });
    expect(reasonMetrics([said(1), said(0)])).toEqual({});
  });

  test("are those of the parts where there are parts, each once a completion", () => {
    const part = { reward: 0, reason: "no-answer" };
    expect(reasonMetrics([said(0.1, undefined, { math: part, form: { reward: 0.1 }, other: part })])).toEqual({
      "reason/no-answer": 1,
    });
    expect(reasonMetrics([said(0, "gate", { gate: { reward: 0, reason: "layout" } })])).toEqual({ "reason/layout": 1 });
  });

  test("a verifier that writes sentences fills no log", () => {
    const verdicts = Array.from({ length: 20 }, (_, i) => said(0, `reason number ${i}\n${"x".repeat(100)}`));
    const told = reasonMetrics([...verdicts, said(0, "often"), said(0, "often")]);
    expect(Object.keys(told)).toHaveLength(8);
    expect(Object.keys(told)[0]).toBe("reason/often");
    expect(Math.max(...Object.keys(told).map((name) => name.length))).toBe("reason/".length + 40);
    expect(Object.keys(told).join("")).not.toContain("\n");
  });
});
