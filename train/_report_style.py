"""The report's own looks and its fixed words."""

STYLE = """
:root { --truth: #22d3ee; --found: #ff8a1f; }
.key i.heat { height: 10px; width: 74px; border: 0; background: linear-gradient(90deg, #000004, #57106e,
  #bc3754, #f98e09, #fcffa4); }
.key i.dashed { border: 0; height: 3px;
  background: repeating-linear-gradient(90deg, currentColor 0 6px, transparent 6px 9px); }
.key i.area { height: 12px; background: #f1f5f9; border: 1px solid #475569; }
.box + .pair { margin-top: 14px; }
.row { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)) minmax(190px, 1.25fr); gap: 12px;
  align-items: start; }
figure svg { display: block; width: 100%; height: auto; border-radius: 5px; background: #e2e8f0; }
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
.range { font-size: 11.5px; color: var(--soft); white-space: nowrap; }
.tag { font-size: 11px; font-weight: 600; color: #047857; background: #d1fae5; border-radius: 4px; padding:
  0 5px; margin-left: 4px; }
@media (max-width: 900px) { .row { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
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
