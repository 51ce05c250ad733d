"""The report of an evaluation: one HTML file that carries its charts and pictures inside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mbdcnn.metrics import LEVEL, SegmentationScores, scored_classes
from mbdcnn.page import cards, chart, count, footer, side_by_side, table, words, write_page
from train._report_cases import Case, panels
from train._report_charts import jaccard_histogram, roc_curves, training_curves
from train._report_rows import Row, classes_of
from train._report_style import GALLERIES, MEASURES, PROTOCOLS, STYLE
from train._report_subgroups import subgroup_section
from train._report_trust import trust_section

_NONE = "–"
_INTERVALS = (
    f'<p class="note">Small figures: {100 * LEVEL:.0f} % intervals, what other draws of as many images from the same '
    "source would give (bootstrap over images).</p>"
)


def write_report(
    path: Path,
    result: Mapping[str, Any],
    rows: Sequence[Row],
    galleries: Mapping[str, Sequence[Case]],
    *,
    title: str = "",
    fingerprint: str = "",
    logs: Sequence[Path] = (),
) -> None:
    """Write the page.

    Args:
        path: the HTML file; nothing else is written, and the page loads nothing from elsewhere.
        result: as `summarise` gives it, fractions; the page shows them times 100, as the paper does.
        rows: every evaluated image.
        galleries: pictures by gallery (the names of `choose`); each case's image id must be among the rows.
        title: what was evaluated, such as the run's name.
        fingerprint: of the data set, told in the footer.
        logs: training logs (JSON lines); curves are shown where there are any.
    """
    by_id = {row.image_id: row for row in rows}
    heading = f"Evaluation: {title}" if title else "Evaluation"
    body = [
        f"<h1>{escape(heading)}</h1>",
        f'<p class="lead">{_lead(result)}</p>',
        _cards(result, classes_of(rows)),
        side_by_side(_segmentation_table(result), _classification_table(result, rows)),
        _charts(rows),
        trust_section(result.get("trust", {})),
        subgroup_section(result.get("subgroups", {})),
        side_by_side(_measures(), _confusion(rows)),
        _curves(logs),
        *(_gallery(name, galleries.get(name, ()), by_id) for name in GALLERIES),
        _footer(result, fingerprint),
    ]
    write_page(path, heading, body, STYLE)


def _lead(result: Mapping[str, Any]) -> str:
    unknown = result.get("n_unknown_labels")
    others = f", {unknown} with one that the networks do not know" if unknown else ""
    return (
        f"{count(result['n_images'], 'image')} of the {escape(result['split'])} split: "
        f"{result['n_masks']} with a mask, {result['n_labels']} with a diagnosis{others}. Figures are percentages, "
        f"per image and then averaged. {PROTOCOLS.get(result['protocol'], '')}"
    )


def _cards(result: Mapping[str, Any], classes: tuple[str, ...]) -> str:
    coarse, enhanced, diagnosis = result["coarse"], result["enhanced"], result["classification"]
    rows = []
    spread = result["intervals"]
    if enhanced is not None:
        gain = "" if coarse is None else f", {_change(coarse, enhanced, 'JA')} against the coarse one"
        rows.append(("Enhanced JA", _percent(enhanced, "JA"), f"{_spread(spread['enhanced'], 'JA')}lesion mask{gain}"))
    if coarse is not None:
        note = "lesion mask" if enhanced is None else "first lesion mask"
        rows.append(("Coarse JA", _percent(coarse, "JA"), f"{_spread(spread['coarse'], 'JA')}{note}"))
    if diagnosis is not None:
        lacks = diagnosis["mean_AUC"] is None
        scored = scored_classes(classes)
        which = " and ".join(map(_words, scored)) if len(scored) < 3 else f"{len(scored)} classes against the rest"
        interval = "" if lacks else _spread(spread["classification"], "mean_AUC")
        note = "needs images of every class" if lacks else f"{interval}of {which}"
        rows.append(("Mean AUC", _percent(diagnosis, "mean_AUC"), note))
    return cards(rows)


def _segmentation_table(result: Mapping[str, Any]) -> str:
    coarse, enhanced = result["coarse"], result["enhanced"]
    measures = SegmentationScores._fields
    rows = [
        [name, *(_percent(scores, measure) for measure in measures)]
        for name, scores in (("coarse-SN", coarse), ("enhanced-SN", enhanced))
        if scores is not None
    ]
    if not rows:
        return ""
    if len(rows) == 2:
        rows.append(["difference", *(_change(coarse, enhanced, measure) for measure in measures)])
    spread = result["intervals"]
    for line, name in zip(rows, _in_order(coarse, enhanced), strict=True):
        line[1:] = [f"{cell}{_range(spread[name], m)}" for cell, m in zip(line[1:], measures, strict=True)]
    return f'<div class="box"><h3>Segmentation</h3>{table(["", *measures], rows)}{_INTERVALS}</div>'


def _classification_table(result: Mapping[str, Any], rows: Sequence[Row]) -> str:
    diagnosis = result["classification"]
    if diagnosis is None:
        return ""
    measures = ("AUC", "AC", "SE", "SP")
    scored = scored_classes(classes_of(rows))
    lines = []
    for name in scored:
        having = sum(row.label == name for row in rows)
        spread = (result["intervals"]["classification"] or {}).get(name)
        cells = (f"{_percent(diagnosis[name], measure)}{_range(spread, measure)}" for measure in measures)
        lines.append([_words(name), str(having), *cells])
    scores = table(["against the rest", "images", *measures], lines)
    lacking = ""
    if any(diagnosis[name] is None for name in scored):
        lacking = f'<p class="note">{_NONE}: the split lacks this class, or the others.</p>'
    return f'<div class="box"><h3>Classification</h3>{scores}{lacking}</div>'


def _confusion(rows: Sequence[Row]) -> str:
    labelled = [row for row in rows if None not in (row.known_label, row.predicted)]
    if not labelled:
        return ""
    classes = classes_of(rows)
    lines = []
    for truth in classes:
        cells = []
        for said in classes:
            number = sum(row.label == truth and row.predicted == said for row in labelled)
            kind = "right" if truth == said else "wrong" if number else ""
            cells.append(f'<td class="{kind}">{number}</td>')
        lines.append(f"<tr><td>{_words(truth)}</td>{''.join(cells)}</tr>")
    head = "".join(f"<th>{_words(said)}</th>" for said in classes)
    return (
        '<div class="box"><h3>Diagnoses (rows) and decisions (columns)</h3>'
        f"<table><tr><th>images</th>{head}</tr>{''.join(lines)}</table>"
        '<p class="note">A decision is the class with the largest probability.</p></div>'
    )


def _charts(rows: Sequence[Row]) -> str:
    roc = "ROC curves of the classes against the rest"
    return side_by_side(
        chart("JA, image by image", jaccard_histogram(rows), "Histogram of JA per image"),
        chart("ROC curves (dot: the decision)", roc_curves(rows), roc),
    )


def _curves(logs: Sequence[Path]) -> str:
    boxes = [chart(_words(stage), source, "Training curves") for stage, source in training_curves(logs)]
    return f"<h2>Training</h2>{side_by_side(*boxes)}" if boxes else ""


def _measures() -> str:
    terms = "".join(f"<dt>{name}</dt><dd>{meaning}</dd>" for name, meaning in MEASURES)
    hint = (
        '<p class="note">Two experts who outline the same lesion agree to a JA of '
        "about 86: on photographs, a mean far above that calls for a look at the protocol.</p>"
    )
    return f'<div class="box"><h3>What the measures mean</h3><dl>{terms}</dl>{hint}</div>'


def _gallery(name: str, cases: Sequence[Case], by_id: Mapping[str, Row]) -> str:
    if not cases:
        return ""
    title, note = GALLERIES[name]
    drawn = "".join(_case(case, by_id[case.image_id], f"{name}-{position}") for position, case in enumerate(cases))
    return f'<section><h2>{title}</h2><p class="note">{note}</p>{_legend(cases[0])}{drawn}</section>'


def _legend(case: Case) -> str:
    keys = ['<i style="color:var(--truth)"></i>truth']
    if case.enhanced is not None:
        keys.append('<i class="dashed" style="color:var(--found)"></i>enhanced mask')
    if case.coarse is not None:
        keys.append('<i class="area"></i>coarse mask')
    if case.cam is not None:
        keys.append('<i class="heat"></i>CAM, low to high: where the decision comes from')
    return f'<div class="keys">{"".join(f"""<span class="key">{key}</span>""" for key in keys)}</div>'


def _case(case: Case, row: Row, key: str) -> str:
    facts = [f"<strong>{escape(case.image_id)}</strong>", f"{case.width} × {case.height}"]
    scored = [(name, scores) for name, scores in (("coarse", row.coarse), ("enhanced", row.enhanced)) if scores]
    if scored:
        facts.append("JA " + " → ".join(f"{name} {100 * scores.JA:.1f}" for name, scores in scored))
    if row.label is not None and row.predicted is not None and row.is_misclassified:
        facts.append(f'<span class="bad">{_words(row.label)} taken for {_words(row.predicted)}</span>')
    figures = "".join(f"<figure><figcaption>{caption}</figcaption>{svg}</figure>" for caption, svg in panels(case, key))
    header = "".join(f"<span>{fact}</span>" for fact in facts)
    pictures = f'<div class="row">{figures}{_bars(row)}</div>'
    return f'<article class="case"><header>{header}</header>{pictures}</article>'


def _bars(row: Row) -> str:
    if row.probabilities is None:
        return ""
    bars = []
    for name, probability in zip(row.classes, row.probabilities, strict=True):
        kinds = ["bar"]
        if name == row.predicted:
            kinds.append("said")
        if row.known_label is None:
            kinds.append("unknown")
        tag = ""
        if name == row.label:
            kinds.append("true")
            tag = '<span class="tag">true</span>'
        bars.append(
            f'<div class="{" ".join(kinds)}"><div><span class="name">{_words(name)}{tag}</span>'
            f"<span>{100 * probability:.0f}</span></div>"
            f'<span class="track"><i style="width:{100 * probability:.1f}%"></i></span></div>'
        )
    return f"<figure><figcaption>Probabilities, %</figcaption>{''.join(bars)}</figure>"


def _footer(result: Mapping[str, Any], fingerprint: str) -> str:
    facts = [f"protocol <code>{escape(result['protocol'])}</code>"]
    if fingerprint:
        facts.append(f"data <code>{escape(fingerprint[:12])}</code>")
    return footer([*facts, "every image: <code>per_image.csv</code>", "all figures: <code>metrics.json</code>"])


def _percent(scores: Mapping[str, float | None] | None, measure: str) -> str:
    value = None if scores is None else scores[measure]
    return _NONE if value is None else f"{100 * value:.1f}"


def _bounds(intervals: Mapping[str, list[float]] | None, measure: str) -> str:
    """`low to high` in percent; nothing where there is no interval."""
    bounds = None if intervals is None else intervals[measure]
    if bounds is None:
        return ""
    return " to ".join(f"{100 * bound:.1f}" for bound in bounds).replace("-", "\N{MINUS SIGN}")


def _range(intervals: Mapping[str, list[float]] | None, measure: str) -> str:
    """An interval below its score in a table."""
    said = _bounds(intervals, measure)
    return f'<br><span class="range">{said}</span>' if said else ""


def _spread(intervals: Mapping[str, list[float]] | None, measure: str) -> str:
    """An interval before the note of a card."""
    said = _bounds(intervals, measure)
    return f"{said}; " if said else ""


def _in_order(coarse: object, enhanced: object) -> list[str]:
    """Names of the segmentation table's lines among the intervals."""
    names = [name for name, scores in (("coarse", coarse), ("enhanced", enhanced)) if scores is not None]
    return [*names, "enhanced_minus_coarse"] if len(names) == 2 else names


def _change(before: Mapping[str, float], after: Mapping[str, float], measure: str) -> str:
    return f"{100 * (after[measure] - before[measure]):+.1f}".replace("-", "\N{MINUS SIGN}")


def _words(name: str) -> str:
    return escape(words(name))
