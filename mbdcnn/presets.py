"""Named starting points for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mbdcnn._engine_config import EngineConfig
from mbdcnn.config import AugmentationConfig, Config, NetworkConfig, StageConfig
from mbdcnn.errors import unknown
from mbdcnn.preprocessing import Preprocessing


def paper() -> Config:
    """The paper's networks and protocol (Xie et al. 2020, sections III and IV-B); wants a GPU."""
    stage = StageConfig(epochs=500, patience=50, batch_size=16, learning_rate=1e-4)
    return Config(
        preset="paper",
        # mean = std = 0.5 is how both encoders' ImageNet weights were trained
        preprocessing=Preprocessing(image_size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        network=NetworkConfig("xception65", "legacy_xception", weights="auto"),
        augmentation=AugmentationConfig(),
        coarse=stage,
        # the classes drawn equally often stand for the paper's offline crops, of which rare classes got more
        mask=replace(stage, batch_size=32, balanced=True),
        enhanced=stage,
    )


def compact() -> Config:
    """EfficientNet-Lite0 encoders with ImageNet weights, for two CPU cores; how the released networks began."""
    return Config(
        preset="compact",
        # mean = std = 0.5 is how the encoder's ImageNet weights were trained
        preprocessing=Preprocessing(image_size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        network=NetworkConfig("tf_efficientnet_lite0", "tf_efficientnet_lite0", weights="auto"),
        augmentation=AugmentationConfig(
            crop_probability=0.5,
            zoom_min=0.9,
            rotation_deg=20,
            brightness=0.2,
            contrast=0.2,
            saturation=0.2,
            hue_deg=8,
        ),
        engine=EngineConfig(ema_decay=0.998, warmup_steps=125, clip_norm=1.0, weight_decay=0.01),
        coarse=StageConfig(epochs=12, patience=12, learning_rate=5e-4, schedule="cosine"),
        mask=StageConfig(epochs=12, patience=12, learning_rate=3e-4, schedule="cosine", balanced=True),
        enhanced=StageConfig(epochs=9, patience=9, learning_rate=3e-4, schedule="cosine"),
    )


def smoke() -> Config:
    """The smallest networks that still learn the sample set from scratch in minutes."""
    return Config(
        preset="smoke",
        preprocessing=Preprocessing(image_size=96, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        network=NetworkConfig("resnet10t", "resnet10t", weights="none", decoder_channels=64),
        augmentation=AugmentationConfig(crop_probability=0.5, shift_px=8, zoom_min=0.9),
        coarse=StageConfig(epochs=8, patience=8, batch_size=16, learning_rate=2e-3),
        mask=StageConfig(epochs=10, patience=10, batch_size=16, learning_rate=1e-3, balanced=True),
        enhanced=StageConfig(epochs=4, patience=4, batch_size=16, learning_rate=1e-3),
    )


PRESETS: dict[str, Callable[[], Config]] = {"paper": paper, "compact": compact, "smoke": smoke}


def preset(name: str) -> Config:
    """A preset by name.

    Raises:
        UserError: no such preset.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]()
