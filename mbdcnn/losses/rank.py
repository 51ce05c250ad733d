"""Rank loss: equation 3 of Xie et al. (2020)."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_loss(p: Tensor, y: Tensor, top_k: int = 30, margin: float = 0.3) -> Tensor:
    """Mean over pairs of the hardest pixels of max(0, H0_i - H1_j + margin), per image, then over the batch.

    H0 are the `top_k` background pixels with the highest and H1 the `top_k` lesion pixels with the lowest
    probability: those with the largest error. A region with fewer pixels contributes the pixels it has; an image
    without lesion or without background has no pairs and contributes 0.

    Args:
        p: `(B, 1, H, W)` lesion probabilities.
        y: `(B, 1, H, W)` truth in {0, 1}.
        top_k: K, hardest pixels per region.
        margin: by which a lesion pixel should exceed a background pixel.

    Returns:
        Scalar in [0, 1 + margin], in float32 or wider.
    """
    p = p.to(torch.promote_types(p.dtype, torch.float32)).flatten(1)
    lesion = y.flatten(1) > 0.5
    k = min(top_k, p.shape[1])
    # Pixels outside the region sort last; the weights below drop those that a small region lets in.
    hard_background = p.masked_fill(lesion, float("-inf")).topk(k, dim=1, sorted=True)
    hard_lesion = p.masked_fill(~lesion, float("inf")).topk(k, dim=1, largest=False, sorted=True)
    in_background, in_lesion = hard_background.values.isfinite(), hard_lesion.values.isfinite()
    h0 = hard_background.values.masked_fill(~in_background, 0)
    h1 = hard_lesion.values.masked_fill(~in_lesion, 0)
    pairs = (in_background[:, :, None] & in_lesion[:, None, :]).to(p.dtype)
    hinge = torch.relu(h0[:, :, None] - h1[:, None, :] + margin) * pairs
    return (hinge.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)).mean()
