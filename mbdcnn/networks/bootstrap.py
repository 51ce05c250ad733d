"""The three trained networks as one: image in, masks, class and activation map out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mbdcnn.cam import class_activation_map
from mbdcnn.networks.classification import MaskCN
from mbdcnn.networks.segmentation import CoarseSN, EnhancedSN
from mbdcnn.preprocessing import MASK_THRESHOLD

_RAMP = 0.01  # half the width of the ramp, in probability


class Guidance(NamedTuple):
    """What mask-CN says of a batch, given coarse masks."""

    logits: Tensor
    probabilities: Tensor
    cam: Tensor


class Prediction(NamedTuple):
    """Everything that the networks say of a batch.

    Attributes:
        coarse_probability: `(B, 1, S, S)` in [0, 1].
        coarse_mask: `(B, 1, S, S)` in {0, 1}.
        logits: `(B, 3)`.
        probabilities: `(B, 3)`, softmax over `CLASSES`.
        cam: `(B, 1, h, w)` in [0, 1], of the predicted class.
        lesion_probability: `(B, 1, S, S)` in [0, 1], from enhanced-SN.
    """

    coarse_probability: Tensor
    coarse_mask: Tensor
    logits: Tensor
    probabilities: Tensor
    cam: Tensor
    lesion_probability: Tensor


def binarise(probability: Tensor) -> Tensor:
    """The lesion mask in {0.0, 1.0} of a probability map of any shape."""
    return (probability > MASK_THRESHOLD).to(torch.float32)


def guiding_mask(probability: Tensor) -> Tensor:
    """The coarse mask as mask-CN gets it: `binarise`, but with a ramp where the probability is within 1 % of the cut.

    A hard cut would let the last bit of a float, which differs between PyTorch and ONNX Runtime, flip a pixel; one
    flipped pixel of an ISIC-2017 image moved a class probability by 0.009.
    """
    return ((probability - MASK_THRESHOLD) / (2 * _RAMP) + 0.5).clamp(0, 1)


def guide(mask_cn: MaskCN, images: Tensor, mask: Tensor) -> Guidance:
    """Classify a batch and map the predicted class's evidence.

    Args:
        mask_cn: the classifier.
        images: `(B, 3, S, S)` normalised.
        mask: `(B, 1, S, S)` in [0, 1], from coarse-SN.

    Returns:
        Logits `(B, 3)`, probabilities `(B, 3)` and the map `(B, 1, h, w)` in [0, 1].
    """
    logits, features = mask_cn(images, mask)
    cam = class_activation_map(features, mask_cn.classifier.weight, logits.argmax(1))
    return Guidance(logits, logits.softmax(1), cam)


class MutualBootstrap(nn.Module):
    """Coarse-SN -> mask -> mask-CN -> activation map -> enhanced-SN (Xie et al. 2020, figure 2)."""

    def __init__(self, coarse_sn: CoarseSN, mask_cn: MaskCN, enhanced_sn: EnhancedSN) -> None:
        super().__init__()
        self.coarse_sn = coarse_sn
        self.mask_cn = mask_cn
        self.enhanced_sn = enhanced_sn

    def forward(self, images: Tensor) -> Prediction:
        """Run the whole chain on normalised images `(B, 3, S, S)`."""
        coarse_probability = self.coarse_sn(images)
        guidance = guide(self.mask_cn, images, guiding_mask(coarse_probability))
        lesion_probability = self.enhanced_sn(images, guidance.cam)
        return Prediction(coarse_probability, binarise(coarse_probability), *guidance, lesion_probability)
