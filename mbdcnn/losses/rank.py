"""Rank loss: equation 3 of Xie et al. (2020), from sorted pixels rather than from pairs."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_loss(p: Tensor, y: Tensor, top_k: int = 30, margin: float = 0.3) -> Tensor:
    """Mean over pairs of the hardest pixels of max(0, H0_i - H1_j + margin), per image, then over the batch.

    H0 are the `top_k` background pixels with the highest and H1 the `top_k` lesion pixels with the lowest
    probability: those with the largest error. A region with fewer pixels contributes the pixels it has. An image
    without lesion or without background has no pairs, nothing to rank, and contributes 0; the Dice loss teaches there.

    The hinge is linear in each pair that violates the margin, so that the sum over pairs is
    sum_i above_i * (H0_i + margin) - sum_j below_j * H1_j, where above_i counts the lesion pixels below H0_i + margin
    and below_j the background pixels whose H0 + margin is above H1_j. Both counts come from searches in sorted
    pixels: O(K log K) time and O(K) memory, the gradient exact (0 where a pair meets the margin exactly).

    Args:
        p: `(B, 1, H, W)` lesion probabilities.
        y: `(B, 1, H, W)` truth in {0, 1}.
        top_k: K, hardest pixels per region; more than the image has means all.
        margin: by which a lesion pixel should exceed a background pixel.

    Returns:
        Scalar in [0, 1 + margin], in float32 or wider.
    """
    p = p.to(torch.promote_types(p.dtype, torch.float32))
    with torch.no_grad():
        lesion = y > 0.5
        # A small region ends in infinities that lie on the far side of every search below, so that none is counted.
        h0, where0 = _extremes(p.masked_fill(lesion, float("-inf")), top_k, largest=True)
        h1, where1 = _extremes(p.masked_fill(~lesion, float("inf")), top_k, largest=False)
        reach = h0 + margin
        above = torch.searchsorted(h1, reach)
        below = reach.shape[1] - torch.searchsorted(reach.flip(1), h1, right=True)
        pairs = h0.isfinite().sum(1) * h1.isfinite().sum(1)
    h0, h1 = p.flatten(1).gather(1, torch.cat([where0, where1], 1)).chunk(2, 1)  # now with gradients, all finite
    total = (above * (h0 + margin)).sum(1) - (below * h1).sum(1)
    return (total / pairs.clamp(min=1)).mean()


def _extremes(p: Tensor, top_k: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The `top_k` largest or smallest of each image `(B, 1, H, W)`: values, furthest out first, and flat indices.

    Both are `(B, K)`.
    """
    height, width = p.shape[-2:]
    if top_k >= height:
        values, places = p.flatten(1).topk(min(top_k, height * width), largest=largest)
        return values, places
    # They lie in the K rows whose own extremes go furthest; finding those first spares the CPU most of the selection.
    image = p.squeeze(1)
    rows = (image.amax(2) if largest else image.amin(2)).topk(top_k, largest=largest).indices
    picked = image.gather(1, rows[:, :, None].expand(-1, -1, width))
    values, places = picked.flatten(1).topk(top_k, largest=largest)
    return values, rows.gather(1, places // width) * width + places % width
