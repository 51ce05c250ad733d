"""Coarse-SN and enhanced-SN: DeepLabv3+ with one sigmoid channel, and the same with an E-layer in between."""

from __future__ import annotations

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbdcnn.config import NetworkConfig
from mbdcnn.errors import UserError
from mbdcnn.networks.backbone import LoadReport, check_encoder, load_backbone


class CoarseSN(nn.Module):
    """DeepLabv3+ (Chen et al., ECCV 2018) that finds the lesion in an image alone (Xie et al. 2020, section III-A)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        check_encoder(config.segmentation_encoder)
        try:
            net = smp.DeepLabV3Plus(
                f"tu-{config.segmentation_encoder}",
                encoder_weights=None,
                encoder_output_stride=config.output_stride,
                decoder_channels=config.decoder_channels,
                decoder_aspp_dropout=config.decoder_dropout,
                classes=1,
            )
        except (ValueError, TypeError, NotImplementedError, AssertionError, RuntimeError) as error:
            raise UserError(
                f"{config.segmentation_encoder} cannot be the segmentation encoder at output stride "
                f"{config.output_stride} ({str(error).splitlines()[0]}); tf_efficientnet_lite0, resnet34 and "
                "xception65 can."
            ) from None
        self.encoder = net.encoder
        self.decoder = net.decoder
        self.head = net.segmentation_head

    def load_pretrained(self, state: dict[str, Tensor] | None) -> LoadReport:
        """Start the encoder from ImageNet weights; see `load_backbone`."""
        report = load_backbone(self.encoder.model, state)
        return report.and_new(self.decoder, self.head)

    def forward(self, images: Tensor) -> Tensor:
        """Lesion probability `(B, 1, S, S)` float32 from normalised images `(B, 3, S, S)`."""
        return self._decode(self.encoder(images))

    def _decode(self, features: list[Tensor]) -> Tensor:
        # sigmoid in float32: bfloat16 near 1 has steps of 2^-8, too coarse for the rank loss
        return torch.sigmoid(self.head(self.decoder(features)).float())


class ELayer(nn.Module):
    """Fuses deep features with a class activation map: concatenate, 1x1 convolution, batch norm, ReLU.

    The convolution starts as the identity on the features and ignores the map: enhanced-SN starts near what coarse-SN
    knows (batch norm and ReLU still drop the features' negative half) and learns how much to trust the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + 1, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:, :channels, 0, 0] = torch.eye(channels)

    def forward(self, features: Tensor, cam: Tensor) -> Tensor:
        """`(B, C, h, w)` from features `(B, C, h, w)` and a map `(B, 1, *, *)` in [0, 1] of any size."""
        if cam.shape[-2:] != features.shape[-2:]:
            cam = F.interpolate(cam, features.shape[-2:], mode="bilinear", align_corners=False)
        return torch.relu(self.bn(self.conv(torch.cat([features, cam.to(features.dtype)], 1))))


class EnhancedSN(CoarseSN):
    """Coarse-SN's encoder and decoder with an E-layer between them (Xie et al. 2020, section III-C)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.e_layer = ELayer(self.encoder.out_channels[-1])

    def start_from(self, coarse_sn: CoarseSN) -> LoadReport:
        """Take over every tensor of a trained coarse-SN; only the E-layer stays new."""
        state = coarse_sn.state_dict()
        missing, unexpected = self.load_state_dict(state, strict=False)
        assert not unexpected
        assert all(name.startswith("e_layer.") for name in missing)
        return LoadReport(len(state), 0, len(missing))

    def forward(self, images: Tensor, cam: Tensor) -> Tensor:  # type: ignore[override]
        """Lesion probability `(B, 1, S, S)` float32 from images `(B, 3, S, S)` and the map `(B, 1, h, w)`."""
        features = list(self.encoder(images))
        features[-1] = self.e_layer(features[-1], cam)
        return self._decode(features)
