"""The four classification measures of ISIC-2017, of one class after the other against the rest.

AUC is the area under the ROC curve of that class's probability. AC, SE and SP come from one decision per
image, the class with the largest probability (the first of equals), as the method's authors report them.
The challenge itself cuts each probability at 0.5; that never finds a class that the arg-max does not, so by
its rule SE is at most, and SP at least, the one given here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, TypedDict

import numpy as np
from sklearn.metrics import roc_auc_score

from mbdcnn.classes import CLASSES

# Of each scored class its `ClassScores`, or None; and `mean_AUC`, a fraction or None.
ClassificationScores: TypeAlias = dict[str, Any]


class ClassScores(TypedDict):
    """One class against the rest, as fractions in [0, 1]."""

    AUC: float
    AC: float
    SE: float
    SP: float


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


def scored_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that are scored against the rest.

    Of `CLASSES` those that the challenge asks for, melanoma and seborrheic keratosis; of two classes the second, as
    the first one's AUC and AC are the same; of others all.
    """
    classes = tuple(classes)
    return classes[1:] if classes == CLASSES or len(classes) == 2 else classes


def one_versus_rest(
    probabilities: np.ndarray, labels: np.ndarray, name: str, classes: Sequence[str] = CLASSES
) -> OneVersusRest:
    """Look at answers of several classes as one class against the rest.

    Args:
        probabilities: `(N, n)` in the order of `classes`.
        labels: `(N,)` integers, positions in `classes`.
        name: one of `classes`.
        classes: names of the n classes.

    Raises:
        ValueError: shapes do not fit, a label is out of range, or a probability is not finite.
    """
    if probabilities.shape != (len(labels), len(classes)) or labels.ndim != 1:
        raise ValueError(f"need (N, {len(classes)}) and (N,), got {probabilities.shape} and {labels.shape}")
    if not np.isin(labels, range(len(classes))).all():
        raise ValueError(f"labels must lie in 0..{len(classes) - 1}")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities must be finite")
    index = classes.index(name)
    decided = probabilities.argmax(axis=1) == index
    return OneVersusRest(labels == index, probabilities[:, index].astype(np.float64), decided)


def classification_scores(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str] = CLASSES
) -> ClassificationScores:
    """Score answers as one-versus-rest questions, one for each of `scored_classes`.

    Args:
        probabilities: `(N, n)` in [0, 1], in the order of `classes`; N may be 0.
        labels: `(N,)` integers, positions in `classes`.
        classes: names of the n classes.

    Returns:
        Fractions by class, and their mean, the challenge's score, as `mean_AUC`. A class that no image has, or that
        every image has, is None; then `mean_AUC` is None too.

    Raises:
        ValueError: shapes do not fit, a label is out of range, or a probability is not finite.
    """
    scores = {name: _score(one_versus_rest(probabilities, labels, name, classes)) for name in scored_classes(classes)}
    known = [score["AUC"] for score in scores.values() if score is not None]
    return {**scores, "mean_AUC": sum(known) / len(known) if known and len(known) == len(scores) else None}


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
