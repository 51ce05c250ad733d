"""Every setting of a run, as frozen dataclasses; overrides by dotted name; YAML in and out."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mbdcnn._engine_config import EngineConfig
from mbdcnn.classes import CLASSES, unusable
from mbdcnn.errors import UserError
from mbdcnn.files import replacing
from mbdcnn.preprocessing import Preprocessing

STAGES = ("coarse", "mask", "enhanced")
SCHEDULES = ("constant", "poly", "cosine")
PRECISIONS = ("auto", "float32", "bfloat16")
COARSE_MASKS = ("stored", "computed")
E_LAYER_PLACES = ("encoder", "aspp", "decoder", "none")


@dataclass(frozen=True)
class NetworkConfig:
    """The three networks.

    Attributes:
        segmentation_encoder: timm name of the encoder of coarse-SN and enhanced-SN.
        classification_encoder: timm name of mask-CN's backbone.
        weights: `auto` (a local file of the encoder's name if there is one, else the hub), `none` (random), a file, or
            a folder with a file named after each encoder.
        output_stride: of the last feature maps; 16 keeps 14 x 14 maps at 224 x 224.
        decoder_channels: width of the DeepLabv3+ decoder.
        decoder_dropout: probability in the decoder's pyramid pooling.
        drop_path: of stochastic depth (Huang et al., ECCV 2016) in the encoders: how often the deepest residual block
            is skipped in training, shallower ones proportionally less.
        mask_channel: mask-CN sees the coarse mask as its 4th input channel; without, it sees the image alone.
        e_layer: where the activation map enters enhanced-SN: after the `encoder` (the paper's text), after `aspp`, the
            decoder's pyramid pooling (the authors' code), or in the `decoder` alone, which then sees the map in place
            of the encoder's deepest features (DecoupledNet's way, the paper's table VII); `none` leaves it out.
        classes: that mask-CN tells apart, in the order of its outputs; `train` takes the data set's unless others that
            include them are given.
    """

    segmentation_encoder: str = "tf_efficientnet_lite0"
    classification_encoder: str = "tf_efficientnet_lite0"
    weights: str = "auto"
    output_stride: int = 16
    decoder_channels: int = 256
    decoder_dropout: float = 0.5
    drop_path: float = 0.0
    mask_channel: bool = True
    e_layer: str = "encoder"
    classes: tuple[str, ...] = CLASSES


@dataclass(frozen=True)
class LossConfig:
    """The hybrid loss of both segmentation networks: Dice + lambda_rank * rank."""

    lambda_rank: float = 0.05
    top_k: int = 30
    margin: float = 0.3


@dataclass(frozen=True)
class AugmentationConfig:
    """Random geometry, applied alike to image, mask and coarse mask, and random colour; drawn once per sample.

    Attributes:
        crop_probability: how often a central crop is taken.
        crop_min: smallest crop, as a fraction of each side; the largest is 1.
        rotation_deg: largest rotation to either side, in degrees.
        shear_rad: largest shear to either side, in radians.
        shift_px: largest shift along each axis, in pixels of the network input.
        zoom_min: smallest magnification.
        zoom_max: largest magnification.
        horizontal_flip: probability.
        vertical_flip: probability.
        brightness: largest change of the image's brightness to either side, as a share of it.
        contrast: of its contrast, likewise.
        saturation: of its saturation, likewise.
        hue_deg: largest turn of its hue to either side, in degrees.
    """

    crop_probability: float = 1.0
    crop_min: float = 0.5
    rotation_deg: float = 10.0
    shear_rad: float = 0.1
    shift_px: float = 20.0
    zoom_min: float = 1.0
    zoom_max: float = 1.1
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue_deg: float = 0.0

    @property
    def changes_colour(self) -> bool:
        """Whether any colour may change."""
        return any((self.brightness, self.contrast, self.saturation, self.hue_deg))


@dataclass(frozen=True)
class StageConfig:
    """How one network is trained.

    Attributes:
        epochs: at most.
        patience: epochs without a better validation score after which training stops.
        batch_size: images a step, over all processes together.
        learning_rate: of Adam, at the start.
        schedule: of the learning rate: `constant`, `poly` (decays as (1 - step / steps) ** 0.9) or `cosine`.
        balanced: draw the classes equally often, also for the segmentation networks, for which images without a label
            are a class of their own.
        label_smoothing: share of each label that is spread evenly over the classes (mask-CN only).
    """

    epochs: int = 100
    patience: int = 20
    batch_size: int = 16
    learning_rate: float = 1e-4
    schedule: str = "poly"
    balanced: bool = False
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class BootstrapConfig:
    """What the networks hand to each other besides masks and maps.

    Attributes:
        coarse_start: enhanced-SN starts from coarse-SN's weights; otherwise from its encoder's pretrained ones.
        coarse_masks: `stored` (segmented once, before the stage that they guide) or `computed` (segmented anew for each
            batch, on the trainer's device, and nothing written); the masks are the same.
        coarse_folds: with N >= 2 the training images' coarse masks come from N networks, each trained without the
            images that it segments; 1 lets coarse-SN segment the images that it was trained on.
        rounds: how often mask-CN and enhanced-SN are trained; from the second on, the enhanced masks guide.
        proxy_labels: training images without a mask get one from mask-CN's map of their class and join enhanced-SN's
            training (MDC's way, the paper's table VII, there with `network.e_layer=none`).
        start_run: run folder whose trained networks these ones start from; empty for pretrained encoders.
    """

    coarse_start: bool = True
    coarse_masks: str = "stored"
    coarse_folds: int = 1
    rounds: int = 1
    proxy_labels: bool = False
    start_run: str = ""


@dataclass(frozen=True)
class SupervisionConfig:
    """How many of the training images' labels are used; the seed draws which, and more always include fewer.

    Attributes:
        pixel_labels: images whose lesion mask is used; 0 for all.
        image_labels: images whose class is used; 0 for all.
    """

    pixel_labels: int = 0
    image_labels: int = 0


@dataclass(frozen=True)
class Config:
    """A run: three networks trained one after the other."""

    preset: str = "compact"
    seed: int = 0
    precision: str = "auto"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    coarse: StageConfig = field(default_factory=StageConfig)
    mask: StageConfig = field(default_factory=lambda: StageConfig(batch_size=32))
    enhanced: StageConfig = field(default_factory=StageConfig)

    def stage(self, name: str) -> StageConfig:
        """The section of a stage."""
        return {"coarse": self.coarse, "mask": self.mask, "enhanced": self.enhanced}[name]


def override(config: Config, assignments: Sequence[str]) -> Config:
    """Change fields by dotted name.

    Args:
        config: to start from.
        assignments: such as `coarse.epochs=8`; values are read as YAML.

    Raises:
        UserError: an unknown field (the near one is suggested), a value of the wrong type or out of range.
    """
    known = list(flatten(config))
    for assignment in assignments:
        name, equals, _ = assignment.partition("=")
        if not equals:
            raise UserError(f"`{assignment}` is not a setting; write field=value, such as coarse.epochs=8.")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            near = near or [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
            mend = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(known)}."
            raise UserError(f"There is no field {name}; {mend}")
    try:
        changed = OmegaConf.merge(OmegaConf.structured(config), OmegaConf.from_dotlist(list(assignments)))
        result = OmegaConf.to_object(changed)
    except (OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError) as error:
        field_name = getattr(error, "full_key", None) or " ".join(assignments)
        raise UserError(f"{field_name}: {_first_line(error)}.") from None
    assert isinstance(result, Config)
    _check(result)
    return result


def save(config: Config, path: Path) -> None:
    """Write every field, as YAML, atomically."""
    with replacing(path) as part:
        part.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")


def load(path: Path) -> Config:
    """Read what `save` wrote.

    Raises:
        UserError: missing, not YAML, or with unknown fields or wrong types.
    """
    try:
        document = OmegaConf.load(path)
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), document))
    except (OSError, ValueError, TypeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is not a usable configuration: {_first_line(error)}.") from None
    if not document:
        raise UserError(f"{path} is not a usable configuration: it is empty.")
    assert isinstance(config, Config)
    _check(config)
    return config


def differences(a: Config, b: Config) -> list[str]:
    """Dotted names whose values differ."""
    left, right = flatten(a), flatten(b)
    return [name for name, value in left.items() if right[name] != value]


def flatten(node: object, prefix: str = "") -> dict[str, object]:
    """Dotted name -> value, for every leaf field."""
    flat: dict[str, object] = {}
    for f in fields(node):  # type: ignore[arg-type]
        value, name = getattr(node, f.name), f"{prefix}{f.name}"
        flat |= flatten(value, f"{name}.") if is_dataclass(value) else {name: value}
    return flat


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def _check(config: Config) -> None:
    """Refuse values that would fail much later, with their field's name."""
    augmentation = config.augmentation
    chances = (augmentation.crop_probability, augmentation.horizontal_flip, augmentation.vertical_flip)
    rules: list[tuple[bool, str]] = [
        (config.seed >= 0, "seed is at least 0"),
        (config.precision in PRECISIONS, f"precision is one of {', '.join(PRECISIONS)}"),
        (
            config.preprocessing.image_size >= 32 and config.preprocessing.image_size % 16 == 0,
            "preprocessing.image_size is a multiple of 16, at least 32",
        ),
        (all(s > 0 for s in config.preprocessing.std), "preprocessing.std is above 0"),
        (config.network.output_stride in (8, 16), "network.output_stride is 8 or 16"),
        (0 <= config.network.decoder_dropout < 1, "network.decoder_dropout is at least 0 and below 1"),
        (0 <= config.network.drop_path < 1, "network.drop_path is at least 0 and below 1"),
        (config.network.e_layer in E_LAYER_PLACES, f"network.e_layer is one of {', '.join(E_LAYER_PLACES)}"),
        (
            len(set(config.network.classes)) == len(config.network.classes) > 0,
            "network.classes names each class once",
        ),
        *((not unusable(name), f"network.classes: {name!r} {unusable(name)}") for name in config.network.classes),
        (config.bootstrap.coarse_folds >= 1, "bootstrap.coarse_folds is at least 1"),
        (config.bootstrap.coarse_masks in COARSE_MASKS, f"bootstrap.coarse_masks is one of {', '.join(COARSE_MASKS)}"),
        (
            config.bootstrap.coarse_masks == "stored" or config.bootstrap.coarse_folds == 1,
            "bootstrap.coarse_masks is stored where bootstrap.coarse_folds is above 1",
        ),
        (config.bootstrap.rounds >= 1, "bootstrap.rounds is at least 1"),
        (config.supervision.pixel_labels >= 0, "supervision.pixel_labels is at least 0"),
        (config.supervision.image_labels >= 0, "supervision.image_labels is at least 0"),
        (config.loss.top_k >= 1, "loss.top_k is at least 1"),
        (config.loss.lambda_rank >= 0, "loss.lambda_rank is at least 0"),
        (config.network.decoder_channels >= 1, "network.decoder_channels is at least 1"),
        (
            all(0 <= chance <= 1 for chance in chances),
            "augmentation.crop_probability, horizontal_flip and vertical_flip are between 0 and 1",
        ),
        (0 < augmentation.crop_min <= 1, "augmentation.crop_min is above 0 and at most 1"),
        (
            all(0 <= share < 1 for share in (augmentation.brightness, augmentation.contrast, augmentation.saturation)),
            "augmentation.brightness, contrast and saturation are at least 0 and below 1",
        ),
        (0 <= augmentation.hue_deg <= 180, "augmentation.hue_deg is between 0 and 180"),
        (
            0 < augmentation.zoom_min <= augmentation.zoom_max,
            "augmentation.zoom_min is above 0 and at most augmentation.zoom_max",
        ),
        *config.engine.rules(),
    ]
    for name in STAGES:
        stage = config.stage(name)
        rules += [
            (stage.epochs >= 1, f"{name}.epochs is at least 1"),
            (stage.patience >= 1, f"{name}.patience is at least 1"),
            (stage.batch_size >= 2, f"{name}.batch_size is at least 2"),
            (stage.learning_rate > 0, f"{name}.learning_rate is above 0"),
            (0 <= stage.label_smoothing < 1, f"{name}.label_smoothing is at least 0 and below 1"),
            (stage.schedule in SCHEDULES, f"{name}.schedule is one of {', '.join(SCHEDULES)}"),
        ]
    for holds, rule in rules:
        if not holds:
            raise UserError(f"{rule}; change that field.")
