"""Mask-CN: a classifier that sees the image and where the lesion is."""

from __future__ import annotations

import timm
import torch
from torch import Tensor, nn

from mbdcnn.classes import CLASSES
from mbdcnn.config import NetworkConfig
from mbdcnn.errors import UserError
from mbdcnn.networks.backbone import LoadReport, check_encoder, load_backbone


class MaskCN(nn.Module):
    """Backbone on RGB + coarse mask, global average pooling, linear layer (Xie et al. 2020, section III-B)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        check_encoder(config.classification_encoder)
        try:
            self.backbone = timm.create_model(
                config.classification_encoder,
                in_chans=4,
                num_classes=0,
                global_pool="",
                output_stride=config.output_stride,
            )
        except (ValueError, TypeError, NotImplementedError, AssertionError, RuntimeError) as error:
            raise UserError(
                f"{config.classification_encoder} cannot be mask-CN's backbone at output stride "
                f"{config.output_stride} ({str(error).splitlines()[0]}); tf_efficientnet_lite0 and resnet34 can."
            ) from None
        self.classifier = nn.Linear(self.backbone.num_features, len(CLASSES))

    def load_pretrained(self, state: dict[str, Tensor] | None) -> LoadReport:
        """Start the backbone from ImageNet weights; the 4th input channel from the mean of RGB."""
        return load_backbone(self.backbone, state).and_new(self.classifier)

    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits and the last feature maps.

        Args:
            images: `(B, 3, S, S)` normalised.
            masks: `(B, 1, S, S)` in [0, 1], from coarse-SN.

        Returns:
            Logits `(B, 3)` float32 in the order of `CLASSES`, and features `(B, C, h, w)`.
        """
        features = self.backbone.forward_features(torch.cat([images, masks.to(images.dtype)], 1))
        return self.classifier(features.mean((2, 3))).float(), features
