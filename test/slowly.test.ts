import { slowly } from "../lib/cli/slowly.js";

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
