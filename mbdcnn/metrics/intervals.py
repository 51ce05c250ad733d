"""How far a score would move on other images of the same kind: percentile bootstrap over images.

The images are drawn anew, with replacement, as often as there are images; each drawing gives every score once, so that
scores of the same images (two masks, two classes) move together. A drawing is the number of times that it holds each
image, which makes a mean a weighted mean, and AUC the weighted share of pairs in the right order (Mann-Whitney).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mbdcnn.classes import CLASSES
from mbdcnn.metrics.classification import OneVersusRest, one_versus_rest, scored_classes

LEVEL = 0.95
RESAMPLES = 2000
_SEED = 2017
_ROWS = 250  # drawings at a time: what is held does not grow with their number


def drawings(images: int) -> np.ndarray:
    """How often each drawing holds each image: `(RESAMPLES, images)` float64, always the same for as many images."""
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES).astype(np.float64)


def mean_interval(values: np.ndarray, drawn: np.ndarray) -> list[float] | None:
    """Interval of the mean of `(N,)` values over `drawings(N)`."""
    return _interval(drawn @ values / drawn.sum(1))


def classification_intervals(
    probabilities: np.ndarray, labels: np.ndarray, drawn: np.ndarray, classes: Sequence[str] = CLASSES
) -> dict[str, Any]:
    """Intervals of what `classification_scores` gives, in the same form: [low, high] in the place of each score.

    Args:
        probabilities: `(N, n)` in the order of `classes`.
        labels: `(N,)` integers, positions in `classes`.
        drawn: `drawings(N)`. One that lacks a class, or has nothing else, gives no score for it and is passed over.
        classes: names of the n classes.
    """
    scores: dict[str, Any] = {}
    areas = []
    for name in scored_classes(classes):
        seen = one_versus_rest(probabilities, labels, name, classes)
        if not seen.has_both_sides:
            scores[name] = None
            continue
        areas.append(_areas(seen, drawn))
        right = (seen.decided == seen.truth).astype(np.float64)
        scores[name] = {
            "AUC": _interval(areas[-1]),
            "AC": mean_interval(right, drawn),
            "SE": _interval(_share(right, drawn, seen.truth)),
            "SP": _interval(_share(right, drawn, ~seen.truth)),
        }
    whole = len(areas) == len(scores) > 0
    return {**scores, "mean_AUC": _interval(np.mean(areas, axis=0)) if whole else None}


def _areas(seen: OneVersusRest, drawn: np.ndarray) -> np.ndarray:
    """AUC of each drawing; NaN where one side is missing."""
    p, q = seen.probability[seen.truth], seen.probability[~seen.truth]
    in_order = (p[:, None] > q) + 0.5 * (p[:, None] == q)
    parts = [
        ((rows[:, seen.truth] @ in_order) * rows[:, ~seen.truth]).sum(1)
        for rows in (drawn[start : start + _ROWS] for start in range(0, len(drawn), _ROWS))
    ]
    pairs = drawn[:, seen.truth].sum(1) * drawn[:, ~seen.truth].sum(1)
    return _ratio(np.concatenate(parts), pairs)


def _share(right: np.ndarray, drawn: np.ndarray, side: np.ndarray) -> np.ndarray:
    return _ratio(drawn[:, side] @ right[side], drawn[:, side].sum(1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _interval(scores: np.ndarray) -> list[float] | None:
    """Of the drawings that give a score; None where none does."""
    tail = (1 - LEVEL) / 2
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return None
    low, high = np.quantile(scores, (tail, 1 - tail))
    return [float(low), float(high)]
