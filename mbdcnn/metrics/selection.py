"""Does a doubt find the bad answers? Risk-coverage curves (Geifman & El-Yaniv, NeurIPS 2017), and detection."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score


class Selection(NamedTuple):
    """What leaving out the most doubted answers gains.

    Attributes:
        AURC: area under the risk-coverage curve: the mean risk of the k least doubted answers, averaged over k.
        random: the same without looking at the doubt: the mean risk.
        oracle: the same for a doubt that is the risk itself.
        gain: (random - AURC) / (random - oracle): 0 for guessing, 1 for the oracle, below 0 for worse than guessing;
            0 where all answers have one risk.
    """

    AURC: float
    random: float
    oracle: float
    gain: float


def risk_coverage(doubt: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """Mean risk of the k least doubted answers, `(N,)` for k = 1 to N; equal doubts share their mean risk.

    Args:
        doubt: `(N,)`.
        risk: `(N,)`, such as 1 - JA, or 1 for a wrong class.
    """
    order = np.argsort(doubt, kind="stable")
    _, group, size = np.unique(doubt[order], return_inverse=True, return_counts=True)
    shared = (np.bincount(group, risk[order]) / size)[group]
    return np.cumsum(shared) / np.arange(1, len(risk) + 1)


def selection(doubt: np.ndarray, risk: np.ndarray) -> Selection:
    """Judge a doubt `(N,)` by the answers' risk `(N,)`."""
    area, oracle = (float(risk_coverage(by, risk).mean()) for by in (doubt, risk))
    chance = float(risk.mean())
    return Selection(area, chance, oracle, (chance - area) / (chance - oracle) if chance - oracle > 1e-12 else 0.0)


class Detection(NamedTuple):
    """How well a score tells foreign from familiar pictures.

    Attributes:
        AUROC: how often a foreign picture has a higher score than a familiar one.
        passed: share of the foreign pictures whose score lies below the one that `kept` of the familiar do not exceed
            (the false positive rate at that true positive rate).
        images: how many foreign pictures there were.
    """

    AUROC: float
    passed: float
    images: int


def detection(familiar: np.ndarray, foreign: np.ndarray, kept: float = 0.95) -> Detection:
    """Judge a score by its values for familiar `(N,)` and foreign `(M,)` pictures."""
    scores = np.concatenate([familiar, foreign])
    truth = np.arange(len(scores)) >= len(familiar)
    passed = np.mean(foreign <= np.quantile(familiar, kept))
    return Detection(float(roc_auc_score(truth, scores)), float(passed), len(foreign))
