"""The page of a calibration: reliability, risk over coverage, and what is familiar."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from mbdcnn.charts import SERIES_COLOURS, chart_axes, legend_above, svg_uri
from mbdcnn.metrics import risk_coverage
from mbdcnn.page import cards, chart, count, footer, side_by_side, table, write_page

_GREY = "#94a3b8"
Pairs = tuple[np.ndarray, np.ndarray]


def write_page_of(
    path: Path,
    document: Mapping[str, Any],
    title: str,
    *,
    mask: Pairs,
    diagnosis: Pairs,
    unfamiliarity: Mapping[str, np.ndarray],
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        document: what is in `calibration.json`.
        title: the run's name.
        mask: doubt and risk, each `(N,)`, of the masks.
        diagnosis: the same of the classes.
        unfamiliarity: of the validation images, then of the foreign pictures by kind.
    """
    heading = f"Calibration: {title}"
    scores = document["calibration"]
    body = [
        f"<h1>{escape(heading)}</h1>",
        f'<p class="lead">Fitted to {count(scores["images"], "image")} of the {document["split"]} split of '
        f"{escape(document['data']['name'])}; probabilities after it are judged in folds that the temperature did not "
        "see.</p>",
        _cards(document),
        side_by_side(
            chart("Reliability (dot's area: images)", _reliability(scores["reliability"]), "Reliability diagram"),
            _scores(scores),
        ),
        side_by_side(
            chart("Masks: risk over coverage", _risk(mask, "mean 1 - JA"), "Risk-coverage curve of the masks"),
            chart("Classes: risk over coverage", _risk(diagnosis, "wrong"), "Risk-coverage curve of the classes"),
        ),
        side_by_side(
            chart("Unfamiliarity", _strangeness(unfamiliarity), "Unfamiliarity by kind of picture"),
            _foreign(document["familiarity"]),
        ),
        footer([f"data <code>{escape(document['data']['fingerprint'][:12])}</code>"]),
    ]
    write_page(path, heading, body)


def _cards(document: Mapping[str, Any]) -> str:
    scores, familiar = document["calibration"], document["familiarity"]["foreign"]["all"]
    rows = [
        (
            "Temperature",
            f"{document['temperature']:.2f}",
            "above 1: the networks were too sure, below 1: not sure enough",
        ),
        ("ECE after", f"{100 * scores['after']['ECE']:.1f}", f"before: {100 * scores['before']['ECE']:.1f}, percent"),
        ("Foreign pictures", f"{100 * familiar['AUROC']:.1f}", "AUROC of unfamiliarity, percent"),
    ]
    doubt = document["doubt"]["mask"]
    if doubt is not None:
        rows.append(("Mask doubt", f"{doubt['measures']['expected_JA']['gain']:.2f}", "0: guesses, 1: knows the risk"))
    gain = document["doubt"]["class"]["measures"]["max_probability"]["gain"]
    rows.append(("Class doubt", f"{gain:.2f}", "0: guesses, 1: knows the risk"))
    return cards(rows)


def _scores(scores: Mapping[str, Any]) -> str:
    rows = [[name, *(f"{scores[name][m]:.3f}" for m in ("ECE", "NLL", "Brier"))] for name in ("before", "after")]
    notes = (
        '<p class="note">ECE: how far confidence and accuracy are apart. NLL: negative log-likelihood of the true '
        "class. Brier: squared distance to it. 0 is best of each; the decisions stay the same.</p>"
    )
    return f'<div class="box"><h3>Probabilities</h3>{table(["temperature", "ECE", "NLL", "Brier"], rows)}{notes}</div>'


def _foreign(familiarity: Mapping[str, Any]) -> str:
    rows = [
        [escape(kind), str(found["images"]), f"{100 * found['AUROC']:.1f}", f"{100 * found['passed']:.0f}"]
        for kind, found in familiarity["foreign"].items()
    ]
    note = (
        f'<p class="note">Passed: the share that is no stranger than {100 * familiarity["kept"]:.0f} % of the '
        "validation images, percent.</p>"
    )
    head = ["not dermoscopic", "pictures", "AUROC", "passed"]
    return f'<div class="box"><h3>Foreign pictures</h3>{table(head, rows)}{note}</div>'


def _reliability(bins: Mapping[str, list[dict[str, float]]]) -> str:
    figure, axes = chart_axes(4.4, 3.7)
    axes.plot([0, 1], [0, 1], color="#cbd5e1", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    for (name, found), colour in zip(bins.items(), (_GREY, SERIES_COLOURS[0]), strict=True):
        x, y, n = (np.array([bin_[key] for bin_ in found]) for key in ("confidence", "accuracy", "images"))
        axes.plot(x, y, color=colour, linewidth=1.6, label=name)
        axes.scatter(
            x, y, s=8 + 260 * n / n.sum(), color=colour, edgecolor="white", linewidth=0.6, zorder=3, clip_on=False
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="confidence", ylabel="share that is right")
    legend_above(axes, columns=2)
    return svg_uri(figure)


def _risk(pairs: Pairs, label: str) -> str | None:
    doubt, risk = pairs
    if not len(risk):
        return None
    figure, axes = chart_axes(5.2, 3.4)
    coverage = np.arange(1, len(risk) + 1) / len(risk)
    axes.axhline(float(risk.mean()), color=_GREY, linewidth=1.2, linestyle=(0, (4, 3)), label="guessing")
    axes.plot(coverage, risk_coverage(doubt, risk), color=SERIES_COLOURS[0], linewidth=1.8, label="by the doubt")
    axes.plot(coverage, risk_coverage(risk, risk), color=SERIES_COLOURS[2], linewidth=1.4, label="by the risk itself")
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="share of the answers that are kept", ylabel=label)
    legend_above(axes, columns=3)
    return svg_uri(figure)


def _strangeness(unfamiliarity: Mapping[str, np.ndarray]) -> str:
    figure, axes = chart_axes(5.2, 3.4)
    rng = np.random.default_rng(0)
    for row, (_, values) in enumerate(unfamiliarity.items()):
        colour = SERIES_COLOURS[0] if row == 0 else _GREY
        heights = row + rng.uniform(-0.28, 0.28, len(values))
        axes.scatter(np.maximum(values, 0.05), heights, s=10, color=colour, alpha=0.6, linewidth=0)
    axes.axvline(1, color="#be123c", linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(unfamiliarity)), list(unfamiliarity))
    axes.invert_yaxis()
    axes.set(xlabel="unfamiliarity (line: the limit)")
    return svg_uri(figure)
