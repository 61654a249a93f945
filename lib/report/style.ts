import { COLORS } from "./chart.js";

/** Of every page. Colours are chosen so that neither curves nor credit need red told from green. */
export const STYLE = `
:root { color-scheme: light dark; --bg: #fff; --text: #1f2328; --soft: #59636e; --line: #d9dee3; --card: #f6f8fa;
  --more: 217 95 14; --less: 31 119 180;
  --c0: #0b6bcb; --c1: #d95f0e; --c2: #2a9d6f; --c3: #8a4fbf; --c4: #b59410; --c5: #777f88; }
@media (prefers-color-scheme: dark) { :root { --bg: #0d1117; --text: #e6edf3; --soft: #9198a1; --line: #30363d;
  --card: #161b22; --more: 232 126 50; --less: 66 153 225;
  --c0: #58a6ff; --c1: #f0883e; --c2: #3fb98a; --c3: #bc8cff; --c4: #d8b933; --c5: #8b949e; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--bg); margin: 0 auto;
  padding: 1.5rem 1.25rem 4rem; max-width: 1180px; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
small, .soft { color: var(--soft); } code, pre, .tokens { font-family: ui-monospace, monospace; }
.facts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; padding: 0; list-style: none; }
.facts li { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .5rem .9rem; }
.facts b { display: block; font-size: 1.25rem; } .facts span { color: var(--soft); font-size: .85rem; }
.warnings { border-left: 4px solid var(--c1); background: var(--card); padding: .5rem 1rem .5rem 2rem; margin: 1rem 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1rem; }
.chart { margin: 0; position: relative; border: 1px solid var(--line); border-radius: 8px; padding: .6rem; max-width: 580px; }
.chart svg { width: 100%; height: auto; display: block; } figcaption { font-size: .9rem; } figcaption small { display: block; }
.legend span { margin-left: .7rem; font-size: .82rem; overflow-wrap: anywhere; }
.key { display: inline-block; width: .7rem; height: .25rem; border-radius: 2px; margin-right: .3rem; vertical-align: middle; }
.grid { stroke: var(--line); } .guide { stroke: var(--soft); stroke-dasharray: 4 4; } .cross { stroke: var(--soft); visibility: hidden; }
.axis { fill: var(--soft); font-size: 10.5px; } .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .band { opacity: .16; }
.tip { position: absolute; display: none; pointer-events: none; white-space: pre; background: var(--bg); border: 1px solid var(--line);
  border-radius: 6px; padding: .25rem .5rem; font-size: .8rem; z-index: 2; }
${Array.from({ length: COLORS }, (_, i) => `.line.c${i} { stroke: var(--c${i}); } .band.c${i}, .dot.c${i} { fill: var(--c${i}); } .key.c${i} { background: var(--c${i}); }`).join("\n")}
.line.again { stroke-dasharray: 5 3; } .key.again { width: 1rem; mask: repeating-linear-gradient(90deg, #000 0 4px, transparent 4px 6px); }
.filters { position: sticky; top: 0; background: var(--bg); padding: .4rem 0; z-index: 1; display: flex; flex-wrap: wrap; gap: 1rem; }
#reading { font-family: ui-monospace, monospace; font-size: .85rem; color: var(--soft); }
.sample { border: 1px solid var(--line); border-left: 4px solid var(--c5); border-radius: 8px; padding: .5rem .9rem; margin: .7rem 0; }
.sample.up { border-left-color: var(--c2); } .sample.down { border-left-color: var(--c3); }
.sample header span { margin-left: .7rem; } .sample .a { font-weight: 600; } .sample small { margin-left: .7rem; }
.tokens { white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0 .2rem; line-height: 1.75; }
.t { border-radius: 3px; padding: .1em 0; unicode-bidi: isolate; } .t.part { padding: .1em .2em; } .t.read { color: var(--soft); font-style: italic; } .t:hover, .t:focus { outline: 1.5px solid var(--text); }
pre { background: var(--card); padding: .6rem; border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 22rem; overflow-y: auto; }
pre.seen { border-left: 3px solid var(--c1); } summary { cursor: pointer; color: var(--soft); font-size: .88rem; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); gap: 1.2rem; margin-top: 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; align-self: start; } caption { text-align: left; font-weight: 600; }
.wide { overflow-x: auto; margin-top: 1.2rem; } a { color: var(--c0); }
th, td { text-align: right; padding: .15rem .4rem; border-bottom: 1px solid var(--line); } th:first-child, td:first-child { text-align: left; }
th { color: var(--soft); font-weight: 500; } td code { white-space: pre-wrap; overflow-wrap: anywhere; }
@media print { .filters { display: none; } .chart, .sample { break-inside: avoid; } }
`;
