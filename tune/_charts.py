"""The charts that any space has: each point's score over each setting that varies, and the trials as they learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mbdcnn.charts import INK, SERIES_COLOURS, style
from tune._outcome import Tried, best_of
from tune._round import Trial
from tune._space import OPTIMUM, word
from tune._trial import epochs_in

_OURS, _PAPER, _OTHERS = SERIES_COLOURS[0], SERIES_COLOURS[1], SERIES_COLOURS[4]
_WIDE = 8.0  # of a ratio between largest and smallest, from which on an axis is logarithmic


def varying(points: Sequence[Tried]) -> list[str]:
    """The settings that have more than one value."""
    fields = list(points[0].point) if points else []
    return [field for field in fields if len({p.point[field] for p in points}) > 1]


def settings_figure(points: Sequence[Tried]) -> Figure:
    """JA of each point over each setting that varies, with the deviation of its seeds, beside the paper's optimum."""
    fields = varying(points)
    scored = [p for p in points if p.succeeded and p.scores]
    best = best_of(points)
    figure = Figure(figsize=(3.6 * len(fields) + 0.4, 3.4), layout="constrained")
    panels = figure.subplots(1, len(fields), sharey=True, squeeze=False)[0]
    for axes, field in zip(panels, fields, strict=True):
        style(axes)
        _axis(axes, field, points)
        for group, colour, label in (
            ([p for p in scored if p is not best], _OTHERS, "points"),
            ([p for p in scored if p is best], _OURS, "ours, the best"),
        ):
            axes.errorbar(
                [p.point[field] for p in group],
                [100 * (p.mean or 0.0) for p in group],
                [100 * (p.std or 0.0) for p in group],
                fmt="o",
                color=colour,
                capsize=3,
                markersize=6,
                alpha=0.9,
                label=label,
                zorder=3 if colour == _OURS else 2,
            )
        if field in OPTIMUM:
            axes.axvline(
                float(OPTIMUM[field]), color=_PAPER, linestyle=(0, (4, 3)), label="the paper's optimum", zorder=1
            )
        axes.set_xlabel(word(field))
    panels[0].set_ylabel("JA, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def learning_figure(trials: Sequence[Trial], out: Path, best: Tried | None) -> Figure:
    """JA over epochs of every trial, the best point's in colour: what was ended early, and whether too early."""
    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    style(axes)
    for trial in trials:
        rows = epochs_in(out / trial.run) if trial.run else []
        is_best = best is not None and trial.point == best.point
        axes.plot(
            [row["epoch"] for row in rows],
            [100 * row["JA"] for row in rows],
            color=_OURS if is_best else _OTHERS,
            linewidth=1.8 if is_best else 0.9,
            alpha=1.0 if is_best else 0.6,
            marker="o",
            markersize=3,
            zorder=3 if is_best else 2,
        )
    axes.set(xlabel="epoch", ylabel="JA, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _axis(axes: Axes, field: str, points: Sequence[Tried]) -> None:
    values = sorted({p.point[field] for p in points}, key=str if isinstance(points[0].point[field], str) else float)
    numbers = [float(value) for value in values if not isinstance(value, str)]
    if numbers and min(numbers) > 0 and max(numbers) / min(numbers) > _WIDE:
        axes.set_xscale("log")
    if numbers and len(numbers) <= 6:
        axes.set_xticks(numbers, [f"{number:g}" for number in numbers], color=INK)
        axes.minorticks_off()
