"""The style of the page: light and dark, from 320 pixels up."""

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--paper:#fff;--card:#f6f8fa;--rule:#d1d9e0;
--s0:#0860ca;--s1:#b35900;--better:#1a8a4a;--worse:#d9690f}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaef;--soft:#9aa4af;--paper:#11151a;--card:#1a2027;--rule:#353d47;
--s0:#5aa9ff;--s1:#f0a050;--better:#3fb570;--worse:#e58a3c}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.25rem;margin:2rem 0 .5rem;padding-top:1rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.2rem 0 .4rem}
p{margin:.5rem 0;max-width:45rem}
small,.note,figcaption,caption{color:var(--soft);font-size:.85rem}
.note{display:block}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,9.5rem),1fr));gap:.75rem;padding:0;
margin:1rem 0}
.tiles>div,.mistake,figure{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:.75rem}
.tiles dt{color:var(--soft);font-size:.85rem}
.tiles dd{margin:0;font-size:1.3rem}
.tiles dd small{display:block}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));gap:1rem;align-items:start}
.wide{grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
figure{margin:0}
svg{display:block;width:100%;height:auto}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
svg .name{fill:var(--ink);font-weight:600}
.grid{stroke:var(--rule);stroke-width:.7}
.axis{stroke:var(--soft)}
.curve{fill:none;stroke-width:1.8;stroke-linejoin:round}
.curve.s0,.bar.s0{stroke:var(--s0)}
.curve.s1,.bar.s1{stroke:var(--s1);stroke-dasharray:5 3}
.bar{stroke-width:2.5}.bar.s1{stroke-dasharray:none}
circle.s0,.area.s0{fill:var(--s0)}
circle.s1,.area.s1{fill:var(--s1)}
.area{opacity:.18}
.best{fill:none;stroke:var(--ink);stroke-width:1.5}
.key{display:inline-block;margin-right:.9rem}
.swatch{display:inline-block;width:1.4em;height:0;border-top:3px solid var(--s0);margin-right:.35em;
vertical-align:middle}
.swatch.s1{border-top:3px dashed var(--s1)}
.scroll{overflow-x:auto;max-width:100%;margin:.75rem 0}
.scroll:focus-visible,pre:focus-visible,summary:focus-visible{outline:2px solid var(--s0);outline-offset:2px}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:start;padding-bottom:.3rem}
th,td{padding:.3rem .5rem;text-align:end;border-bottom:1px solid var(--rule);vertical-align:top}
th:first-child{text-align:start}
thead th{vertical-align:bottom}
th{font-weight:600}
.heat{width:100%;max-width:40rem;table-layout:fixed}
.heat td,.heat th{padding:.4rem .1rem;text-align:center;font-size:.8rem;white-space:nowrap}
.heat td{border:1px solid var(--rule)}
.heat .better{background:color-mix(in srgb,var(--better) var(--strength),transparent)}
.heat .worse{background:color-mix(in srgb,var(--worse) var(--strength),transparent)}
.heat .same{background:color-mix(in srgb,var(--soft) calc(var(--strength)*.5),transparent)}
.moves{padding-inline-start:1.5rem;margin:.3rem 0}
.mistake{margin:.75rem 0}
dl{margin:0}
.mistake dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,17rem),1fr));gap:.5rem 1.5rem}
.mistake dt,.facts dt{color:var(--soft);font-size:.85rem}
dd{margin:0;overflow-wrap:anywhere;white-space:pre-line}
td small{font-size:.92em}
bdi{unicode-bidi:isolate}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:.5rem 1.5rem}
.facts dd{font-family:ui-monospace,monospace;font-size:.85rem}
summary{cursor:pointer;margin-top:.75rem}
@media(max-width:30rem){table{font-size:.8rem}th,td{padding:.3rem .25rem}.heat th{font-size:.72rem}}
pre{overflow-x:auto;background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:.75rem;
font-size:.85rem;white-space:pre-wrap}
@media print{details>*{display:block}.tiles>div,.mistake,figure{break-inside:avoid}}
"""
