"""The five segmentation measures of the ISIC challenges: per image, then averaged over images.

With TP, FP, FN and TN counted over the pixels of one image:

| name | measure | definition |
|---|---|---|
| JA | Jaccard index | TP / (TP + FP + FN) |
| DI | Dice coefficient | 2 TP / (2 TP + FP + FN) |
| AC | pixel accuracy | (TP + TN) / all |
| SE | sensitivity | TP / (TP + FN) |
| SP | specificity | TN / (TN + FP) |

A measure whose denominator is zero is 1, as in the challenge's published scoring code: nothing could be got
wrong there. So, on one image,

| truth | prediction | JA | DI | AC | SE | SP |
|---|---|---|---|---|---|---|
| a lesion | empty | 0 | 0 | background's share | 0 | 1 |
| a lesion | full | lesion's share | 2s / (1 + s) | lesion's share | 1 | 0 |
| empty | empty | 1 | 1 | 1 | 1 | 1 |
| empty | a lesion | 0 | 0 | as defined | 1 | as defined |
| full | full | 1 | 1 | 1 | 1 | 1 |

where s is the lesion's share of the image. A truth with both lesion and skin, the usual one, never meets
that rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mbdcnn.preprocessing import MASK_THRESHOLD


class SegmentationScores(NamedTuple):
    """The five measures, as fractions in [0, 1], of one image or averaged over images."""

    JA: float
    DI: float
    AC: float
    SE: float
    SP: float


def score_mask(prediction: np.ndarray, truth: np.ndarray) -> SegmentationScores:
    """Compare one lesion mask with its truth.

    Args:
        prediction: `(H, W)` bool, true on the lesion.
        truth: `(H, W)` bool, true on the lesion.

    Returns:
        The five measures of this image (the module's first table).

    Raises:
        ValueError: the masks are not boolean, differ in shape, or hold no pixel.
    """
    if prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise ValueError(f"masks must be boolean, not {prediction.dtype} and {truth.dtype}")
    if prediction.shape != truth.shape or truth.size == 0:
        raise ValueError(f"masks of shape {prediction.shape} and {truth.shape} cannot be compared")
    predicted, actual = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    hit = int(np.count_nonzero(prediction & truth))
    false_alarm, miss = predicted - hit, actual - hit
    right_background = truth.size - hit - false_alarm - miss
    return SegmentationScores(
        JA=_ratio(hit, hit + false_alarm + miss),
        DI=_ratio(2 * hit, predicted + actual),
        AC=_ratio(hit + right_background, truth.size),
        SE=_ratio(hit, actual),
        SP=_ratio(right_background, right_background + false_alarm),
    )


def mean_scores(scores: Iterable[SegmentationScores]) -> SegmentationScores | None:
    """Average each measure over images, every image counting the same whatever its size.

    Returns:
        The means; None when there is no image.
    """
    columns = list(zip(*scores, strict=True))
    if not columns:
        return None
    return SegmentationScores(*(math.fsum(column) / len(column) for column in columns))


def jaccard(probability: Tensor, truth: Tensor, threshold: float = MASK_THRESHOLD) -> Tensor:
    """Jaccard index of each image of a batch, for watching a training at the network's own resolution.

    Args:
        probability: `(B, 1, H, W)` in [0, 1], any floating type and device.
        truth: `(B, 1, H, W)` in {0, 1}, of any type.
        threshold: the lesion is where the probability exceeds this.

    Returns:
        `(B,)` float32 in [0, 1] on the same device; 1 where truth and prediction are both empty.

    Raises:
        ValueError: the shapes differ or are not `(B, 1, H, W)`.
    """
    if probability.shape != truth.shape or probability.ndim != 4 or probability.shape[1] != 1:
        raise ValueError(f"need two (B, 1, H, W), got {tuple(probability.shape)} and {tuple(truth.shape)}")
    # Booleans are counted in int64: a sum of bfloat16 ones stops growing at 256.
    predicted, actual = probability > threshold, truth > 0.5
    intersection = (predicted & actual).sum(dim=(1, 2, 3))
    union = (predicted | actual).sum(dim=(1, 2, 3))
    return torch.where(union > 0, intersection / union.clamp(min=1), torch.ones((), device=union.device))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
