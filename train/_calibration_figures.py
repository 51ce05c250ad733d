"""The figures of a calibration: of probabilities, of doubts and of what is familiar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from mbdcnn.doubt import Familiarity
from mbdcnn.metrics import calibration_scores, cross_fitted, detection, reliability, selection

KEPT = 0.95  # of the validation images are familiar
_BAD_JA = 0.65  # below which ISIC 2018 counts a mask as failed


@dataclass(frozen=True)
class Seen:
    """What the networks say of the validation images, N in all.

    Attributes:
        logits: `(N, n)`.
        labels: `(N,)`, positions among the classes; -1 for none that mask-CN knows.
        pooled: `(N, C)`.
        risk: `(N,)`, 1 - JA of the enhanced mask at its truth's size; NaN without a true mask.
        expected: `(N,)`, mask doubt.
        disagreement: `(N,)`, 1 - JA of the coarse mask with the enhanced one.
    """

    logits: np.ndarray
    labels: np.ndarray
    pooled: np.ndarray
    risk: np.ndarray
    expected: np.ndarray
    disagreement: np.ndarray


def calibration_figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Scores of the probabilities as trained, and with the temperature of folds that did not see the image."""
    before = softmax(logits, axis=1)
    after, temperatures = cross_fitted(logits, labels)
    return {
        "images": len(labels),
        "temperatures_of_folds": temperatures,
        "before": calibration_scores(before, labels)._asdict(),
        "after": calibration_scores(after, labels)._asdict(),
        "reliability": {
            name: [bin_._asdict() for bin_ in reliability(probabilities, labels)]
            for name, probabilities in (("before", before), ("after", after))
        },
    }


def mask_doubts(seen: Seen) -> dict[str, Any] | None:
    """How well two measures of doubt find bad masks; `expected_JA` is the one that is served."""
    there = np.isfinite(seen.risk)
    if not there.any():
        return None
    risk = seen.risk[there]
    measures = {"expected_JA": seen.expected[there], "disagreement": seen.disagreement[there]}
    failed, doubted = risk > 1 - _BAD_JA, np.argsort(-measures["expected_JA"])[: len(risk) // 5]
    return {
        "images": len(risk),
        "measures": {name: selection(doubt, risk)._asdict() for name, doubt in measures.items()},
        "failed": int(failed.sum()),
        "failed_among_the_fifth_most_doubted": int(failed[doubted].sum()),
        "failed_below_JA": _BAD_JA,
    }


def class_doubts(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How well two measures of doubt find wrong classes; `max_probability` is the one that is served."""
    wrong = (probabilities.argmax(1) != labels).astype(np.float64)
    entropy = -(probabilities * np.log(np.clip(probabilities, 1e-12, None))).sum(1)
    measures = {"max_probability": 1 - probabilities.max(1), "entropy": entropy}
    doubted = np.argsort(-measures["max_probability"])[: len(wrong) // 5]
    return {
        "images": len(wrong),
        "measures": {name: selection(doubt, wrong)._asdict() for name, doubt in measures.items()},
        "wrong": int(wrong.sum()),
        "wrong_among_the_fifth_most_doubted": int(wrong[doubted].sum()),
    }


def familiarity_figures(
    familiarity: Familiarity, own: np.ndarray, strange: dict[str, np.ndarray], training_images: int
) -> dict[str, Any]:
    """How well the unfamiliarity tells each kind of foreign picture from the validation images."""

    def distance(pooled: np.ndarray) -> np.ndarray:
        return familiarity(torch.from_numpy(pooled))[:, 0].double().numpy()

    at_home = distance(own)
    apart = {name: distance(pooled) for name, pooled in strange.items()}
    every = np.concatenate(list(apart.values()))
    return {
        "training_images": training_images,
        "axes": len(familiarity.get_buffer("variances")),
        "kept": KEPT,
        "foreign": {name: detection(at_home, d, KEPT)._asdict() for name, d in {**apart, "all": every}.items()},
    }
