// The page's style sheet. Colours of series are CSS variables, so that one picture serves light, dark and print.
#include "umbriel/report/parts.hpp"

namespace umbriel::report {

std::string style_sheet() {
  return R"css(
:root {
  --paper: #fbfaf7; --ink: #1d1c22; --soft: #62606b; --rule: #dedad1; --panel: #f3f1ea; --grid: #ebe8e1;
  --posterior: #6a3fa8; --truth: #17161b; --wiener: #0b7c8c; --direct: #c26a00; --prior: #85818f; --warn: #c0262d;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Source Serif 4", "Noto Serif", Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", "Noto Sans", "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131217; --ink: #e9e6ee; --soft: #a19dac; --rule: #34313d; --panel: #1c1a22; --grid: #2a2832;
    --posterior: #b48cf2; --truth: #f4f1f8; --wiener: #4cc3d1; --direct: #f2a03d; --prior: #8d8898; --warn: #ff7b78;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.55 var(--serif); }
main { max-width: 1160px; margin: 0 auto; padding: 56px 32px 96px; }
.definitions { position: absolute; width: 0; height: 0; }

.brand { margin: 0 0 18px; font: 600 13px/1 var(--sans); letter-spacing: .14em; text-transform: uppercase; color: var(--posterior); }
.brand span { color: var(--soft); font-weight: 400; }
h1 { margin: 0; font-size: clamp(32px, 5.2vw, 52px); line-height: 1.08; font-weight: 500; letter-spacing: -.015em; text-wrap: balance; }
.subtitle { margin: 14px 0 0; font: 15px/1.5 var(--sans); color: var(--soft); overflow-wrap: anywhere; }
.subtitle i { font-style: normal; padding: 0 .3em; }
.lead { max-width: 44em; margin: 24px 0 0; font-size: 19px; }
.key-figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)); gap: 22px 20px; margin: 36px 0 0; padding: 20px 0 18px;
  border: solid var(--rule); border-width: 1px 0; }
.key-figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.key-figures dd { margin: 0; font-size: 25px; line-height: 1.2; font-variant-numeric: lining-nums; white-space: nowrap; }
.key-figures dt { margin-top: 2px; font: 13px/1.4 var(--sans); color: var(--soft); }
.key-figures .warning dd, .warn-text { color: var(--warn); }
nav { display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 20px 0 0; font: 14px/1.5 var(--sans); }
a { color: inherit; text-decoration-color: var(--rule); text-underline-offset: 4px; }
nav a { color: var(--soft); text-decoration: none; }
a:hover { color: var(--posterior); }

section { margin-top: 68px; }
h2 { margin: 0 0 6px; font-size: 30px; line-height: 1.2; font-weight: 500; letter-spacing: -.01em; }
h3 { margin: 36px 0 6px; font-size: 20px; font-weight: 600; }
section > p { max-width: 44em; margin: 0 0 18px; }
.figures + .note { margin-top: 18px; }
.note { font: 14px/1.5 var(--sans); color: var(--soft); }

.figures { display: grid; gap: 34px 28px; margin: 22px 0 0; }
.figures + .figures { margin-top: 34px; }
@media (min-width: 720px) { .of-2, .of-3 { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media (min-width: 980px) { .of-3 { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 34px 22px; } }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figcaption { margin-top: 8px; font: 13.5px/1.5 var(--sans); color: var(--soft); max-width: 40em; }
figcaption b { color: var(--ink); font-weight: 600; }
figcaption b::first-letter { text-transform: uppercase; }
figcaption b { display: inline-block; margin-right: .25em; }
figcaption b::after { content: "."; }

.plot { display: block; width: 100%; height: auto; font: 12px var(--sans); font-variant-numeric: tabular-nums; overflow: visible; }
.plot text { fill: var(--soft); }
.plot .label { fill: var(--ink); }
.plot .legend text { fill: var(--ink); }
.axis { fill: none; stroke: var(--soft); stroke-width: .8; }
.grid { fill: none; stroke: var(--grid); stroke-width: 1; }
.line { fill: none; stroke: currentColor; stroke-linejoin: round; stroke-linecap: round; }
.line[stroke-dasharray] { stroke-linecap: butt; }
.area { fill: currentColor; stroke: none; }
.pixels { image-rendering: pixelated; }
.edge { fill: none; stroke: #fff; stroke-width: .9; stroke-opacity: .85; vector-effect: non-scaling-stroke; }
.edge-shade { fill: none; stroke: #000; stroke-width: 2.2; stroke-opacity: .4; vector-effect: non-scaling-stroke; }
.posterior { color: var(--posterior); } .truth { color: var(--truth); } .wiener { color: var(--wiener); }
.direct { color: var(--direct); } .prior { color: var(--prior); } .warn { color: var(--warn); }

.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 16px 0 0; font: 15px/1.45 var(--sans); font-variant-numeric: tabular-nums; }
th, td { padding: 7px 28px 7px 0; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--rule); }
thead th { font-weight: 400; font-size: 13px; color: var(--soft); white-space: nowrap; }
tbody th { font-weight: 400; }
.facts th { color: var(--soft); white-space: nowrap; }
.facts td { overflow-wrap: anywhere; }
.numbers td { text-align: right; white-space: nowrap; } .numbers th + th { text-align: right; }
.numbers tbody th::first-letter { text-transform: uppercase; }
.best { font-weight: 700; }
.checksum { font: 12.5px/1.45 var(--mono); color: var(--soft); word-break: break-all; min-width: 17em; }
pre { margin: 14px 0 0; padding: 18px 20px; background: var(--panel); border-radius: 6px; font: 13px/1.55 var(--mono); white-space: pre-wrap; overflow-wrap: anywhere; }
code { font: .88em var(--mono); }

@media (max-width: 560px) {
  body { font-size: 16px; }
  main { padding: 30px 18px 64px; }
  .lead { font-size: 17px; }
  .key-figures { grid-template-columns: 1fr 1fr; }
  .key-figures dd { font-size: 23px; }
  section { margin-top: 52px; }
  h2 { font-size: 26px; }
  th, td { padding-right: 16px; }
}
@media print {
  :root {
    --paper: #fff; --ink: #000; --soft: #444; --rule: #ccc; --panel: #f4f4f4; --grid: #e6e6e6;
    --posterior: #6a3fa8; --truth: #000; --wiener: #0b7c8c; --direct: #c26a00; --prior: #85818f; --warn: #c0262d;
  }
  @page { margin: 16mm 14mm; }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  section { margin-top: 28pt; }
  h2, h3, section > p { break-after: avoid; }
  tr, .numbers { break-inside: avoid; }
  section > p { break-inside: avoid; }
  /* printers scale "non-scaling" strokes: count in map pixels instead */
  .edge { vector-effect: none; stroke-width: .9; }
  .edge-shade { vector-effect: none; stroke-width: 2; }
  .of-2 { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .of-3 { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 16pt 12pt; }
  figcaption { font-size: 8.5pt; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
)css";
}

}  // namespace umbriel::report
