"""The report's charts, as SVG pictures that an HTML page can carry inside itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import auc, roc_curve

from mbdcnn.charts import CLASS_COLOURS, INK, SERIES_COLOURS, chart_axes, chart_words, legend_above, style, svg_uri
from mbdcnn.metrics import one_versus_rest, scored_classes
from train._report_rows import Row, answers_and_labels, classes_of

COARSE, ENHANCED = "#94a3b8", "#d97706"
_LOSS = re.compile(r"loss|dice|rank", re.IGNORECASE)  # the total and its parts
_SCORE = re.compile(r"val|score|auc|accuracy|jaccard|(^|_)(JA|DI|AC|SE|SP)$", re.IGNORECASE)


def jaccard_histogram(rows: Sequence[Row]) -> str | None:
    """Per-image JA of coarse-SN and enhanced-SN, of those that were scored; None without any."""
    coarse = [row.coarse.JA for row in rows if row.coarse is not None]
    enhanced = [row.enhanced.JA for row in rows if row.enhanced is not None]
    if not coarse and not enhanced:
        return None
    figure, axes = chart_axes(6.0, 3.3)
    filled: dict[str, Any] = {"color": COARSE, "alpha": 0.55}
    outlined: dict[str, Any] = {"color": ENHANCED, "histtype": "step", "linewidth": 1.8}
    for name, values, look, colour in (
        ("coarse", coarse, filled, "#64748b"),
        ("enhanced", enhanced, outlined, ENHANCED),
    ):
        if values:
            mean = float(np.mean(values))
            axes.hist(values, [edge / 20 for edge in range(21)], label=f"{name}, mean {100 * mean:.1f}", **look)
            axes.axvline(mean, color=colour, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1), xlabel="JA of one image", ylabel="images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    legend_above(axes, columns=2)
    return svg_uri(figure)


def roc_curves(rows: Sequence[Row]) -> str | None:
    """Each scored class against the rest; None when the labels allow no curve."""
    probabilities, labels = answers_and_labels(rows)
    classes = classes_of(rows)
    scored = scored_classes(classes)
    many = len(scored) > 3
    figure, axes = chart_axes(7.0 if many else 4.4, 3.7)
    drawn = False
    for name in scored:
        seen = one_versus_rest(probabilities, labels, name, classes)
        if not seen.has_both_sides:
            continue
        false_rate, true_rate, _ = roc_curve(seen.truth, seen.probability)
        again, position = divmod(classes.index(name), len(CLASS_COLOURS))
        colour, line = CLASS_COLOURS[position], ("-", "--", ":")[again % 3]
        label = f"{chart_words(name)}, AUC {100 * auc(false_rate, true_rate):.1f}"
        axes.plot(false_rate, true_rate, line, color=colour, linewidth=1.8, label=label, clip_on=False)
        # Where the arg-max decision lies, the one that SE and SP in the table belong to.
        at = (float(np.mean(seen.decided[~seen.truth])), float(np.mean(seen.decided[seen.truth])))
        axes.plot(*at, "o", color=colour, markersize=6, markeredgecolor="white", clip_on=False)
        drawn = True
    if not drawn:
        return None
    axes.plot([0, 1], [0, 1], color="#cbd5e1", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="1 - SP (false alarms)", ylabel="SE (found)")
    axes.set_aspect("equal")
    if many:
        axes.legend(loc="center left", bbox_to_anchor=(1.04, 0.5), frameon=False, fontsize=9, labelcolor=INK)
    else:
        legend_above(axes, columns=1)
    return svg_uri(figure)


def training_curves(logs: Sequence[Path]) -> list[tuple[str, str]]:
    """Loss and validation scores by epoch.

    Args:
        logs: JSON lines, each an object with any numbers and perhaps `stage` and `epoch`. What cannot be
            read is passed over: a report must not fail for its decoration.

    Returns:
        Stage and picture, of each stage that has a curve of at least two points: what is called a loss on
        the left, what is called a validation or score on the right.
    """
    stages: dict[str, list[dict[str, Any]]] = {}
    for log in logs:
        for entry in _entries(log):
            stages.setdefault(str(entry.get("stage", log.parent.name)), []).append(entry)
    charts = []
    for stage, entries in stages.items():
        # A log may tell every step and then the epoch's mean; the curves are by epoch.
        series = _series([entry for entry in entries if "step" not in entry] or entries)
        losses = {name: points for name, points in series.items() if _LOSS.search(name)}
        scores = {name: points for name, points in series.items() if name not in losses and _SCORE.search(name)}
        if losses or scores:
            charts.append((stage, _curves([("loss", losses), ("validation", scores)])))
    return charts


def _entries(log: Path) -> list[dict[str, Any]]:
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # a training that was cut off leaves half a line
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def _series(entries: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Every number that is logged at least twice, as points over epochs."""
    series: dict[str, list[tuple[float, float]]] = {}
    for position, entry in enumerate(entries, start=1):
        epoch = entry.get("epoch", position)
        x = float(epoch) if _is_number(epoch) else float(position)
        for name, value in entry.items():
            if name != "epoch" and _is_number(value):
                series.setdefault(name, []).append((x, float(value)))
    return {name: points for name, points in series.items() if len(points) > 1}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _curves(sides: Sequence[tuple[str, dict[str, list[tuple[float, float]]]]]) -> str:
    sides = [(label, series) for label, series in sides if series]
    figure = Figure(figsize=(3.3 * len(sides), 2.5), layout="constrained")
    for column, (label, series) in enumerate(sides, start=1):
        axes = figure.add_subplot(1, len(sides), column)
        style(axes)
        for (name, points), colour in zip(series.items(), SERIES_COLOURS, strict=False):
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, color=colour, linewidth=1.8, marker="o", markersize=3, label=name.replace("_", " "))
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return svg_uri(figure)
