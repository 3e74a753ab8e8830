"""What the picture of a rehearsal looks like: on a screen of any width, dark where the reader likes it dark."""

STYLE = """
:root { color-scheme: light dark; --paper:#ffffff; --panel:#f6f7f9; --ink:#17202b; --soft:#5a6675; --grid:#e2e6eb;
  --rule:#d3d9e0; --given:#e3e8ee; --recorded:#7f8b99; --now:#1d63d1; --new:#d4560b; --good:#12763a; --bad:#b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper:#10151c; --panel:#171e27; --ink:#e7ecf3; --soft:#9aa7b6;
  --grid:#26303c; --rule:#344150; --given:#27313d; --recorded:#8a97a6; --now:#6aa8ff; --new:#ff9a4d; --good:#5fd28a;
  --bad:#ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 56px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3em; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 0; overflow-wrap: anywhere; }
h3 { font-size: .95rem; margin: 1.6em 0 .5em; }
p { margin: .35em 0; }
.about, .note, footer { color: var(--soft); }
.note, footer { font-size: .9rem; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .2em; }
.answer { font-size: 1.12rem; margin: 1em 0; padding: .8em 1em; background: var(--panel); border-left: 4px solid
  var(--new); border-radius: 0 8px 8px 0; }
.answer.now { border-color: var(--now); }
.answer b { font-weight: 650; }
section { margin-top: 40px; padding-top: 26px; border-top: 1px solid var(--rule); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .3em 1.8em; margin: 1em 0; padding: 0;
  font-size: .92rem; color: var(--soft); }
.legend b { color: var(--ink); font-weight: 600; }
.legend i { display: inline-block; width: 1.7em; height: 0; border-top: 3px solid; margin-right: .5em;
  vertical-align: .28em; }
.legend i.handed-in { border-top: 0; height: .8em; background: var(--given); vertical-align: -.05em;
  outline: 1px solid var(--rule); }
.legend i.recorded { border-color: var(--recorded); border-top-style: dashed; border-top-width: 2px; }
.legend i.now { border-color: var(--now); }
.legend i.new { border-color: var(--new); }
figure { margin: 1.4em 0 0; }
figcaption { font-size: .92rem; color: var(--soft); margin-bottom: .5em; }
figcaption b { color: var(--ink); font-weight: 600; }
.plot { position: relative; height: 210px; margin-left: 58px; }
.plot svg { display: block; width: 100%; height: 100%; overflow: visible; }
.y span { position: absolute; right: 100%; margin-right: 8px; transform: translateY(50%); font-size: .78rem;
  color: var(--soft); font-variant-numeric: tabular-nums; white-space: nowrap; }
.x { position: relative; height: 1.6em; margin: 4px 0 0 58px; font-size: .78rem; color: var(--soft); }
.x span { position: absolute; transform: translateX(-50%); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.x span::before { content: ""; position: absolute; left: 50%; top: -4px; height: 4px; border-left: 1px solid
  var(--rule); }
svg .grid { stroke: var(--grid); stroke-width: 1; vector-effect: non-scaling-stroke; }
svg .mark { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 4; vector-effect: non-scaling-stroke; }
svg path { fill: none; stroke-linejoin: round; stroke-linecap: round; stroke-width: 2; }
svg path.handed-in { fill: var(--given); stroke: none; }
svg path.recorded { stroke: var(--recorded); stroke-width: 1.6; stroke-dasharray: 5 4; }
svg path.now { stroke: var(--now); }
svg path.new { stroke: var(--new); stroke-width: 2.4; }
.force { margin: .8em 0 0 58px; }
.bars { margin-top: .45em; font-size: .82rem; }
.bars > span { display: block; color: var(--soft); overflow-wrap: anywhere; line-height: 1.35; }
.bars > span b { font-weight: 600; }
.track { position: relative; height: 10px; margin-top: 2px; border-radius: 3px; background: var(--panel); }
.track i { position: absolute; top: 0; height: 100%; border-radius: 3px; background: var(--now); }
.bars.new .track i { background: var(--new); }
.bars.recorded .track i { background: var(--recorded); }
.now b { color: var(--now); } .new b { color: var(--new); } .recorded b { color: var(--recorded); }
.answer b { color: inherit; }
.wide { overflow-x: auto; margin-top: 1em; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .38em 0 .38em 1.2em; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); border-bottom-color: var(--rule); white-space: normal;
  vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
td.left, th.left { text-align: left; white-space: normal; }
td.left { min-width: 11em; }
td.left small { display: block; color: var(--soft); overflow-wrap: anywhere; }
td .was { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 0 40px; }
.causes { list-style: none; margin: 0; padding: 0; font-size: .92rem; }
.causes li { margin: .55em 0; overflow-wrap: anywhere; }
.causes small { color: var(--soft); font-size: .86rem; }
.causes .part { display: block; height: 6px; margin-top: 3px; border-radius: 3px; background: var(--panel); }
.causes .part i { display: block; height: 100%; border-radius: 3px; background: var(--now); min-width: 2px; }
.new .causes .part i { background: var(--new); }
.recorded .causes .part i { background: var(--recorded); }
.whose { font-size: .85rem; margin: .9em 0 .2em; color: var(--soft); }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
footer { margin-top: 48px; padding-top: 18px; border-top: 1px solid var(--rule); }
@media (max-width: 640px) {
  main { padding: 20px 16px 40px; }
  h1 { font-size: 1.4rem; }
  .plot { height: 170px; margin-left: 54px; } .x { margin-left: 54px; } .force { margin-left: 0; }
  .track { margin-left: 54px; }
  .old { display: none; }
  .x span:nth-child(even) { display: none; }
  .two { grid-template-columns: 1fr; }
  th, td { padding-left: .6em; } table { font-size: .84rem; } td.left { min-width: 8.5em; }
}
@media print { section { break-inside: avoid; } }
"""
