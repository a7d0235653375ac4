"""The style sheet of the report page: two sets of colors, one calm column."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f8f7f4; --card: #ffffff; --ink: #1d1c1a; --quiet: #65625b; --rule: #e5e2db;
  --line: #2a6fc9; --good: #1d7a4a; --warn: #9a6200; --bad: #b93226;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #141413; --card: #1d1d1b; --ink: #efede8; --quiet: #a5a199; --rule: #34332f;
    --line: #6aa6f0; --good: #5cbf8a; --warn: #dba54a; --bad: #ee8276;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 40px 20px 60px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 22px 0 4px; }
p { margin: 0 0 10px; overflow-wrap: anywhere; }
.quiet, footer, figcaption, small { color: var(--quiet); }
.quiet, small { font-size: 14px; }
.status { margin: 14px 0 24px; font-size: 15px; color: var(--quiet); }
.status b { display: inline-block; padding: 1px 11px; margin-right: 6px; border-radius: 12px;
  border: 1px solid currentColor; }
.status.good b { color: var(--good); }
.status.warn b { color: var(--warn); }
.status.bad b { color: var(--bad); }
section, .tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
section { padding: 20px 22px; margin-top: 18px; }
section h2 + h3, section h2 + .quiet + h3 { margin-top: 0; }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); }
.tile { padding: 14px 16px; }
.tile h3 { margin: 0; font-size: 14px; font-weight: 500; color: var(--quiet); }
.tile b { display: block; font-size: 25px; line-height: 1.3; font-weight: 600; }
.tile small { display: block; font-size: 13px; line-height: 1.35; }
.bar { height: 6px; margin: 3px 0 6px; border-radius: 3px; background: var(--rule); }
.bar i { display: block; height: 100%; border-radius: 3px; background: var(--good); }
.bar.bad i { background: var(--bad); }
figure { margin: 0; min-width: 0; }
figcaption { font-size: 13px; overflow-wrap: anywhere; }
img { display: block; width: 100%; height: auto; border-radius: 6px; background: var(--rule); }
img.tiny { image-rendering: pixelated; }
.gap { aspect-ratio: 1; display: grid; place-items: center; border-radius: 6px;
  background: var(--rule); color: var(--quiet); font-size: 13px; }
.pairs { display: grid; gap: 22px; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); }
.pair { display: grid; gap: 2px 10px; grid-template-columns: 1fr 1fr; align-content: start; }
.pair p { grid-column: 1 / -1; margin: 0; font-size: 14px; }
.strip { display: grid; gap: 8px; grid-template-columns: repeat(8, minmax(0, 1fr)); }
.photos { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); }
.photo p { margin: 0; font-size: 13px; line-height: 1.4; }
.photo figcaption { color: var(--ink); font-weight: 500; }
.photo p { color: var(--quiet); }
.photo .caption { color: var(--ink); font-style: italic; }
.photos + .wide { margin-top: 16px; }
svg { display: block; width: 100%; height: auto; margin: 4px 0 6px; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--quiet); }
svg .mark-label { fill: var(--ink); font-weight: 600; paint-order: stroke;
  stroke: var(--card); stroke-width: 4; stroke-linejoin: round; }
svg .limit-label { fill: var(--bad); }
svg path { fill: none; }
.grid { stroke: var(--rule); }
.axis { stroke: var(--quiet); stroke-opacity: .6; }
.line { stroke: var(--line); stroke-width: 2; stroke-linejoin: round; }
.second { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 1 3; stroke-linecap: round; }
.faint { stroke: var(--line); stroke-width: 1; stroke-opacity: .3; }
.limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 5 4; }
.level { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 2 4; }
.event-dot { fill: var(--bad); }
.line-dot, .faint-dot { fill: var(--line); }
.best { fill: var(--card); stroke: var(--line); stroke-width: 2.5; }
.key { display: inline-block; width: 18px; margin: 0 6px 4px 0; border-top: 2px solid var(--line); }
.key.faint { opacity: .4; }
.key + .key, span + .key { margin-left: 14px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; color: var(--quiet); }
th, td { padding: 5px 28px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td { overflow-wrap: anywhere; }
td:first-child { white-space: nowrap; }
.confusion th, .confusion td { padding: 4px 10px; text-align: right; white-space: nowrap; }
td.share { background: color-mix(in srgb, var(--line) calc(var(--share) * 55%), transparent); }
pre, code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { margin: 6px 0 0; padding: 12px 14px; overflow-x: auto; border-radius: 6px;
  background: var(--page); border: 1px solid var(--rule); }
footer { margin-top: 28px; font-size: 13px; }
@media (max-width: 520px) {
  main { padding: 24px 12px 40px; }
  section { padding: 16px 14px; }
  .pairs { grid-template-columns: 1fr; }
  .tiles { grid-template-columns: 1fr 1fr; }
  svg text { font-size: 17px; }
  .strip { grid-template-columns: repeat(4, minmax(0, 1fr)); }
}
"""
