"""What each stage is made from: the settings that it reads and the stages that it learns from."""

from __future__ import annotations

import hashlib
import json

from mbdcnn.config import STAGES, Config, flatten

# Of the engine's settings those that change more than the order of float sums: the rest a run may change.
_ENGINE = tuple(f"engine.{name}" for name in ("accumulation", "clip_norm", "weight_decay", "warmup_steps", "ema_decay"))
_EVERY_STAGE = (
    "seed",
    "precision",
    "preprocessing.",
    "network.weights",
    "network.output_stride",
    "network.drop_path",
    "augmentation.",
    *_ENGINE,
)
_SEGMENTATION = ("network.segmentation_encoder", "network.decoder_", "loss.", "bootstrap.start_run")
_READ = {
    "coarse": (*_SEGMENTATION, "coarse.", "supervision.pixel_labels"),
    "mask": (
        "network.classification_encoder",
        "network.mask_channel",
        "network.classes",
        "mask.",
        "bootstrap.start_run",
        "bootstrap.coarse_masks",
        "bootstrap.coarse_folds",
        "supervision.image_labels",
    ),
    "enhanced": (
        *_SEGMENTATION,
        "network.e_layer",
        "network.classes",
        "bootstrap.coarse_masks",
        "bootstrap.coarse_folds",
        "bootstrap.coarse_start",
        "bootstrap.proxy_labels",
        "enhanced.",
        "supervision.",
    ),
}
_FITS = ("network.", "preprocessing.")  # what a network must share with those built on it
_FITS_ANYWAY = ("network.weights", "network.drop_path")  # which say how it is trained, not what it is


def needs(config: Config, stage: str) -> tuple[str, ...]:
    """The stages whose networks a stage learns from, in the order of `STAGES`."""
    if stage == "coarse":
        return ()
    guide = {"coarse"} if config.network.mask_channel else set()
    if stage == "mask":
        return tuple(guide)
    mapped = config.network.e_layer != "none" or config.bootstrap.proxy_labels
    needed = ({"mask"} | guide if mapped else set()) | ({"coarse"} if config.bootstrap.coarse_start else set())
    return tuple(name for name in STAGES if name in needed)


def lineage(config: Config, stage: str) -> tuple[str, ...]:
    """A stage and all that it learns from, directly or not, in the order of `STAGES`."""
    found = {stage}
    for parent in needs(config, stage):
        found |= set(lineage(config, parent))
    return tuple(name for name in STAGES if name in found)


def is_read(name: str, stage: str) -> bool:
    """Whether a stage's result depends on a setting, given by its dotted name; what it learns from does not count."""
    return name.startswith(_EVERY_STAGE + _READ[stage])


def must_fit(name: str, stage: str) -> bool:
    """Whether stages that build on a stage need the same value of a setting."""
    return is_read(name, stage) and name.startswith(_FITS) and name not in _FITS_ANYWAY


def stage_key(config: Config, stage: str, fingerprint: str, pixels: str = "") -> str:
    """A name for a stage's result: equal keys, equal training.

    Fields that have their default value do not count, so that a new field does not rename what was trained before it.

    Args:
        config: of the run.
        stage: one of `STAGES`.
        fingerprint: of the whole data set, before any label is left out.
        pixels: what the copies are called that stand for the originals; empty without, as before there were any.
    """
    default = flatten(Config())
    changed = {k: v for k, v in flatten(config).items() if is_read(k, stage) and v != default[k]}
    parents = [stage_key(config, parent, fingerprint, pixels) for parent in needs(config, stage)]
    document = json.dumps([stage, fingerprint, sorted(changed.items()), parents, *([pixels] if pixels else [])])
    return hashlib.sha256(document.encode()).hexdigest()[:16]
