import { examine } from "../lib/cli/doctor-report.js";
import { backendInfo } from "../lib/index.js";

describe("rlsd doctor", () => {
  const report = examine();

  test("computes the worked example of docs/maths.md", () => {
    expect(report.example.correct).toBe(true);
    const [, , right, , , wrong] = report.example.tokens;
    expect(right).toMatchObject({ token: "=28" });
    expect(right?.weight).toBeCloseTo(1.2, 6);
    expect(right?.advantage).toBeCloseTo(Math.SQRT1_2 * 1.1, 3);
    expect(wrong?.advantage).toBeCloseTo(-Math.SQRT1_2 * 1.1, 3);
    expect(Math.sign(wrong?.gradient ?? 0)).toBe(1);
  });

  test("names each backend, and why one is not available", () => {
    expect(report.backends).toEqual(backendInfo());
    expect(report.backends.cpu).toMatchObject({ available: true });
    for (const backend of Object.values(report.backends)) {
      if (!backend.available) expect(backend.reason).toMatch(/\w/);
    }
  });
});
