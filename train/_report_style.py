"""The report's looks and its fixed words."""

STYLE = """
:root { --ink: #1e293b; --soft: #64748b; --rule: #e2e8f0; --ground: #f8fafc; --accent: #d97706; --truth:
  #22d3ee; --found: #ff8a1f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.55 system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 36px 28px 48px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 40px 0 4px; letter-spacing: -0.005em; }
h3 { font-size: 14px; margin: 0 0 10px; font-weight: 600; }
p { margin: 0 0 12px; max-width: 100ch; }
.box p { margin: 12px 0 0; }
.keys { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 20px; margin-bottom: 12px; }
.lead, .note { color: var(--soft); }
.note { font-size: 13.5px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; margin: 22px
  0 14px; }
.card, .box { background: #fff; border: 1px solid var(--rule); border-radius: 10px; padding: 16px 18px; }
.card b { display: block; font-size: 32px; line-height: 1.15; font-weight: 650; font-variant-numeric:
  tabular-nums; }
.card.first b { color: var(--accent); }
.card span { color: var(--soft); font-size: 13.5px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 14px;
  margin-bottom: 14px; }
.box img { display: block; width: 100%; height: auto; max-height: 320px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 8px; text-align: right; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; font-size: 13.5px; color: var(--soft); }
tr:last-child > * { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; }
td.right { background: #ecfdf5; font-weight: 600; }
td.wrong { background: #fff1f2; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 16px; margin: 0; font-size: 14px; }
dt { font-weight: 600; }
dd { margin: 0; color: #475569; }
.key { display: inline-flex; align-items: center; gap: 7px; font-size: 13.5px; color:
  var(--soft); }
.key i { width: 20px; height: 0; border-top: 3px solid; border-radius: 2px; filter: drop-shadow(0 0 1px
  #0008); }
.key i.heat { height: 10px; width: 74px; border: 0; background: linear-gradient(90deg, #000004, #57106e,
  #bc3754, #f98e09, #fcffa4); }
.key i.dashed { border: 0; height: 3px;
  background: repeating-linear-gradient(90deg, currentColor 0 6px, transparent 6px 9px); }
.key i.area { height: 12px; background: #f1f5f9; border: 1px solid #475569; }
.case { background: #fff; border: 1px solid var(--rule); border-radius: 10px; padding: 12px 14px 14px;
  margin-top: 12px; break-inside: avoid; }
.case header { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: baseline; margin-bottom: 8px;
  font-size: 13.5px; color: var(--soft); }
.case header strong { color: var(--ink); font-size: 14.5px; }
.case header .bad { color: #be123c; font-weight: 600; }
.row { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)) minmax(190px, 1.25fr); gap: 12px;
  align-items: start; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; border-radius: 5px; background: #e2e8f0; }
figcaption { font-size: 12.5px; color: var(--soft); margin-bottom: 4px; }
path { fill: none; stroke-linejoin: round; vector-effect: non-scaling-stroke; }
path.halo { stroke: #000; stroke-opacity: .45; stroke-width: 4px; }
path.truth { stroke: var(--truth); stroke-width: 2.2px; }
path.enhanced { stroke: var(--found); stroke-width: 2.2px; stroke-dasharray: 6 3; }
path.mask { fill: #f1f5f9; fill-rule: evenodd; }
rect.ground { fill: #1e293b; }
text.none { fill: #fff; font-size: 22px; text-anchor: middle; paint-order: stroke; stroke: #0009;
  stroke-width: 4px; }
.bar { margin-bottom: 9px; font-size: 12.5px; }
.bar div { display: flex; justify-content: space-between; gap: 8px; }
.bar .name { white-space: nowrap; }
.bar .track { display: block; height: 9px; border-radius: 5px; background: #eef2f7; overflow: hidden; }
.bar .track i { display: block; height: 100%; background: #94a3b8; border-radius: 5px; }
.bar.said { font-weight: 600; }
.bar.said .track i { background: #be123c; }
.bar.said.true .track i { background: #059669; }
.bar.said.unknown .track i { background: #475569; }
.tag { font-size: 11px; font-weight: 600; color: #047857; background: #d1fae5; border-radius: 4px; padding:
  0 5px; margin-left: 4px; }
footer { margin-top: 40px; padding-top: 14px; border-top: 1px solid var(--rule); color: var(--soft);
  font-size: 13px; }
code { font: 12.5px ui-monospace, "SFMono-Regular", Menlo, "DejaVu Sans Mono", monospace; }
@media (max-width: 900px) { .row { grid-template-columns: repeat(3, minmax(0, 1fr)); } .pair {
  grid-template-columns: 1fr; } }
@media print { body { background: #fff; } main { padding: 0; } }
"""

MEASURES = (
    (
        "JA",
        "Jaccard index: the area that mask and truth share, over the area that either covers.",
    ),
    ("DI", "Dice coefficient: twice the shared area, over the sum of both areas. Never below JA."),
    (
        "AC",
        "Accuracy: the share of pixels (or images) decided rightly. High where a class is rare.",
    ),
    ("SE", "Sensitivity: of what is lesion (or of the class), the share that was found."),
    ("SP", "Specificity: of what is not, the share that was left alone."),
    (
        "AUC",
        "Area under the ROC curve: how often an image of the class gets a higher probability "
        "than one of the others. 50 is guessing.",
    ),
)

PROTOCOLS = {
    "single": "The networks saw each image once.",
    "authors": "A mask is merged from 18 views of its image (3 scales, 6 turns and flips), a diagnosis from 9 crops.",
}

GALLERIES = {
    "best": ("Best masks", "The highest JA of the final mask."),
    "median": ("Typical masks", "Around the median JA: half of the images are better, half are worse."),
    "worst": ("Worst masks", "The lowest JA, the worst first."),
    "misclassified": ("Wrong diagnoses", "The mistakes that the network was surest of, the surest first."),
}
