"""What an evaluation knows of each image, and its two summaries: the scores as JSON and the table as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mbdcnn.classes import CLASSES
from mbdcnn.metrics import SegmentationScores, classification_scores, mean_scores


@dataclass(frozen=True)
class Row:
    """One evaluated image.

    Attributes:
        image_id: as in the manifest.
        label: one of `CLASSES`; None without image label.
        probabilities: `(3,)` in [0, 1], in the order of `CLASSES`.
        coarse: measures of coarse-SN's mask at the truth's own size; None without truth.
        enhanced: the same for enhanced-SN.
    """

    image_id: str
    label: str | None
    probabilities: np.ndarray
    coarse: SegmentationScores | None
    enhanced: SegmentationScores | None

    @property
    def predicted(self) -> str:
        """The class with the largest probability, the first of equals."""
        return CLASSES[int(self.probabilities.argmax())]

    @property
    def is_misclassified(self) -> bool:
        """Whether the image has a label and the network decided for another class."""
        return self.label is not None and self.label != self.predicted


def answers_and_labels(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """What the classification measures are computed from.

    Returns:
        Probabilities `(N, 3)` and labels `(N,)`, positions in `CLASSES`, of the N rows that have a label.
    """
    labelled = [(row.probabilities, CLASSES.index(row.label)) for row in rows if row.label is not None]
    probabilities = np.array([p for p, _ in labelled], dtype=np.float64).reshape(-1, len(CLASSES))
    return probabilities, np.array([label for _, label in labelled], dtype=np.int64)


def summarise(rows: Sequence[Row], *, protocol: str, split: str) -> dict[str, Any]:
    """Average over images, in the form of `mbdcnn evaluate --json`.

    Returns:
        `protocol`, `split`, the counts `n_images`, `n_masks` and `n_labels`, then fractions: `coarse` and
        `enhanced` with the five segmentation measures (None without masks), and `classification`
        (`mbdcnn.metrics.classification_scores`).
    """
    coarse = mean_scores(row.coarse for row in rows if row.coarse is not None)
    enhanced = mean_scores(row.enhanced for row in rows if row.enhanced is not None)
    probabilities, labels = answers_and_labels(rows)
    return {
        "protocol": protocol,
        "split": split,
        "n_images": len(rows),
        "n_masks": sum(row.enhanced is not None for row in rows),
        "n_labels": len(labels),
        "coarse": None if coarse is None else coarse._asdict(),
        "enhanced": None if enhanced is None else enhanced._asdict(),
        "classification": classification_scores(probabilities, labels),
    }


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write one line per image; a measure without truth is an empty cell."""
    measures = SegmentationScores._fields
    header = ["image_id", "label", "predicted", *CLASSES]
    header += [f"{network}_{measure}" for network in ("coarse", "enhanced") for measure in measures]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            line = [row.image_id, row.label or "", row.predicted, *(f"{p:.6f}" for p in row.probabilities)]
            for scores in (row.coarse, row.enhanced):
                line += [""] * len(measures) if scores is None else [f"{score:.6f}" for score in scores]
            writer.writerow(line)
