"""Can the answers be trusted as far as they say? Calibration and doubt of an evaluation, as the networks are served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mbdcnn.metrics import calibration_scores, selection
from train._report_rows import Row, answers_and_labels


def trust(rows: Sequence[Row]) -> dict[str, Any]:
    """Judge what the networks say of themselves.

    Returns:
        `calibration`: `CalibrationScores` of the probabilities; `mask_doubt` and `class_doubt`: `Selection` with risk
        1 - JA of the final mask, and with risk 1 for a wrong class; `unfamiliar`: the share of the images whose
        unfamiliarity is above 1. None where the images or the networks give nothing to compute it from.
    """
    probabilities, labels = answers_and_labels(rows)
    wrong = (probabilities.argmax(1) != labels).astype(np.float64) if len(labels) else np.zeros(0)
    masks = [(row.mask_doubt, 1 - row.final.JA) for row in rows if row.mask_doubt is not None and row.final is not None]
    strange = [row.unfamiliarity > 1 for row in rows if row.unfamiliarity is not None]
    return {
        "calibration": calibration_scores(probabilities, labels)._asdict() if len(labels) else None,
        "mask_doubt": selection(*np.array(masks).T)._asdict() if masks else None,
        "class_doubt": selection(1 - probabilities.max(1), wrong)._asdict() if len(labels) else None,
        "unfamiliar": float(np.mean(strange)) if strange else None,
    }
