import { chart } from "./chart.js";
import { POSITIONS, type RunDigest, type TokenCredit } from "./digest.js";
import { type Html, html, tokenName } from "./html.js";
import { signed } from "./numbers.js";

/** Lines of each table. */
const SHOWN = 8;

interface Table {
  readonly title: string;
  readonly sign: number;
  /** 1: counted more, -1: counted less. */
  readonly direction: number;
}

const TABLES: readonly Table[] = [
  { title: "Blamed: A < 0, counted more", sign: -1, direction: 1 },
  { title: "Spared: A < 0, counted less", sign: -1, direction: -1 },
  { title: "Praised: A > 0, counted more", sign: 1, direction: 1 },
  { title: "Passed over: A > 0, counted less", sign: 1, direction: -1 },
];

function table(all: readonly TokenCredit[], { title, sign, direction }: Table): Html {
  const lines = all
    .filter((entry) => entry.sign === sign && entry.direction === direction)
    .sort((a, b) => Math.abs(b.excess) - Math.abs(a.excess) || (a.text < b.text ? -1 : 1))
    .slice(0, SHOWN);
  const rows = lines.map(
    ({ text, count, excess }) =>
      html`<tr><td><code>${tokenName(text)}</code></td><td>${signed(excess)}</td><td>${signed(excess / count, 3)}</td><td>${count}</td></tr>`,
  );
  const none = html`<tr><td colspan="4">none</td></tr>`;
  return html`<table><caption>${title}</caption><thead><tr><th>token</th><th>sum of w \u2212 1</th><th>mean</th><th>times</th></tr></thead><tbody>${rows.length > 0 ? rows : none}</tbody></table>`;
}

/** Which token texts were given most credit over the run, and where in a completion it lies. */
export function tokensSection({
  tokens,
  profile,
  creditedCount,
}: Pick<RunDigest, "tokens" | "profile" | "creditedCount">): Html | undefined {
  if (creditedCount === 0) return undefined;
  const places = (means: readonly number[]) =>
    means.map((y, i) => ({ x: (100 * (i + 0.5)) / POSITIONS, y })).filter(({ y }) => Number.isFinite(y));
  const where = chart({
    title: "Where credit lies",
    about: "Mean distance of a weight from 1, by place in the completion in percent",
    series: [
      { name: "A > 0", points: places(profile.positive) },
      { name: "A < 0", points: places(profile.negative) },
    ],
    include: [0],
    xName: "place, %",
  });
  return html`<section><h2>What the credit is given for</h2><p><small>Over all ${creditedCount} completions that a teacher spoke about.</small></p>
<div class="charts">${where}</div><div class="tables">${TABLES.map((one) => table(tokens, one))}</div></section>`;
}
