"""Dice loss: equation 2 of Xie et al. (2020)."""

from __future__ import annotations

import torch
from torch import Tensor


def dice_loss(p: Tensor, y: Tensor, eps: float = 1e-5) -> Tensor:
    """1 - 2 * sum(p * y) / (sum(p + y) + eps), per image, then averaged over the batch.

    For an image without lesion that is 1 whatever p is, and teaches nothing; there the background takes the lesion's
    place: the same equation on 1 - p and 1 - y. A full mask needs no such care.

    Args:
        p: `(B, 1, H, W)` lesion probabilities.
        y: `(B, 1, H, W)` truth in {0, 1}.
        eps: keeps the quotient finite.

    Returns:
        Scalar in [0, 1], in float32 or wider.
    """
    p = p.to(torch.promote_types(p.dtype, torch.float32)).flatten(1)
    y = y.to(p.dtype).flatten(1)
    claimed, true, overlap = p.sum(1), y.sum(1), (p * y).sum(1)
    pixels, empty = p.shape[1], true == 0
    overlap = torch.where(empty, pixels - claimed, overlap)
    total = torch.where(empty, 2 * pixels - claimed, claimed + true)
    return (1 - 2 * overlap / (total + eps)).mean()
