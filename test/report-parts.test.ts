import { duration } from "../lib/duration.js";
import { type Chart, chart, thinned } from "../lib/report/chart.js";
import { escapeHtml, html, tokenName, visible } from "../lib/report/html.js";
import { short, ticks } from "../lib/report/numbers.js";
import { STYLE } from "../lib/report/style.js";

describe("the markup", () => {
  test("escapes everything that is not markup itself", () => {
    const hostile = `<img src=x onerror="alert('1')">&`;
    expect(html`<p title="${hostile}">${[hostile, html`<b>${1}</b>`, undefined, false, null]}</p>`.text).toBe(
      `<p title="${escapeHtml(hostile)}">${escapeHtml(hostile)}<b>1</b></p>`,
    );
    expect(escapeHtml(hostile)).toBe("&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt;&amp;");
  });

  test("shows control characters instead of obeying them", () => {
    expect(visible("a\tb\u001b[31m\u202ec\n\u007f\u0085é")).toBe("a\u2409b\u241b[31m\ufffdc\u21b5\n\u2421\ufffdé");
  });
});

test("a token that stands alone is never blank", () => {
  expect(["", "  ", " a", "\n", "\t", "\u200b", "\u3000", "a\u200d\u00a0"].map(tokenName)).toEqual([
    "(part of a character)",
    "\u2423\u2423",
    " a",
    "\u21b5",
    "\u2409",
    "U+200B",
    "U+3000",
    "aU+200DU+00A0",
  ]);
});

describe("numbers", () => {
  test.each([
    [0, "0"],
    [0.012345, "0.0123"],
    [12.345, "12.3"],
    [1234.5, "1235"],
    [2e-4, "2e-4"],
    [3.21e9, "3.2e9"],
    [Number.NaN, "not finite"],
  ])("%d in short is %s", (value, text) => expect(short(value)).toBe(text));

  test.each([
    [340, "340 ms"],
    [12_040, "12.0 s"],
    [245_000, "4:05"],
    [3_723_000, "1:02:03"],
  ])("%d ms is %s", (ms, text) => expect(duration(ms)).toBe(text));

  test("an axis has round steps that cover its values", () => {
    expect(ticks(0, 60, 5)).toEqual([0, 20, 40, 60]);
    expect(ticks(0.03, 0.97, 4)).toEqual([0, 0.5, 1]);
    expect(ticks(-0.012, 0.011, 4)).toEqual([-0.02, -0.01, 0, 0.01, 0.02]);
    // One value alone still makes an axis.
    expect(ticks(7, 7, 4).length).toBeGreaterThan(1);
    expect(ticks(0, 0, 4).length).toBeGreaterThan(1);
  });

  test.each([
    [0.3, 0.1 + 0.2],
    [-0.1 - 0.2, -0.3],
    [1e-7, 1e-7],
    [1e6, 1e6 + 1e-9],
    [0.7, 0.7 + 1e-8],
  ])("an axis from %d to %d has ticks that differ, with both between them", (low, high) => {
    const marks = ticks(low, high, 4);
    expect(new Set(marks).size).toBe(marks.length);
    expect([marks.length > 1, marks[0]! <= low + 1e-9, marks.at(-1)! >= high - 1e-9]).toEqual([true, true, true]);
  });
});

describe("a chart", () => {
  const one: Chart = {
    title: "T",
    about: "about",
    include: [0, 1],
    series: [
      {
        name: "s",
        points: [
          { x: 0, y: 0 },
          { x: 10, y: 1 },
        ],
      },
    ],
  };

  test("puts the axes' ends at the edges of its area", () => {
    const text = chart(one)!.text;
    expect(text).toContain(`points="46.0,166.0 350.0,8.0"`);
    expect(text).toContain("at the end: s 1");
  });

  test("leaves out what is not finite, and is not there without points", () => {
    const points = [
      { x: 0, y: Number.NaN },
      { x: 1, y: 1, low: Number.NEGATIVE_INFINITY, high: 1 },
    ];
    expect(chart({ ...one, series: [{ name: "s", points }] })).toBeUndefined();
    expect(chart({ ...one, series: [] })).toBeUndefined();
  });

  test("names whole steps alone", () => {
    const points = [1, 2, 3].map((x) => ({ x, y: x }));
    const { text } = chart({ ...one, series: [{ name: "s", points }] })!;
    const named = [...text.matchAll(/text-anchor="middle">([^<]*)</g)].map(([, label]) => label);
    expect(named).toEqual(["1", "2", "3"]);
  });

  test("of a long run shows means of equal stretches, however long", () => {
    const points = Array.from({ length: 300_000 }, (_, x) => ({ x, y: x % 2, low: 0, high: 1 }));
    const few = thinned(points, 100);
    expect(few).toHaveLength(100);
    expect(few.at(-1)).toEqual({ x: 299_999, y: 0.5, low: 0, high: 1 });
    expect(chart({ ...one, series: [{ name: "s", points }] })!.text.length).toBeLessThan(60_000);
  });

  test("of a constant that was averaged has numbers in it alone", () => {
    const points = Array.from({ length: 500 }, (_, x) => ({ x, y: 0.7 }));
    expect(chart({ ...one, include: [], series: [{ name: "s", points }] })!.text).not.toContain("NaN");
  });

  test("with more series than colours begins them again, dashed: each has marks that the page knows", () => {
    const series = Array.from({ length: 8 }, (_, i) => ({ name: `s${i}`, points: [{ x: 0, y: i }] }));
    const used = [...chart({ ...one, series })!.text.matchAll(/class="line ([^"]*)"/g)].map((match) => match[1]);
    expect(used).toEqual(["c0", "c1", "c2", "c3", "c4", "c5", "c0 again", "c1 again"]);
    expect(STYLE).toContain(".line.again { stroke-dasharray");
    expect(STYLE).toContain(".line.c5 { stroke: var(--c5); }");
    expect(STYLE).toContain("--c5:");
  });

  test("its readings are data, whatever a name contains", () => {
    const name = `"></figure><script>`;
    const text = chart({ ...one, series: [{ ...one.series[0]!, name }] })!.text;
    expect(text).not.toContain("<script>");
    const readings = /data-readings="([^"]*)"/.exec(text)![1]!;
    const back = readings.replaceAll("&quot;", '"').replaceAll("&lt;", "<").replaceAll("&gt;", ">");
    expect(JSON.parse(back)).toEqual([
      [46, "0", [[name, "0"]]],
      [350, "10", [[name, "1"]]],
    ]);
  });
});
