"""What an evaluation knows of each image, and its two summaries: the scores as JSON and the table as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mbdcnn.classes import CLASSES
from mbdcnn.metrics import (
    LEVEL,
    RESAMPLES,
    SegmentationScores,
    classification_intervals,
    classification_scores,
    drawings,
    mean_interval,
    mean_scores,
)
from train._traits import Traits


@dataclass(frozen=True)
class Row:
    """One evaluated image.

    Attributes:
        image_id: as in the manifest.
        label: as in the manifest, perhaps none of `classes`; None without image label.
        has_mask: whether there is a true mask.
        probabilities: `(n,)` in [0, 1], in the order of `classes`; None without mask-CN.
        coarse: measures of coarse-SN's mask at the truth's own size; None without truth or without coarse-SN.
        enhanced: the same for enhanced-SN.
        classes: the n classes that the networks tell apart.
        lesion_share: of the image that the true mask covers; None without one.
        traits: what is told of the picture besides.
        mask_doubt: of the final mask; None where the networks do not say.
        unfamiliarity: of the picture; None where the networks do not say.
    """

    image_id: str
    label: str | None
    has_mask: bool
    probabilities: np.ndarray | None
    coarse: SegmentationScores | None
    enhanced: SegmentationScores | None
    classes: tuple[str, ...] = CLASSES
    lesion_share: float | None = None
    traits: Traits | None = None
    mask_doubt: float | None = None
    unfamiliarity: float | None = None

    @property
    def known_label(self) -> str | None:
        """The label if it is one that the networks can give."""
        return self.label if self.label in self.classes else None

    @property
    def predicted(self) -> str | None:
        """The class with the largest probability, the first of equals; None without mask-CN."""
        return None if self.probabilities is None else self.classes[int(self.probabilities.argmax())]

    @property
    def is_misclassified(self) -> bool:
        """Whether the image has a label that the network knows and it decided for another class."""
        return None not in (self.known_label, self.predicted) and self.label != self.predicted

    @property
    def final(self) -> SegmentationScores | None:
        """Measures of the last mask that there is: enhanced-SN's, else coarse-SN's."""
        return self.enhanced or self.coarse


def classes_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The classes that the networks of an evaluation tell apart."""
    return rows[0].classes if rows else CLASSES


def answers_and_labels(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """What the classification measures are computed from.

    Returns:
        Probabilities `(N, n)` and labels `(N,)`, positions in the n classes, of the N rows that have both.
    """
    classes = classes_of(rows)
    both = [
        (row.probabilities, classes.index(row.known_label))
        for row in rows
        if row.known_label is not None and row.probabilities is not None
    ]
    probabilities = np.array([p for p, _ in both], dtype=np.float64).reshape(-1, len(classes))
    return probabilities, np.array([label for _, label in both], dtype=np.int64)


def summarise(rows: Sequence[Row], *, protocol: str, split: str) -> dict[str, Any]:
    """Average over images, in the form of `mbdcnn evaluate --json`.

    Returns:
        `protocol`, `split`, the counts `n_images`, `n_masks` and `n_labels`, then fractions: `coarse` and
        `enhanced` with the five segmentation measures (None without masks or without that network), and
        `classification` (`mbdcnn.metrics.classification_scores`; None without mask-CN). Images whose label mask-CN
        does not know count as those without one; where there are any, `n_unknown_labels` says how many. `intervals`
        has [low, high] in the place of each of these scores (`intervals_of`).
    """
    coarse = mean_scores(row.coarse for row in rows if row.coarse is not None)
    enhanced = mean_scores(row.enhanced for row in rows if row.enhanced is not None)
    classified = any(row.probabilities is not None for row in rows)
    labels = sum(row.label is not None for row in rows)
    unknown = labels - sum(row.known_label is not None for row in rows) if classified else 0
    return {
        "protocol": protocol,
        "split": split,
        "n_images": len(rows),
        "n_masks": sum(row.has_mask for row in rows),
        "n_labels": labels - unknown,
        **({"n_unknown_labels": unknown} if unknown else {}),
        "coarse": None if coarse is None else coarse._asdict(),
        "enhanced": None if enhanced is None else enhanced._asdict(),
        "classification": classification_scores(*answers_and_labels(rows), classes_of(rows)) if classified else None,
        "intervals": intervals_of(rows),
    }


def intervals_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Bootstrap intervals of the scores: `level`, `resamples`, and what `summarise` has, with [low, high] for a score.

    `enhanced_minus_coarse` is the interval of the gain, over the images that have both masks' measures. A score that
    is None has no interval.
    """
    found: dict[str, Any] = {"level": LEVEL, "resamples": RESAMPLES}
    sides = {
        "coarse": [row.coarse for row in rows if row.coarse is not None],
        "enhanced": [row.enhanced for row in rows if row.enhanced is not None],
        "enhanced_minus_coarse": [
            SegmentationScores(*np.subtract(row.enhanced, row.coarse))
            for row in rows
            if row.enhanced is not None and row.coarse is not None
        ],
    }
    for name, scores in sides.items():
        drawn = drawings(len(scores)) if scores else None
        columns = zip(SegmentationScores._fields, np.array(scores).T, strict=True) if scores else ()
        found[name] = None if drawn is None else {measure: mean_interval(v, drawn) for measure, v in columns}
    probabilities, labels = answers_and_labels(rows)
    found["classification"] = None
    if len(labels):
        drawn = drawings(len(labels))
        found["classification"] = classification_intervals(probabilities, labels, drawn, classes_of(rows))
    return found


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write one line per image; a measure without truth, and what a network that is not there would say, is empty."""
    measures = SegmentationScores._fields
    classes = classes_of(rows)
    header = ["image_id", "label", "predicted", *classes]
    header += [f"{network}_{measure}" for network in ("coarse", "enhanced") for measure in measures]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            line = [row.image_id, row.label or "", row.predicted or ""]
            line += [""] * len(classes) if row.probabilities is None else [f"{p:.6f}" for p in row.probabilities]
            for scores in (row.coarse, row.enhanced):
                line += [""] * len(measures) if scores is None else [f"{score:.6f}" for score in scores]
            writer.writerow(line)
