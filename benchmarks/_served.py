"""What the benchmarks of servers serve and ask: untrained networks, drawn images."""

from __future__ import annotations

import io

import torch
from PIL import Image

from mbdcnn import config, presets
from mbdcnn.data.sample import draw
from mbdcnn.networks import CoarseSN, EnhancedSN, MaskCN, MutualBootstrap
from mbdcnn.preprocessing import Preprocessing

OUTPUTS = ("PROBABILITIES", "MASK_PNG")


def untrained(preset: str) -> tuple[MutualBootstrap, Preprocessing]:
    """A preset's networks with random weights, always the same, and how images are prepared for them."""
    torch.manual_seed(0)
    settings = config.override(presets.preset(preset), ["network.weights=none"])
    networks = MutualBootstrap(CoarseSN(settings.network), MaskCN(settings.network), EnhancedSN(settings.network))
    return networks.eval(), settings.preprocessing


def example_jpeg(number: int) -> bytes:
    """A drawn lesion of 512 x 512 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(draw("test", number, size=512)[0]).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
