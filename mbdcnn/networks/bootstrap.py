"""The three trained networks as one: image in, masks, class and activation map out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mbdcnn.cam import class_activation_map
from mbdcnn.doubt import Calibration, mask_doubt
from mbdcnn.networks.classification import MaskCN
from mbdcnn.networks.segmentation import CoarseSN, EnhancedSN
from mbdcnn.networks.views import over_views
from mbdcnn.preprocessing import MASK_THRESHOLD

_RAMP = 0.01  # half the width of the ramp, in probability


class Guidance(NamedTuple):
    """What mask-CN says of a batch, given coarse masks."""

    logits: Tensor
    probabilities: Tensor
    cam: Tensor
    pooled: Tensor


class Prediction(NamedTuple):
    """Everything that the networks say of a batch; what a network that is not there would say is None.

    Attributes:
        coarse_probability: `(B, 1, S, S)` in [0, 1].
        coarse_mask: `(B, 1, S, S)` in {0, 1}.
        logits: `(B, n)`, of mask-CN's classes.
        probabilities: `(B, n)`, their softmax, after the calibration's temperature.
        cam: `(B, 1, h, w)` in [0, 1], of the predicted class.
        lesion_probability: `(B, 1, S, S)` in [0, 1], from enhanced-SN.
        pooled: `(B, C)`, mask-CN's last features averaged over the image.
        class_doubt: `(B, 1)` in [0, 1] (`mbdcnn.doubt`).
        unfamiliarity: `(B, 1)`, above 1 for a picture unlike 95 % of the validation images; -1 where not measured.
        mask_doubt: `(B, 1)` in [0, 1], of enhanced-SN's mask.
    """

    coarse_probability: Tensor | None = None
    coarse_mask: Tensor | None = None
    logits: Tensor | None = None
    probabilities: Tensor | None = None
    cam: Tensor | None = None
    lesion_probability: Tensor | None = None
    pooled: Tensor | None = None
    class_doubt: Tensor | None = None
    unfamiliarity: Tensor | None = None
    mask_doubt: Tensor | None = None


def binarise(probability: Tensor) -> Tensor:
    """The lesion mask in {0.0, 1.0} of a probability map of any shape."""
    return (probability > MASK_THRESHOLD).to(torch.float32)


def guiding_mask(probability: Tensor) -> Tensor:
    """The coarse mask as mask-CN gets it: `binarise`, but with a ramp where the probability is within 1 % of the cut.

    A hard cut would let the last bit of a float, which differs between PyTorch and ONNX Runtime, flip a pixel; one
    flipped pixel of an ISIC-2017 image moved a class probability by 0.009.
    """
    return ((probability - MASK_THRESHOLD) / (2 * _RAMP) + 0.5).clamp(0, 1)


def guide(mask_cn: MaskCN, images: Tensor, mask: Tensor | None, views: int = 1) -> Guidance:
    """Classify a batch and map the predicted class's evidence.

    Args:
        mask_cn: the classifier.
        images: `(B, 3, S, S)` normalised.
        mask: `(B, 1, S, S)` in [0, 1], from coarse-SN; None for a classifier that sees the image alone.
        views: of the image and the mask to ask about (`over_views`); their features' mean is what is classified.

    Returns:
        Logits `(B, n)`, their softmax `(B, n)` over the n classes, the map `(B, 1, h, w)` in [0, 1] and the pooled
        features `(B, C)`.
    """
    logits, features = over_views(mask_cn, images, mask, views=views)
    cam = class_activation_map(features, mask_cn.classifier.weight, logits.argmax(1))
    return Guidance(logits, logits.softmax(1), cam, features.float().mean((2, 3)))


class MutualBootstrap(nn.Module):
    """Coarse-SN -> mask -> mask-CN -> activation map -> enhanced-SN (Xie et al. 2020, figure 2).

    Args:
        coarse_sn: None where mask-CN sees the image alone.
        mask_cn: None to segment coarsely and no more.
        enhanced_sn: None to classify and no more.
        further_rounds: (mask-CN, enhanced-SN) pairs that go on from the enhanced mask of the pair before.
        calibration: of the last round's mask-CN, and about how many views of an image the networks are asked; one that
            changes nothing when None.
    """

    coarse_sn: CoarseSN | None
    mask_cn: MaskCN | None
    enhanced_sn: EnhancedSN | None

    def __init__(
        self,
        coarse_sn: CoarseSN | None,
        mask_cn: MaskCN | None = None,
        enhanced_sn: EnhancedSN | None = None,
        further_rounds: Sequence[tuple[MaskCN, EnhancedSN]] = (),
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__()
        self.coarse_sn = coarse_sn
        self.mask_cn = mask_cn
        self.enhanced_sn = enhanced_sn
        self.further_rounds = nn.ModuleList(nn.ModuleList(pair) for pair in further_rounds)
        self.calibration = calibration or Calibration()

    def forward(self, images: Tensor) -> Prediction:
        """Run the whole chain on normalised images `(B, 3, S, S)`."""
        prediction, guiding, views = Prediction(), None, self.calibration.views
        if self.coarse_sn is not None:
            coarse = over_views(self.coarse_sn, images, views=views)
            prediction = prediction._replace(coarse_probability=coarse, coarse_mask=binarise(coarse))
            guiding = guiding_mask(coarse)
        for mask_cn, enhanced_sn in [(self.mask_cn, self.enhanced_sn), *self.further_rounds]:
            if mask_cn is not None:
                prediction = prediction._replace(**guide(mask_cn, images, guiding, views)._asdict())
            if enhanced_sn is not None:
                lesion = over_views(enhanced_sn, images, prediction.cam, views=views)
                prediction = prediction._replace(lesion_probability=lesion, mask_doubt=mask_doubt(lesion))
                guiding = guiding_mask(lesion)
        if prediction.logits is not None and prediction.pooled is not None:
            probabilities, doubt, unfamiliarity = self.calibration(prediction.logits, prediction.pooled)
            prediction = prediction._replace(
                probabilities=probabilities, class_doubt=doubt, unfamiliarity=unfamiliarity
            )
        return prediction
