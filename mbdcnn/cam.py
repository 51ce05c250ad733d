"""Class activation maps (Zhou et al., CVPR 2016), as mask-CN hands them to enhanced-SN."""

from __future__ import annotations

import torch
from torch import Tensor


def class_activation_map(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """Where the evidence for one class lies: its weights times the last feature maps, rectified, scaled to [0, 1].

    Args:
        features: `(B, C, h, w)` last feature maps, before global average pooling.
        weight: `(n_classes, C)` of the linear classifier.
        classes: `(B,)` int64, the class to explain in each image; the predicted one in MB-DCNN.

    Returns:
        `(B, 1, h, w)` float32; the maximum is 1, or the map is all zero where no position speaks for the class.
    """
    weights = weight.float()[classes]
    # a product and a sum rather than einsum: the same graph exports to ONNX with a dynamic batch
    activation = torch.relu((features.float() * weights[:, :, None, None]).sum(1, keepdim=True))
    return activation / activation.amax((2, 3), keepdim=True).clamp(min=1e-6)
