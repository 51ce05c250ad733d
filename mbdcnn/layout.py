"""Where things lie in a run folder; imports no network, so that a run can be looked at within a moment."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = "weights.safetensors"
CONFIG = "config.yaml"
METRICS = "metrics.json"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
FINGERPRINT = "fingerprint.json"
PROGRESS = "progress.json"
TENSORBOARD = "tensorboard"


def is_finished(run: Path, stage: str) -> bool:
    """Whether a stage has published its weights; `metrics.json` is written last."""
    return (run / stage / METRICS).is_file() and (run / stage / WEIGHTS).is_file()


def round_folder(run: Path, number: int) -> Path:
    """Where a bootstrapping round keeps its stages: the first in the run folder itself."""
    return run if number == 1 else run / f"round-{number}"


def coarse_masks_folder(run: Path, folds: int) -> Path:
    """Where coarse-SN's masks lie, which guide the first round; each number of folds keeps its own."""
    return run / "coarse" / ("masks" if folds == 1 else f"masks-{folds}-folds")


def fold_folder(masks: Path, number: int) -> Path:
    """The run folder, among the coarse masks, of the coarse-SN that one fold's images are kept from."""
    return masks / f"fold-{number}"
