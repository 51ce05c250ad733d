"""Coarse-SN and enhanced-SN: DeepLabv3+ with one sigmoid channel, and the same with an E-layer in between."""

from __future__ import annotations

from typing import ClassVar

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbdcnn.config import NetworkConfig
from mbdcnn.networks.backbone import LoadReport, load_backbone, tensors_of
from mbdcnn.networks.encoders import check_encoder, check_maps, fitting, regularised, try_out


class CoarseSN(nn.Module):
    """DeepLabv3+ (Chen et al., ECCV 2018) that finds the lesion in an image alone (Xie et al. 2020, section III-A)."""

    _inputs: ClassVar[tuple[int, ...]] = (3,)  # channels of each

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        encoder, stride = config.segmentation_encoder, config.output_stride
        check_encoder(encoder)
        with fitting(encoder, "the segmentation encoder", stride):
            net = smp.DeepLabV3Plus(
                f"tu-{encoder}",
                encoder_weights=None,
                encoder_output_stride=stride,
                decoder_channels=config.decoder_channels,
                decoder_aspp_dropout=config.decoder_dropout,
                classes=1,
                **regularised(config),
            )
            self.encoder = net.encoder
            self.decoder = net.decoder
            self.head = net.segmentation_head
            self._add_layers(config)
            (probability,) = try_out(self, *self._inputs)
            check_maps(probability, 1, 1)

    def _add_layers(self, config: NetworkConfig) -> None:
        """Whatever a derived network has besides."""

    def load_pretrained(self, state: dict[str, Tensor] | None) -> LoadReport:
        """Start the encoder from ImageNet weights; see `load_backbone`."""
        parts = {name: part for name, part in self.named_children() if name != "encoder"}
        return load_backbone(self.encoder.model, state).and_new(**parts)

    def forward(self, images: Tensor) -> Tensor:
        """Lesion probability `(B, 1, S, S)` float32 from normalised images `(B, 3, S, S)`."""
        return self._lesion(self.decoder(self.encoder(images)))

    def _lesion(self, decoded: Tensor) -> Tensor:
        # sigmoid in float32: bfloat16 near 1 has steps of 2^-8, too coarse for the rank loss
        return torch.sigmoid(self.head(decoded).float())


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
        cam = _resize(cam, features)
        return torch.relu(self.bn(self.conv(torch.cat([features, cam], 1))))


class Bridge(nn.Module):
    """Lifts a class activation map to the width of the features that it takes the place of.

    DecoupledNet's bridging layers (Hong et al., NeurIPS 2015) in the E-layer's form: 1x1 convolution, batch norm, ReLU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor, cam: Tensor) -> Tensor:
        """`(B, C, h, w)` from a map `(B, 1, *, *)` in [0, 1]; of the features `(B, C, h, w)` only the size counts."""
        return torch.relu(self.bn(self.conv(_resize(cam, features))))


class EnhancedSN(CoarseSN):
    """Coarse-SN's encoder and decoder with an E-layer between them (Xie et al. 2020, section III-C).

    `network.e_layer` moves the layer: see `NetworkConfig`.
    """

    _inputs = (3, 1)

    def _add_layers(self, config: NetworkConfig) -> None:
        self.place = config.e_layer
        deepest = self.encoder.out_channels[-1]
        if self.place == "encoder":
            self.e_layer: nn.Module = ELayer(deepest)
        elif self.place == "aspp":
            self.e_layer = ELayer(config.decoder_channels)
        elif self.place == "decoder":
            self.e_layer = Bridge(deepest)

    def start_from(self, coarse_sn: CoarseSN) -> LoadReport:
        """Take over every tensor of a trained coarse-SN; only the E-layer stays new."""
        missing, unexpected = self.load_state_dict(coarse_sn.state_dict(), strict=False)
        assert not unexpected
        assert all(name.startswith("e_layer.") for name in missing)
        parts = {name: part for name, part in self.named_children() if name == "e_layer"}
        return LoadReport(len(tensors_of(coarse_sn)), 0, 0).and_new(**parts)

    def forward(self, images: Tensor, cam: Tensor | None) -> Tensor:  # type: ignore[override]
        """Lesion probability `(B, 1, S, S)` float32.

        Args:
            images: `(B, 3, S, S)` normalised.
            cam: `(B, 1, h, w)` in [0, 1]; not looked at where `network.e_layer` is `none`.
        """
        features = list(self.encoder(images))
        if self.place == "aspp":
            deep = self.e_layer(self.decoder.aspp(features[-1]), cam)
            shallow = self.decoder.block1(features[2])
            return self._lesion(self.decoder.block2(torch.cat([self.decoder.up(deep), shallow], 1)))
        if self.place != "none":
            features[-1] = self.e_layer(features[-1], cam)
        return self._lesion(self.decoder(features))


def _resize(cam: Tensor, features: Tensor) -> Tensor:
    if cam.shape[-2:] != features.shape[-2:]:
        cam = F.interpolate(cam, features.shape[-2:], mode="bilinear", align_corners=False)
    return cam.to(features.dtype)
