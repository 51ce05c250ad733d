"""Mask-CN: a classifier that sees the image and where the lesion is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mbdcnn.config import NetworkConfig
from mbdcnn.networks import legacy_xception
from mbdcnn.networks.backbone import LoadReport, load_backbone
from mbdcnn.networks.encoders import check_encoder, check_maps, fitting, regularised, try_out


class MaskCN(nn.Module):
    """Backbone on RGB + coarse mask, global average pooling, linear layer (Xie et al. 2020, section III-B).

    Attributes:
        classes: names of the n outputs.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        encoder, stride = config.classification_encoder, config.output_stride
        check_encoder(encoder)
        self.mask_channel = config.mask_channel
        self.classes = config.classes
        with fitting(encoder, "mask-CN's backbone", stride, legacy_xception.NAME):
            self.backbone, channels = _backbone(encoder, 4 if config.mask_channel else 3, config)
            self.classifier = nn.Linear(channels, len(self.classes))
            _, features = try_out(self, 3, 1)
            check_maps(features, channels, stride)

    def load_pretrained(self, state: dict[str, Tensor] | None) -> LoadReport:
        """Start the backbone from ImageNet weights; the 4th input channel from the mean of RGB."""
        return load_backbone(self.backbone, state).and_new(classifier=self.classifier)

    def forward(self, images: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """Class logits and the last feature maps.

        Args:
            images: `(B, 3, S, S)` normalised.
            masks: `(B, 1, S, S)` in [0, 1], from coarse-SN; not looked at without `mask_channel`.

        Returns:
            Logits `(B, n)` float32 in the order of `classes`, and features `(B, C, h, w)`.
        """
        if self.mask_channel:
            assert masks is not None
            images = torch.cat([images, masks.to(images.dtype)], 1)
        features = self._features(images)
        return self.classifier(features.mean((2, 3))).float(), features

    def _features(self, images: Tensor) -> Tensor:
        stock: Callable[[Tensor], Tensor] | None = getattr(self.backbone, "forward_features", None)
        return self.backbone(images)[-1] if stock is None else stock(images)


def _backbone(encoder: str, in_channels: int, config: NetworkConfig) -> tuple[nn.Module, int]:
    """A timm model without its classifier, dilated, and the channels of its last feature maps.

    Some families, such as MobileNetV3, can be dilated as feature extractors only.
    """
    if encoder.partition(".")[0] == legacy_xception.NAME:
        model: Any = legacy_xception.dilated_legacy_xception(in_channels, config.output_stride)
        return model, model.num_features
    options = {"in_chans": in_channels, "output_stride": config.output_stride, **regularised(config)}
    try:
        model = timm.create_model(encoder, num_classes=0, global_pool="", **options)
    except TypeError:
        model = timm.create_model(encoder, features_only=True, **options)
        return model, model.feature_info.channels()[-1]
    return model, model.num_features
