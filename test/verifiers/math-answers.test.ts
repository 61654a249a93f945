import { createVerifier } from "../../lib/verifiers/registry.js";
import type { Verifier } from "../../lib/verifiers/verifier.js";
import { never, sample } from "./support.js";

let math: Verifier;

beforeAll(async () => {
  math = createVerifier({ type: "math", workers: 1 });
});
afterAll(() => math.dispose?.());

/** Right answer, completion, reward: answers as models write them. */
const CASES: readonly (readonly [gold: string, completion: string, reward: 0 | 1])[] = [
  ["\\frac{3}{4}", "\\[ \\boxed{\\frac{3}{4}} \\]", 1],
  ["(5,3)", "Therefore, $x = \\boxed{5}$ and $y = \\boxed{3}$.", 1],
  ["5", "we get \\boxed{5}, so the answer is \\boxed{5}.", 1],
  ["2,3", "\\boxed{x = 2 \\text{ or } x = 3}", 1],
  ["x = 2 \\text{ or } x = 3", "\\boxed{2, 3}", 1],
  ["\\sqrt{2}", "\\boxed{\\sqrt{2}\\text{ units}}", 1],
  ["\\frac{1}{\\sqrt3}", "\\boxed{ \\frac{\\sqrt{3}}{3} }", 1],
  ["0.05", "\\boxed{5\\%}", 1],
  ["3.14", "\\boxed{\\approx 3.14}", 1],
  ["0.0000123", "\\boxed{1.23 \\times 10^{-5}}", 1],
  ["(x-1)^2+(y+2)^2-9=0", "\\boxed{(x-1)^2 + (y+2)^2 = 9}", 1],
  ["x+2y=6", "\\boxed{y = -\\frac{1}{2}x + 3}", 1],
  ["(2,\\infty)", "\\boxed{\\{x \\mid x > 2\\}}", 1],
  ["(2,\\infty)", "\\boxed{\\{x : x > 2\\}}", 1],
  ["\\{x \\mid x > 2\\}", "\\boxed{(2,\\infty)}", 1],
  ["12", "\\boxed{12\\,\\mathrm{m}}", 1],
  ["12 \\text{ km}", "\\boxed{12\\,\\mathrm{m}}", 0],
  ["3\\sqrt{2}", "\\boxed{3\\sqrt{2} \\approx 4.24}", 1],
  ["4.24", "\\boxed{x \\approx 4.24}", 1],
  ["\\frac{10}{3}", "\\boxed{3.\\overline{3}}", 1],
  ["60", "\\boxed{60\\,\\mathrm{km/h}}", 1],
  ["2e", "\\boxed{2\\mathrm{e}}", 1],
  ["Yes", "\\boxed{\\text{Yes}}", 1],
  ["2x+1", "\\boxed{f(x) = 2x + 1}", 1],
  ["18", "She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", 1],
  ["18", "Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs a day.\nShe makes $18.", 1],
  ["72", "**Answer: 72**", 1],
  ["72", "**Final Answer:** 72 clips", 1],
  ["-1", "The answer is -1.", 1],
  ["1", "The answer is -1.", 0],
  ["5", "The answer is: $\\boxed{5}$. Hope that helps with all 3 parts!", 1],
  ["5", "So there are 5 ways. Let me check: 2+3=5. Yes, the answer is 5, not 6.", 1],
  ["6", "So the answer is 5, not 6.", 0],
  ["4", "\\boxed{2+2}", 1],
  ["4", "\\boxed{2+2=4}", 1],
  ["x^2+1", "\\boxed{1+x^{2}}", 1],
  ["\\frac{1}{x+1}", "\\boxed{(x+1)^{-1}}", 1],
  ["\\log_{10} 100", "\\boxed{2}", 1],
  ["\\tan^{-1}(1)", "\\boxed{\\frac{\\pi}{4}}", 1],
  ["5!", "\\boxed{120}", 1],
  ["\\lfloor 3.7 \\rfloor", "\\boxed{3}", 1],
  ["\\gcd(12,18)", "\\boxed{6}", 1],
  ["[0,1]\\cup[2,3]", "\\boxed{[2,3]\\cup[0,1]}", 1],
  ["(-1,1)", "\\boxed{-1<x<1}", 0],
  ["-1<x<1", "\\boxed{|x|<1}", 1],
  ["x\\ge 2 \\text{ or } x\\le -2", "\\boxed{(-\\infty,-2]\\cup[2,\\infty)}", 1],
  ["(-\\infty,-2]\\cup[2,\\infty)", "\\boxed{x\\le -2 \\text{ or } x\\ge 2}", 0],
  ["\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\boxed{\\begin{bmatrix}1\\\\2\\end{bmatrix}}", 1],
  ["1,2,3", "\\boxed{1, 2, 3, 4}", 0],
  ["\\frac{2}{3}", "\\boxed{2/3}", 1],
  ["\\text{June 5}", "\\boxed{\\text{June 5}}", 1],
  ["10:30", "\\boxed{10:30\\text{ AM}}", 1],
  ["1+2i", "\\boxed{2i+1}", 1],
  ["e^{i\\pi}", "\\boxed{-1}", 1],
  ["-\\frac{\\pi}{2}", "\\boxed{-\\pi/2}", 1],
  ["0", "\\boxed{-0}", 1],
  ["\\infty", "\\boxed{\\infty}", 1],
  ["\\infty", "\\boxed{-\\infty}", 0],
  ["\\infty", "\\boxed{5}", 0],
  ["5", "\\boxed{\\infty}", 0],
  ["\\text{DNE}", "\\boxed{\\text{Does not exist}}", 0],
  ["2^{10}", "\\boxed{1024}", 1],
  ["7 \\cdot 11", "\\boxed{77}", 1],
  ["a=1,b=2", "\\boxed{a=1, b=2}", 1],
  ["x^3y", "\\boxed{yx^3}", 1],
  ["\\sqrt[3]{8}", "\\boxed{2}", 1],
  ["0.1", "\\boxed{.1}", 1],
  ["1{,}000{,}000", "\\boxed{10^6}", 1],
];

test.each(CASES)("%s against %s is %d", async (answer, completion, reward) => {
  expect((await math.verify(sample(completion, { answer }), never)).reward).toBe(reward);
});
