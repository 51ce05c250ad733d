"""The four classification measures of ISIC-2017, for melanoma and for seborrheic keratosis against the rest.

AUC is the area under the ROC curve of that class's probability. AC, SE and SP come from one decision per
image, the class with the largest probability (the first of equals), as the method's authors report them.
The challenge itself cuts each probability at 0.5; that never finds a class that the arg-max does not, so by
its rule SE is at most, and SP at least, the one given here.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import numpy as np
from sklearn.metrics import roc_auc_score

from mbdcnn.classes import CLASSES

SCORED_CLASSES = ("melanoma", "seborrheic_keratosis")


class ClassScores(TypedDict):
    """One class against the rest, as fractions in [0, 1]."""

    AUC: float
    AC: float
    SE: float
    SP: float


class ClassificationScores(TypedDict):
    """Both of the challenge's questions, and its score, the mean of both AUCs."""

    melanoma: ClassScores | None
    seborrheic_keratosis: ClassScores | None
    mean_AUC: float | None


class OneVersusRest(NamedTuple):
    """One class against the rest, per image: what ROC curves and `ClassScores` are computed from.

    Attributes:
        truth: `(N,)` bool, the image is of this class.
        probability: `(N,)` float64 in [0, 1], of this class.
        decided: `(N,)` bool, this class is the arg-max.
    """

    truth: np.ndarray
    probability: np.ndarray
    decided: np.ndarray

    @property
    def has_both_sides(self) -> bool:
        """Whether there are images of the class and of the others: without both, nothing can be scored."""
        return bool(self.truth.any() and not self.truth.all())


def one_versus_rest(probabilities: np.ndarray, labels: np.ndarray, name: str) -> OneVersusRest:
    """Look at three-class answers as one class against the rest.

    Args:
        probabilities: `(N, 3)` in the order of `CLASSES`.
        labels: `(N,)` integers, positions in `CLASSES`.
        name: one of `CLASSES`.

    Raises:
        ValueError: shapes do not fit, a label is out of range, or a probability is not finite.
    """
    if probabilities.shape != (len(labels), len(CLASSES)) or labels.ndim != 1:
        raise ValueError(f"need (N, {len(CLASSES)}) and (N,), got {probabilities.shape} and {labels.shape}")
    if not np.isin(labels, range(len(CLASSES))).all():
        raise ValueError(f"labels must lie in 0..{len(CLASSES) - 1}")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities must be finite")
    index = CLASSES.index(name)
    decided = probabilities.argmax(axis=1) == index
    return OneVersusRest(labels == index, probabilities[:, index].astype(np.float64), decided)


def classification_scores(probabilities: np.ndarray, labels: np.ndarray) -> ClassificationScores:
    """Score three-class answers as the challenge's two one-versus-rest questions.

    Args:
        probabilities: `(N, 3)` in [0, 1], in the order of `CLASSES`; N may be 0.
        labels: `(N,)` integers, positions in `CLASSES`.

    Returns:
        Fractions. A class that no image has, or that every image has, is None; then `mean_AUC` is None too.

    Raises:
        ValueError: shapes do not fit, a label is out of range, or a probability is not finite.
    """
    melanoma, keratosis = (_score(one_versus_rest(probabilities, labels, name)) for name in SCORED_CLASSES)
    mean = None if melanoma is None or keratosis is None else (melanoma["AUC"] + keratosis["AUC"]) / 2
    return {"melanoma": melanoma, "seborrheic_keratosis": keratosis, "mean_AUC": mean}


def _score(answers: OneVersusRest) -> ClassScores | None:
    if not answers.has_both_sides:
        return None
    truth, decided = answers.truth, answers.decided
    return {
        "AUC": float(roc_auc_score(truth, answers.probability)),
        "AC": float(np.mean(decided == truth)),
        "SE": float(np.mean(decided[truth])),
        "SP": float(np.mean(~decided[~truth])),
    }
