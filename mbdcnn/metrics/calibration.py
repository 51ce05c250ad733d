"""Do probabilities mean what they say? Temperature scaling (Guo et al., ICML 2017) and how it is judged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.model_selection import StratifiedKFold

BINS = 15
FOLDS = 5
_COLDEST, _HOTTEST = 0.05, 20.0
_SEED = 2017


class Reliability(NamedTuple):
    """The images whose largest probability lies in one bin: how sure the network was, how often it was right."""

    confidence: float
    accuracy: float
    images: int


class CalibrationScores(NamedTuple):
    """How far probabilities are from what they say; 0 is best of each.

    Attributes:
        ECE: expected calibration error: |confidence - accuracy| of each bin, weighted by its images.
        NLL: mean negative log-likelihood of the true class, natural logarithm.
        Brier: mean squared distance to the true class's indicator, summed over the classes.
    """

    ECE: float
    NLL: float
    Brier: float


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature under which labels `(N,)` are likeliest, given logits `(N, n)`; from 0.05 to 20."""

    def loss(log_temperature: float) -> float:
        return _nll(logits / np.exp(log_temperature), labels)

    found = minimize_scalar(loss, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def cross_fitted(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Calibrated probabilities of images that their temperature was not fitted to.

    The images are shared out over `FOLDS` folds, class by class, or as many as the rarest class has images; each fold's
    temperature comes from the others.

    Returns:
        Probabilities `(N, n)`, and the folds' temperatures.

    Raises:
        ValueError: a class has a single image.
    """
    probabilities, temperatures = np.empty(logits.shape), []
    _, counts = np.unique(labels, return_counts=True)
    folds = StratifiedKFold(min(FOLDS, int(counts.min())), shuffle=True, random_state=_SEED)
    for others, held in folds.split(logits, labels):
        temperatures.append(fit_temperature(logits[others], labels[others]))
        probabilities[held] = softmax(logits[held] / temperatures[-1], axis=1)
    return probabilities, temperatures


def calibration_scores(probabilities: np.ndarray, labels: np.ndarray) -> CalibrationScores:
    """Judge probabilities `(N, n)` by labels `(N,)`."""
    truth = np.eye(probabilities.shape[1])[labels]
    found = reliability(probabilities, labels)
    error = sum(bin_.images * abs(bin_.confidence - bin_.accuracy) for bin_ in found) / len(labels)
    likelihood = np.clip(probabilities[np.arange(len(labels)), labels], np.finfo(np.float64).tiny, None)
    brier = ((probabilities - truth) ** 2).sum(1).mean()
    return CalibrationScores(float(error), float(-np.log(likelihood).mean()), float(brier))


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> list[Reliability]:
    """The bins, of equal width, that hold images, from the least to the most confident."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Reliability(float(confidence[here].mean()), float(right[here].mean()), int(here.sum()))
        for here in (places == place for place in np.unique(places))
    ]


def _nll(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())
