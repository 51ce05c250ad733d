"""Proxy labels: lesion masks for images without one, from mask-CN's map of their class.

The comparison that Xie et al. (2020, table VII) call MDC transfer, after Wei et al. (CVPR 2018).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mbdcnn.cam import class_activation_map
from mbdcnn.networks import MaskCN
from train.pipeline import LoadedBatch

LESION_SHARE = 0.3  # of the map's maximum, above which a pixel is taken for lesion


def proxy_masks(mask_cn: MaskCN, batch: LoadedBatch) -> Tensor:
    """Lesion masks `(B, 1, S, S)` in {0.0, 1.0} where the map of each image's own class is strong."""
    _, features = mask_cn(batch.images, batch.planes.get("guide"))
    cam = class_activation_map(features, mask_cn.classifier.weight, batch.labels)
    cam = F.interpolate(cam, batch.images.shape[-2:], mode="bilinear", align_corners=False)
    return (cam > LESION_SHARE).to(cam.dtype)
