import { PassThrough } from "node:stream";
import { onceSlow, slowly } from "../lib/cli/slowly.js";

test("how far a count has come is told every two seconds, whatever the computer's clock is set to meanwhile", () => {
  const told: string[] = [];
  const stderr = jest.spyOn(process.stderr, "write").mockImplementation((text) => told.push(String(text)) > 0);
  const clock = jest.spyOn(Date, "now").mockReturnValue(1e12);
  const running = jest.spyOn(performance, "now").mockReturnValue(0);
  try {
    const tell = slowly("rows read");
    for (const [ms, count] of [
      [1000, 10],
      [2500, 20],
      [3000, 30],
      [4600, 40],
    ] as const) {
      running.mockReturnValue(ms);
      clock.mockReturnValue(1e12 - ms);
      tell(count);
    }
  } finally {
    for (const spy of [stderr, clock, running]) spy.mockRestore();
  }
  expect(told).toEqual(["rlsd: 20 rows read\n", "rlsd: 40 rows read\n"]);
});

test("what takes more than two seconds is told once, and nothing of what ended before", () => {
  jest.useFakeTimers();
  try {
    const stderr = Object.assign(new PassThrough(), { isTTY: true });
    const piped = new PassThrough();
    const [long, short] = [onceSlow("reading", stderr), onceSlow("writing", stderr)];
    onceSlow("reading", piped);
    jest.advanceTimersByTime(1900);
    short();
    jest.advanceTimersByTime(60_000);
    long();
    expect(String(stderr.read())).toBe("rlsd: reading\n");
    expect(piped.read()).toBeNull();
  } finally {
    jest.useRealTimers();
  }
});
