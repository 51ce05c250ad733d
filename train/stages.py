"""The three stages of a run, in order; each reads what the one before it published."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.config import STAGES, Config
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.errors import UserError
from mbdcnn.losses import HybridLoss
from mbdcnn.networks import CoarseSN, EnhancedSN, LoadReport, MaskCN, find_weights, read_backbone
from train.engine import Progress, Task, fit, use_bfloat16
from train.guidance import coarse_mask_file, write_coarse_masks
from train.pipeline import Loader, Sample
from train.processes import Process, cores
from train.sampling import EvaluationOrder, TrainingOrder
from train.tasks import CoarseTask, EnhancedTask, MaskTask

PACKAGES = ("torch", "timm", "segmentation-models-pytorch", "nvidia-dali-cuda130", "numpy", "scikit-learn")


def check_run(run: Path, stages: Sequence[str], config: Config, manifest: Manifest) -> None:
    """Refuse, before anything starts, what would go wrong later.

    Raises:
        UserError: the run folder holds a stage made with other settings, or the data set lacks what a stage needs.
    """
    for stage in stages:
        started = run / stage / runs.CONFIG
        if started.is_file():
            changed = [
                name
                for name in configuration.differences(configuration.load(started), config)
                if name.split(".")[0] not in set(STAGES) - {stage}
            ]
            if changed:
                raise UserError(
                    f"{run} has a stage {stage} with other settings ({', '.join(changed)}, see {started}); "
                    "use another --run, or the same settings to go on."
                )
        needs = "label" if stage == "mask" else "mask"
        for split in ("training", "validation"):
            count = len(_items(manifest, split, stage))
            if count == 0:
                raise UserError(f"{manifest.root} has no {split} image with a {needs}, which stage {stage} needs.")
            batch = config.stage(stage).batch_size
            if split == "training" and count < batch:
                raise UserError(
                    f"{manifest.root} has {count} training images with a {needs}, fewer than {stage}.batch_size = "
                    f"{batch}; lower it."
                )


def train_stages(
    process: Process, run: Path, stages: Sequence[str], config: Config, manifest: Manifest, weights_source: dict[str, str]
) -> None:
    """Train stages in the order given; one that is finished is left as it is.

    Args:
        process: this one.
        run: run folder.
        stages: of `STAGES`.
        config: settings.
        manifest: data set.
        weights_source: encoder -> what `find_weights` returned.

    Raises:
        UserError: a stage whose result is needed is missing, or the batch cannot be shared.
    """
    for stage in stages:
        if runs.is_finished(run, stage):
            if process.is_first:
                print(f"{stage:<9}is finished in {run / stage}", file=sys.stderr)
            continue
        if config.stage(stage).batch_size % process.world:
            raise UserError(
                f"{stage}.batch_size = {config.stage(stage).batch_size} cannot be shared by {process.world} processes; "
                "make it a multiple."
            )
        _train(process, run, stage, config, manifest, weights_source)


def resolve_weights(config: Config, data: Path) -> dict[str, str]:
    """Find the ImageNet weights of a run's encoders; `auto` also looks into `weights` in and beside the data folder.

    Raises:
        UserError: a file that is named is missing, or does not fit its encoder.
    """
    network = config.network
    beside = [data / "weights", data.resolve().parent / "weights"]
    encoders = {network.segmentation_encoder, network.classification_encoder}
    sources = {encoder: find_weights(encoder, network.weights, beside) for encoder in sorted(encoders)}
    for encoder, source in sources.items():
        if source != "hub":
            read_backbone(encoder, source)  # a file that does not fit is reported before any process starts
    return sources


def _train(
    process: Process, run: Path, stage: str, config: Config, manifest: Manifest, weights_source: dict[str, str]
) -> None:
    folder = run / stage
    settings = config.stage(stage)
    torch.manual_seed(config.seed)
    items = {split: _items(manifest, split, stage) for split in ("training", "validation")}
    if stage != "coarse":
        runs.require_stage(run, "coarse")
        write_coarse_masks(run, manifest, [*items["training"], *items["validation"]], config, process)
    if process.is_first:
        (folder / runs.CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        configuration.save(config, folder / runs.CONFIG)
    process.barrier()

    task, report = _TASKS[stage](process, run, config, items, manifest, weights_source)
    if process.is_first:
        counts = ", ".join(f"{len(v)} {k} images" for k, v in items.items())
        print(f"{stage:<9}{counts}; {report}", file=sys.stderr)
    progress = fit(task, stage, settings, config.precision, folder, process)
    if process.is_first:
        runs.save_weights(task.network, folder / runs.WEIGHTS)
        runs.write_json(folder / runs.METRICS, _metrics(stage, task, progress, report, config, manifest, process))
    process.barrier()


def _items(manifest: Manifest, split: str, stage: str) -> tuple[Item, ...]:
    return manifest.select(split, masks=stage != "mask", labels=stage == "mask")


def _loader(
    process: Process, run: Path, config: Config, items: Sequence[Item], manifest: Manifest, stage: str, training: bool
) -> Loader:
    """Batches of a stage's training or validation images with the masks that the stage needs."""
    settings = config.stage(stage)
    planes = {"coarse": ["truth"], "mask": ["coarse_mask"], "enhanced": ["truth", "coarse_mask"]}[stage]
    samples = []
    for item in items:
        files = {"coarse_mask": coarse_mask_file(run, item), "truth": manifest.root / (item.mask or "")}
        samples.append(Sample(manifest.root / item.image, tuple(files[p] for p in planes), item.class_index))
    order: TrainingOrder | EvaluationOrder
    if training:
        labels = [i.class_index for i in items] if settings.balanced else None
        order = TrainingOrder(len(items), settings.batch_size, config.seed, process.rank, process.world, labels)
    else:
        share = max(1, settings.batch_size // process.world)
        order = EvaluationOrder(len(items), share, process.rank, process.world)
    augmentation = config.augmentation if training else None
    threads = max(1, cores() // process.world)
    return Loader(samples, planes, order, config.preprocessing, augmentation, config.seed, process.device, threads)


_Maker = Callable[
    [Process, Path, Config, dict[str, tuple[Item, ...]], Manifest, dict[str, str]], tuple[Task, LoadReport]
]


def _coarse(
    process: Process,
    run: Path,
    config: Config,
    items: dict[str, tuple[Item, ...]],
    manifest: Manifest,
    weights_source: dict[str, str],
) -> tuple[Task, LoadReport]:
    network = CoarseSN(config.network)
    encoder = config.network.segmentation_encoder
    report = network.load_pretrained(read_backbone(encoder, weights_source[encoder]))
    loaders = [_loader(process, run, config, items[s], manifest, "coarse", s == "training") for s in items]
    return CoarseTask(network, *loaders, process, _loss(config)), report


def _mask(
    process: Process,
    run: Path,
    config: Config,
    items: dict[str, tuple[Item, ...]],
    manifest: Manifest,
    weights_source: dict[str, str],
) -> tuple[Task, LoadReport]:
    network = MaskCN(config.network)
    encoder = config.network.classification_encoder
    report = network.load_pretrained(read_backbone(encoder, weights_source[encoder]))
    loaders = [_loader(process, run, config, items[s], manifest, "mask", s == "training") for s in items]
    return MaskTask(network, *loaders, process), report


def _enhanced(
    process: Process,
    run: Path,
    config: Config,
    items: dict[str, tuple[Item, ...]],
    manifest: Manifest,
    weights_source: dict[str, str],
) -> tuple[Task, LoadReport]:
    coarse_sn, mask_cn = runs.load_stage(run, "coarse"), runs.load_stage(run, "mask")
    assert isinstance(coarse_sn, CoarseSN)
    assert isinstance(mask_cn, MaskCN)
    network = EnhancedSN(config.network)
    report = network.start_from(coarse_sn)
    loaders = [_loader(process, run, config, items[s], manifest, "enhanced", s == "training") for s in items]
    return EnhancedTask(network, *loaders, process, _loss(config), mask_cn), report


_TASKS: dict[str, _Maker] = {"coarse": _coarse, "mask": _mask, "enhanced": _enhanced}


def _loss(config: Config) -> HybridLoss:
    return HybridLoss(config.loss.lambda_rank, config.loss.top_k, config.loss.margin)


def _metrics(
    stage: str,
    task: Task,
    progress: Progress,
    report: LoadReport,
    config: Config,
    manifest: Manifest,
    process: Process,
) -> dict[str, object]:
    """What a stage says of itself: scores, and what made it."""
    return {
        "stage": stage,
        "score": task.score,
        "best": progress.best,
        "best_epoch": progress.best_epoch,
        "epochs": progress.epoch,
        "seconds": round(progress.seconds, 1),
        "initial_tensors": vars(report),
        "data": {"name": manifest.root.resolve().name, "fingerprint": manifest.fingerprint},
        "code_version": runs.code_version(),
        "environment": {
            "python": platform.python_version(),
            "device": process.device.type,
            "processes": process.world,
            "bfloat16": use_bfloat16(config.precision, process.device),
            **{name: version(name) for name in PACKAGES},
        },
    }
