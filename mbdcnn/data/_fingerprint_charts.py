"""The charts of a fingerprint's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from mbdcnn.charts import CLASS_COLOURS, chart_axes, chart_words, legend_above, svg_uri
from mbdcnn.data._glance import Glance
from mbdcnn.data.manifest import Item

SPLIT_COLOURS = {"training": "#64748b", "validation": "#d97706", "test": "#4f5bd5"}
_CHANNELS = {"red": "#dc2626", "green": "#16a34a", "blue": "#2563eb"}


def class_counts(document: Mapping[str, Any]) -> str | None:
    """Bars of the classes, a group for each split, as shares of its labels; None without labels."""
    splits = {name: held for name, held in document["splits"].items() if held["labels"]}
    if not splits:
        return None
    figure, axes = chart_axes(6.0, 3.3)
    classes = document["classes"]
    width = 0.8 / len(classes)
    for number, name in enumerate(classes):
        at = np.arange(len(splits)) + (number - (len(classes) - 1) / 2) * width
        shares = [held["classes"][name] / held["labels"] for held in splits.values()]
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        bars = axes.bar(at, shares, width * 0.92, color=colour, label=chart_words(name))
        labels = [str(held["classes"][name]) for held in splits.values()]
        axes.bar_label(bars, labels, fontsize=8, color="#334155", padding=2)
    axes.set_xticks(range(len(splits)), list(splits))
    axes.margins(y=0.1)  # for the numbers on the bars
    axes.set(ylabel="share of the split's labels", ylim=(0, None))
    legend_above(axes, columns=3)
    return svg_uri(figure)


def sizes(items: Sequence[Item]) -> str:
    """A dot for each size that occurs, the larger the more images have it."""
    figure, axes = chart_axes(6.0, 3.3)
    for split, colour in SPLIT_COLOURS.items():
        own = [(item.width, item.height) for item in items if item.split == split]
        if own:
            places, numbers = np.unique(own, axis=0, return_counts=True)
            area = 18 + 160 * numbers / len(own)
            axes.scatter(
                places[:, 0],
                places[:, 1],
                s=area,
                color=colour,
                alpha=0.6,
                edgecolor="white",
                linewidth=0.6,
                label=split,
            )
    axes.set(xlabel="width, pixels", ylabel="height, pixels")
    axes.margins(0.12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    legend_above(axes, columns=3)
    return svg_uri(figure)


def lesion_areas(document: Mapping[str, Any]) -> str | None:
    """The lesion's share of the image, a line for each split; None without masks."""
    lesions = {split: held["lesion"] for split, held in document["splits"].items() if held["lesion"]}
    if not lesions:
        return None
    figure, axes = chart_axes(6.0, 3.3)
    for split, lesion in lesions.items():
        counts, edges = np.array(lesion["histogram"]["images"]), lesion["histogram"]["edges"]
        label = f"{split}, median {100 * lesion['area']['0.5']:.0f} %"
        look: dict[str, Any] = {"fill": True, "alpha": 0.4} if split == "training" else {"linewidth": 1.8}
        axes.stairs(counts / counts.sum(), edges, color=SPLIT_COLOURS[split], label=label, **look)
    axes.set(xlim=(0, 1), xlabel="lesion's share of the image", ylabel="share of the split's masks")
    legend_above(axes, columns=2)
    return svg_uri(figure)


def colours(items: Sequence[Item], glances: Sequence[Glance]) -> str:
    """Mean red, green and blue of each image, a box for each split and channel."""
    figure, axes = chart_axes(6.0, 3.3)
    held = [split for split in SPLIT_COLOURS if any(item.split == split for item in items)]
    for number, split in enumerate(held):
        means = np.array([g.mean for item, g in zip(items, glances, strict=True) if item.split == split])
        for channel, (name, colour) in enumerate(_CHANNELS.items()):
            axes.boxplot(
                means[:, channel],
                positions=[number + (channel - 1) * 0.25],
                widths=0.2,
                patch_artist=True,
                boxprops={"facecolor": colour, "alpha": 0.55, "edgecolor": colour},
                medianprops={"color": "#1e293b"},
                whiskerprops={"color": colour},
                capprops={"color": colour},
                flierprops={"marker": ".", "markersize": 3, "markeredgecolor": colour, "alpha": 0.4},
                label=name if number == 0 else None,
            )
    axes.set_xticks(range(len(held)), held)
    axes.set(ylim=(0, 1), ylabel="mean of an image")
    legend_above(axes, columns=3)
    return svg_uri(figure)
