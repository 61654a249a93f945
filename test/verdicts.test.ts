import { type Judged, judge, overlongFine, requireVerdicts } from "../lib/trainer/judge.js";
import { configOf, rolloutOf } from "./support/rollouts.js";

describe("overlong completions", () => {
  const finedFrom = (buffer: number) =>
    configOf({ rollout: { maxTokens: 10 }, overlong: { mode: "penalty", buffer, penalty: 2 } });
  test("are fined from the buffer's start to the full fine", () => {
    const fine = (length: number, finish: "stop" | "length" = "stop", buffer = 4) =>
      overlongFine(rolloutOf("x".repeat(length), { finish }), finedFrom(buffer));
    expect([fine(6), fine(7), fine(8), fine(10), fine(10, "length")]).toEqual([0, 0.5, 1, 2, 2]);
    // All turns of a conversation may have more.
    expect([fine(15), fine(15, "stop", 1), fine(15, "stop", 0)]).toEqual([2, 2, 0]);
  });
});

describe("a verifier", () => {
  const judged = (verify: () => Promise<{ reward: number }>, signal: AbortSignal) =>
    judge({ verify }, [rolloutOf("4")], configOf(), { signal, occasion: { step: 0, name: "train" } });

  test("that fails has not judged", async () => {
    const broken = async () => Promise.reject(new Error("no connection"));
    const verdict = { reward: null, reason: "error", detail: { message: "Error: no connection" } };
    expect(await judged(broken, new AbortController().signal)).toEqual([verdict]);
  });

  test.each([
    ["fails", () => Promise.reject(new Error("interrupted"))],
    ["answers", async () => ({ reward: 0 })],
  ])("that %s when it was interrupted gives no verdict to remember", async (_, end) => {
    const controller = new AbortController();
    const interrupted = () => {
      controller.abort(new Error("stop"));
      return end();
    };
    await expect(judged(interrupted, controller.signal)).rejects.toThrow("stop");
  });
});

describe("a step without one verdict", () => {
  const none = (reason: string | undefined, detail: Judged["detail"] = {}): Judged => ({
    reward: null,
    reason,
    detail,
  });
  const environment = none("environment: error", { message: "gone" });

  test.each<[string, Judged[], string]>([
    ["a word", [none("timeout")], "judged none of the 1 completions of step 3. The first: timeout. Once"],
    ["none", [none(undefined)], "The first: no reason given. Once"],
    ["numbers", [none("timeout", { deadlineMs: 5 })], 'The first: timeout {"deadlineMs":5}. Once'],
    [
      "a message",
      [none("error", { message: "no connection.\nat line 1" }), none("b")],
      "The first: error: no connection. Once",
    ],
    [
      "an environment's",
      [environment, environment],
      "The environment failed in all 2 conversations of step 3, so that",
    ],
    [
      "of both",
      [environment, none("a"), none("b")],
      "failed in 1 of the 3 conversations of step 3, and the verifier judged none of the other 2.",
    ],
  ])("ends the run with the first's reason: %s", async (_, verdicts, words) => {
    const forget = jest.fn(async () => {});
    await expect(requireVerdicts(verdicts, "step 3", forget)).rejects.toMatchObject({
      code: "ERR_RLSD_UNJUDGED",
      message: expect.stringContaining(words),
    });
    expect(forget).toHaveBeenCalledTimes(1);
  });

  test("is not one with a verdict among them", async () => {
    const forget = jest.fn(async () => {});
    await requireVerdicts([none("timeout"), { reward: 0, detail: {} }], "step 3", forget);
    expect(forget).not.toHaveBeenCalled();
  });
});
