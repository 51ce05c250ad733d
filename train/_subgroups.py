"""Scores of parts of a split, each with its interval: an average hides what some patients get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mbdcnn.metrics import classification_intervals, classification_scores, drawings, mean_interval
from train._report_rows import Row, answers_and_labels, classes_of

_SIZES = ((0.1, "under 10 % of the image"), (0.3, "10 to 30 %"), (1.01, "over 30 %"))
_TONES = ((28.0, "tan or darker (ITA below 28)"), (41.0, "intermediate (28 to 41)"), (181.0, "light (above 41)"))


def subgroups(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Score the parts of a split.

    Returns:
        By what divides it (`class`, `lesion size`, `dark surround`, `scale`, `hair`, `skin`), then by group: `images`;
        `JA` of the final mask, `accuracy` (the share of right classes) and `mean_AUC`, each with its interval, or None
        where the group has nothing to compute it from. What divides no image into two groups is left out.
    """
    found = {}
    for name, group_of in _DIVISIONS.items():
        groups: dict[str, list[Row]] = {}
        for row in rows:
            group = group_of(row)
            if group is not None:
                groups.setdefault(group, []).append(row)
        if len(groups) > 1:
            order = [group for group in _ORDER.get(name, sorted(groups)) if group in groups]
            found[name] = {group: _scores(groups[group]) for group in order}
    return found


def _scores(rows: Sequence[Row]) -> dict[str, Any]:
    areas = np.array([row.final.JA for row in rows if row.final is not None])
    probabilities, labels = answers_and_labels(rows)
    right = (probabilities.argmax(1) == labels).astype(np.float64) if len(labels) else np.zeros(0)
    return {
        "images": len(rows),
        "JA": _mean(areas),
        "accuracy": _mean(right),
        "mean_AUC": _mean_auc(probabilities, labels, classes_of(rows)),
    }


def _mean(values: np.ndarray) -> dict[str, Any] | None:
    if not len(values):
        return None
    return {"value": float(values.mean()), "interval": mean_interval(values, drawings(len(values)))}


def _mean_auc(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any] | None:
    value = classification_scores(probabilities, labels, classes)["mean_AUC"] if len(labels) else None
    if value is None:
        return None
    drawn = drawings(len(labels))
    return {"value": value, "interval": classification_intervals(probabilities, labels, drawn, classes)["mean_AUC"]}


def _below(value: float | None, bounds: Sequence[tuple[float, str]]) -> str | None:
    return None if value is None else next(name for bound, name in bounds if value < bound)


def _having(it: bool) -> str:
    return "with" if it else "without"


_DIVISIONS: dict[str, Callable[[Row], str | None]] = {
    "class": lambda row: row.known_label,
    "lesion size": lambda row: _below(row.lesion_share, _SIZES),
    "dark surround": lambda row: None if row.traits is None else _having(row.traits.surround),
    "scale": lambda row: None if row.traits is None else _having(row.traits.scale),
    "hair": lambda row: None if row.traits is None else _having(row.traits.hair),
    "skin": lambda row: None if row.traits is None else _below(row.traits.lightness, _TONES),
}
_ORDER = {
    "lesion size": [name for _, name in _SIZES],
    "dark surround": ["without", "with"],
    "scale": ["without", "with"],
    "hair": ["without", "with"],
    "skin": [name for _, name in reversed(_TONES)],
}
