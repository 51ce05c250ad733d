"""Class activation maps (Zhou et al., CVPR 2016), as mask-CN hands them to enhanced-SN."""

from __future__ import annotations

import torch
from torch import Tensor


def class_activation_map(
    features: Tensor, weight: Tensor, classes: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Where the evidence for one class lies: its weights times the last feature maps, rectified, scaled to [0, 1].

    Args:
        features: `(B, C, h, w)` last feature maps, before global average pooling.
        weight: `(n_classes, C)` of the linear classifier.
        classes: `(B,)` int64, the class to explain in each image; by default the one that the classifier predicts.
        bias: `(n_classes,)` of the linear classifier, for that prediction; none counts as zero.

    Returns:
        `(B, 1, h, w)` float32; the maximum is 1, or the map is all zero where no position speaks for the class.
    """
    if classes is None:
        logits = features.float().mean((2, 3)) @ weight.float().T
        classes = (logits if bias is None else logits + bias).argmax(1)
    return _maps(features, weight[classes].unsqueeze(1))


def class_activation_maps(features: Tensor, weight: Tensor) -> Tensor:
    """The map of every class, each scaled on its own: channel c is `class_activation_map` of class c.

    Args:
        features: `(B, C, h, w)` last feature maps, before global average pooling.
        weight: `(n_classes, C)` of the linear classifier.

    Returns:
        `(B, n_classes, h, w)` float32 in [0, 1].
    """
    return _maps(features, weight)


def _maps(features: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums `(B, n, h, w)` with weights `(n, C)` or `(B, n, C)`, rectified and divided by each one's maximum.

    A map without a positive position becomes zero.
    """
    with torch.autocast(features.device.type, enabled=False):  # the sum over thousands of channels stays in float32
        activation = torch.relu(weight.float() @ features.float().flatten(2)).unflatten(2, features.shape[2:])
    return activation / activation.amax((2, 3), keepdim=True).clamp(min=1e-6)
