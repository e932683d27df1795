"""The report's style sheet: light and dark by the reader's preference, and no font or image from elsewhere.

Before is orange and hollow, after is blue and filled, alarms are vermilion (hues after Okabe and Ito 2008,
which stay apart for every common kind of colour blindness); shapes repeat what colours say.
"""

CSS = """
:root { color-scheme: light dark;
  --bg: #f6f7f9; --card: #ffffff; --ink: #16202c; --soft: #55616f; --rule: #dfe4ea; --grid: #e8ecf1;
  --before: #b85c00; --after: #0063b2; --good: #00795a; --bad: #c03a00; --bad-wash: #c03a0012;
  --thin: #8796a8; --other: #5a6878; --accent-wash: #0063b20d; --code: #eef1f5; }
@media (prefers-color-scheme: dark) { :root {
  --bg: #0e1319; --card: #171e27; --ink: #e8edf3; --soft: #a3b0be; --rule: #2b3643; --grid: #242e3a;
  --before: #f2a33a; --after: #62b5ff; --good: #3ecf9f; --bad: #ff8a5c; --bad-wash: #ff8a5c1a;
  --thin: #73849a; --other: #8fa0b5; --accent-wash: #62b5ff14; --code: #202a35; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--bg); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", "DejaVu Sans",
    sans-serif; }
main, header, footer { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 44px; }
.kicker { color: var(--soft); font-size: 14px; margin: 0 0 6px; }
h1 { font-size: clamp(26px, 4.6vw, 44px); line-height: 1.15; margin: 0; letter-spacing: -0.02em; text-wrap:
  balance; }
h1 .was { color: var(--before); } h1 .is { color: var(--after); } h1 .arrow { color: var(--soft);
  font-weight: 400; }
h1 span { white-space: nowrap; }
h2 { font-size: 22px; margin: 44px 0 4px; letter-spacing: -0.01em; }
h3 { font-size: 16px; margin: 0 0 2px; }
p { margin: 0 0 10px; } .lead { max-width: 46em; } .soft, figcaption { color: var(--soft); }
figcaption, .note { font-size: 14px; } .note { margin: 8px 0 0; color: var(--soft); }
.verdict { margin: 18px 0 0; padding: 12px 16px; border-left: 4px solid var(--good); background: var(--card);
  border-radius: 0 8px 8px 0; max-width: 62em; }
.verdict.not { border-left-color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px
  0 0; padding: 0; }
.tiles div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px
  14px; }
.tiles dt { color: var(--soft); font-size: 13px; } .tiles dd { margin: 0; font-size: 22px; font-weight: 650;
  letter-spacing: -0.01em; }
.tiles dd small { display: block; font-size: 13px; font-weight: 400; color: var(--soft); letter-spacing: 0; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 18px 20px;
  margin: 14px 0 0; min-width: 0; }
.lead, .note, figcaption, .verdict { text-wrap: pretty; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap: 14px;
  align-items: stretch; }
figure { margin: 0; } .pair figure { display: flex; flex-direction: column; } .pair .wide { margin-top:
  auto; } figcaption { margin: 0 0 8px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
.legend svg { display: inline-block; width: 18px; height: 14px; vertical-align: -2px; margin-right: 5px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; list-style: none; padding: 0; margin: 0 0 10px;
  font-size: 14px; color: var(--soft); }
.narrow { display: none; }
svg text { font-size: 13px; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .tick, svg .axis-label { fill: var(--soft); font-size: 12px; }
svg .group { font-weight: 650; font-size: 14px; } svg .value { font-weight: 600; font-size: 12.5px;
  paint-order: stroke; stroke: var(--card);
  stroke-width: 3px; stroke-linejoin: round; }
svg .value.before { fill: var(--before); } svg .value.after { fill: var(--after); }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .limit { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 4 3; }
svg .reference { stroke: var(--soft); stroke-width: 2; }
svg .whisker { stroke-width: 3; stroke-linecap: round; opacity: .55; }
svg .whisker.before { stroke: var(--before); } svg .whisker.after { stroke: var(--after); }
svg .dot.before { fill: var(--card); stroke: var(--before); stroke-width: 2.5; } svg .dot.after { fill:
  var(--after); }
svg .trace { fill: none; stroke-linejoin: round; stroke-linecap: round; }
svg .trace.thin { stroke: var(--thin); stroke-width: 1; opacity: .55; }
svg .trace.best, svg .trace.winner { stroke: var(--after); stroke-width: 2.5; }
svg .mark { stroke-width: 1.6; fill: none; }
svg .mark.complete { fill: var(--after); stroke: var(--card); stroke-width: 1; }
svg .mark.pruned { stroke: var(--before); } svg .mark.stopped { stroke: var(--good); fill: var(--card); }
svg .mark.failed { fill: var(--bad); }
svg .alarm-zone { fill: var(--bad-wash); } svg .alarm-text { fill: var(--bad); }
svg .stem { stroke-width: 3; opacity: .5; } svg .stem.silent { stroke: var(--after); } svg .stem.alarmed {
  stroke: var(--bad); }
svg .dot.silent { fill: var(--card); stroke: var(--after); stroke-width: 2.5; } svg .dot.alarmed { fill:
  var(--bad); }
svg .bar { fill: var(--after); opacity: .85; } svg .bar.idle { fill: var(--thin); }
svg .reign { stroke: var(--card); stroke-width: 1; } svg .reign.odd { fill: var(--after); } svg .reign.even {
  fill: var(--other); }
svg .reign-name { fill: var(--card); font-weight: 650; font-size: 12.5px; }
svg .spot.silent { fill: var(--after); opacity: .6; } svg .spot.alarmed { fill: var(--bad); }
svg .mark.goes-on { fill: var(--card); stroke: var(--after); }
svg .band { fill: var(--after); opacity: .16; } svg .held { stroke: var(--after); stroke-width: 2; }
svg .error { stroke-width: 1.2; opacity: .6; } svg .error.estimated { stroke: var(--before); } svg .error.labelled {
  stroke: var(--good); }
svg .figure.estimated { fill: var(--card); stroke: var(--before); stroke-width: 1.5; } svg .figure.labelled {
  fill: var(--good); }
.scroll { overflow-x: auto; } .scroll + .scroll { margin-top: 16px; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: 14px; padding-bottom: 6px; }
th, td { text-align: left; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--rule); vertical-align:
  top; }
thead th { color: var(--soft); font-weight: 600; font-size: 13px; } tbody th { font-weight: 500; }
tbody tr:last-child > * { border-bottom: 0; } td.number, th.number { text-align: right; white-space: nowrap; }
tr.total > * { font-weight: 650; }
.changed { background: var(--accent-wash); } .changed th::after { content: " ≠"; color: var(--after);
  font-weight: 700; }
tr.alarming { background: var(--bad-wash); } tr.alarming th { color: var(--bad); font-weight: 650; }
th:first-child { padding-left: 8px; }
.facts { table-layout: fixed; } .facts th { width: 24%; color: var(--soft); } .facts td, .facts th {
  overflow-wrap:
  anywhere; }
.log time, .log code { white-space: nowrap; } .log td { min-width: 9em; } .log td.number {
  min-width: 0; }
code { font: 13px ui-monospace, "Liberation Mono", "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
td code { background: none; } p code, dd code { background: var(--code); padding: 1px 5px; border-radius:
  4px; }
details { margin-top: 12px; } summary { cursor: pointer; color: var(--soft); font-size: 14px; margin-bottom:
  6px; }
.timeline { list-style: none; margin: 0; padding: 0; }
.timeline > li { position: relative; padding: 0 0 16px 92px; }
.timeline > li::before { content: ""; position: absolute; left: 71px; top: 8px; width: 10px; height: 10px;
  border-radius: 50%; background: var(--after); }
.timeline > li::after { content: ""; position: absolute; left: 75.5px; top: 20px; bottom: -8px; width: 1px;
  background: var(--rule); }
.timeline > li:last-child { padding-bottom: 0; } .timeline > li:last-child::after { display: none; }
.timeline time { position: absolute; left: 0; width: 58px; text-align: right; color: var(--soft); font-size:
  14px; font-variant-numeric: tabular-nums; }
.timeline .alarming { color: var(--bad); }
.timeline strong { font-weight: 650; } .timeline ul { margin: 4px 0 0; padding-left: 18px; font-size: 15px; }
.tag { display: inline-block; font-size: 12.5px; font-weight: 600; border: 1px solid currentColor;
  border-radius: 99px; padding: 0 9px; white-space: nowrap; }
.tag.yes { color: var(--good); } .tag.no { color: var(--bad); } .tag.plain { color: var(--soft); }
.decisions { display: grid; gap: 12px; margin-top: 14px; } .decisions .card { margin: 0; }
.decisions p { margin: 4px 0 0; } .decisions .why { color: var(--soft); }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(172px, 1fr)); gap: 14px;
  list-style: none; padding: 0; margin: 14px 0 0; }
.examples li { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; overflow:
  hidden; }
.examples img { display: block; width: 100%; aspect-ratio: 1; object-fit: cover; background: #000; }
.examples div { padding: 8px 10px 10px; font-size: 13.5px; line-height: 1.5; }
.examples .answer { display: block; } .examples .wrong { color: var(--bad); } .examples .right
  { color: var(--good); }
footer { padding-top: 30px; padding-bottom: 50px; color: var(--soft); font-size: 14px; }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--after);
  outline-offset: 2px; }
@media (max-width: 640px) {
  main, header, footer { padding-left: 14px; padding-right: 14px; } header { padding-top: 26px; }
  .wide { display: none; } .narrow { display: block; } .card { padding: 14px 14px; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .tiles div:last-child:nth-child(odd) { grid-column: 1 / -1; }
  .tiles dd { font-size: 19px; }
  .timeline > li { padding-left: 74px; } .timeline > li::before { left: 56px; } .timeline > li::after {
    left: 60.5px; }
  .timeline time { width: 46px; } .facts th { width: 36%; } .examples { grid-template-columns: 1fr 1fr; gap:
    10px; } }
@media print { body { background: none; } .card, .tiles div { break-inside: avoid; } details > * { display:
  block; } }
"""
