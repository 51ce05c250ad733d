"""The paper's backbone of mask-CN: Xception (Chollet, CVPR 2017) at half its output stride."""

from __future__ import annotations

import timm
from torch import nn

from mbdcnn.errors import UserError

NAME = "legacy_xception"


def dilated_legacy_xception(in_channels: int, output_stride: int) -> nn.Module:
    """Make timm's `legacy_xception` without its last pooling, its last two separable convolutions dilated by 2.

    An image of 224 x 224 pixels gives 2048 maps of 14 x 14 (Xie et al. 2020, section III-B). The tensors keep timm's
    names and shapes.

    Args:
        in_channels: of the image; 4 with a mask.
        output_stride: 16, the only one that the paper's change makes.

    Raises:
        UserError: another output stride.
    """
    if output_stride != 16:
        raise UserError(f"{NAME} has output stride 16 as mask-CN's backbone; set network.output_stride=16.")
    network = timm.create_model(NAME, in_chans=in_channels, num_classes=0, global_pool="")
    block = network.block12
    block.rep = block.rep[:-1]  # its max-pooling
    block.skip.stride = (1, 1)  # or the shortcut would not fit
    for separable in (network.conv3, network.conv4):
        separable.conv1.dilation = separable.conv1.padding = (2, 2)
    return network
