"""The three stages of a run, in order; each reads what the one before it published."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import nvidia.dali
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
from train.processes import Process, threads_each
from train.sampling import EvaluationOrder, TrainingOrder
from train.tasks import CoarseTask, EnhancedTask, MaskTask

PACKAGES = ("torch", "timm", "segmentation-models-pytorch", "numpy", "scikit-learn")
_SHARED = ("network.", "preprocessing.")
_PLANES = {"coarse": ("truth",), "mask": ("coarse_mask",), "enhanced": ("truth", "coarse_mask")}


@dataclass(frozen=True)
class Plan:
    """A run that has been checked: what is trained, on what, where it goes.

    Attributes:
        run: run folder.
        config: settings.
        manifest: data set.
        weights: encoder -> what `find_weights` returned.
    """

    run: Path
    config: Config
    manifest: Manifest
    weights: dict[str, str]

    def items(self, split: str, stage: str) -> tuple[Item, ...]:
        """The images that a stage can use: those with a mask, or for mask-CN those with a label."""
        return self.manifest.select(split, masks=stage != "mask", labels=stage == "mask")

    def pretrained(self, encoder: str) -> dict[str, torch.Tensor] | None:
        """The encoder's ImageNet weights, None to start from random ones."""
        return read_backbone(encoder, self.weights[encoder])


def plan_run(run: Path, stages: Sequence[str], config: Config, manifest: Manifest, world: int = 1) -> Plan:
    """Check, before any process starts, all that would go wrong later.

    Weights `auto` are also looked for in a folder `weights` in or beside the data folder.

    Raises:
        UserError: a stage of the run folder was made with other settings or data, the data set lacks what a stage
            needs, a batch cannot be shared by `world` processes, or a weights file is missing or does not fit.
    """
    network = config.network
    encoders = sorted({network.segmentation_encoder, network.classification_encoder})
    beside = [manifest.root / "weights", manifest.root.resolve().parent / "weights"]
    plan = Plan(run, config, manifest, {e: find_weights(e, network.weights, beside) for e in encoders})
    unfinished = [stage for stage in stages if not runs.is_finished(run, stage)]
    for stage in STAGES:
        _check_settings(run, stage, config, trained=stage in stages)
    for stage in unfinished:
        _check_data(plan, stage, world)
    if unfinished and (run / runs.MANIFEST).is_file():
        begun_with = Manifest.load(run / runs.MANIFEST)
        if begun_with.fingerprint != manifest.fingerprint:
            raise UserError(
                f"{manifest.root} is not the data that {run} began with (see {run / runs.MANIFEST}); "
                "use another --run, or the same data to go on."
            )
    if {"coarse", "mask"} & set(unfinished):
        for encoder, source in plan.weights.items():
            if source != "hub":
                read_backbone(encoder, source)
    before = STAGES.index(stages[0])
    for stage in STAGES[:before] if unfinished else ():
        runs.require_stage(run, stage)
    return plan


def train_stages(process: Process, plan: Plan, stages: Sequence[str]) -> None:
    """Train stages in the order given; one that is finished is left as it is.

    Raises:
        UserError: the loss is not finite, or a checkpoint is damaged.
    """
    for stage in stages:
        if not runs.is_finished(plan.run, stage):
            _train(process, plan, stage)
        elif process.is_first:
            print(f"{stage:<9}is finished in {plan.run / stage}", file=sys.stderr)


def _check_settings(run: Path, stage: str, config: Config, trained: bool) -> None:
    """A stage that goes on must do so with all its settings; one that others build on shares networks and input."""
    started = run / stage / runs.CONFIG
    if not started.is_file():
        return
    others = set(STAGES) - {stage}
    changed = [
        name
        for name in configuration.differences(configuration.load(started), config)
        if (name.split(".")[0] not in others if trained else name.startswith(_SHARED) and name != "network.weights")
    ]
    if changed:
        raise UserError(
            f"{run} has a stage {stage} with other settings ({', '.join(changed)}, see {started}); "
            "use another --run, or the same settings to go on."
        )


def _check_data(plan: Plan, stage: str, world: int) -> None:
    needed = "label" if stage == "mask" else "mask"
    counts = {split: len(plan.items(split, stage)) for split in ("training", "validation")}
    for split, count in counts.items():
        if count == 0:
            raise UserError(f"{plan.manifest.root} has no {split} image with a {needed}; stage {stage} needs some.")
    batch = plan.config.stage(stage).batch_size
    if counts["training"] < batch:
        raise UserError(
            f"{plan.manifest.root} has {counts['training']} training images with a {needed}, fewer than "
            f"{stage}.batch_size = {batch}; lower it."
        )
    if batch % world:
        raise UserError(f"{stage}.batch_size = {batch} cannot be shared by {world} processes; make it a multiple.")


def _train(process: Process, plan: Plan, stage: str) -> None:
    folder, config = plan.run / stage, plan.config
    if stage != "coarse":
        guided = [*plan.items("training", stage), *plan.items("validation", stage)]
        write_coarse_masks(plan.run, plan.manifest, guided, config, process)
    if process.is_first:
        (folder / runs.CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        configuration.save(config, folder / runs.CONFIG)
        plan.manifest.save(plan.run / runs.MANIFEST)
    process.barrier()

    # after the coarse masks: making them, or finding them made, must not shift the start
    torch.manual_seed(config.seed)
    task, report = {"coarse": _coarse, "mask": _mask, "enhanced": _enhanced}[stage](process, plan)
    if process.is_first:
        counts = ", ".join(f"{len(plan.items(s, stage))} {s} images" for s in ("training", "validation"))
        print(f"{stage:<9}{counts}; {report}", file=sys.stderr)
    progress = fit(task, stage, config, folder, process)
    if process.is_first:
        runs.save_weights(task.network, folder / runs.WEIGHTS)
        runs.write_json(folder / runs.METRICS, _metrics(stage, task, progress, report, plan, process))
    process.barrier()


def _coarse(process: Process, plan: Plan) -> tuple[Task, LoadReport]:
    network = CoarseSN(plan.config.network)
    report = network.load_pretrained(plan.pretrained(plan.config.network.segmentation_encoder))
    return CoarseTask(network, *_loaders(process, plan, "coarse"), process, _loss(plan.config)), report


def _mask(process: Process, plan: Plan) -> tuple[Task, LoadReport]:
    network = MaskCN(plan.config.network)
    report = network.load_pretrained(plan.pretrained(plan.config.network.classification_encoder))
    return MaskTask(network, *_loaders(process, plan, "mask"), process), report


def _enhanced(process: Process, plan: Plan) -> tuple[Task, LoadReport]:
    coarse_sn, mask_cn = runs.load_stage(plan.run, "coarse"), runs.load_stage(plan.run, "mask")
    assert isinstance(coarse_sn, CoarseSN)
    assert isinstance(mask_cn, MaskCN)
    network = EnhancedSN(plan.config.network)
    report = network.start_from(coarse_sn)
    return EnhancedTask(network, *_loaders(process, plan, "enhanced"), process, _loss(plan.config), mask_cn), report


def _loss(config: Config) -> HybridLoss:
    return HybridLoss(config.loss.lambda_rank, config.loss.top_k, config.loss.margin)


def _loaders(process: Process, plan: Plan, stage: str) -> tuple[Loader, Loader]:
    """Training and validation batches with the masks that the stage needs."""
    config, settings = plan.config, plan.config.stage(stage)
    training, validation = plan.items("training", stage), plan.items("validation", stage)
    place = (process.rank, process.world)
    labels = [i.class_index for i in training] if settings.balanced else None
    share = settings.batch_size // process.world
    orders = (
        (training, TrainingOrder(len(training), settings.batch_size, config.seed, *place, labels), config.augmentation),
        (validation, EvaluationOrder(len(validation), share, *place), None),
    )
    first, second = (
        Loader(
            [_sample(plan, item, _PLANES[stage]) for item in items],
            _PLANES[stage],
            order,
            config.preprocessing,
            augmentation,
            config.seed,
            process.device,
            threads_each(process.world),
        )
        for items, order, augmentation in orders
    )
    return first, second


def _sample(plan: Plan, item: Item, planes: Sequence[str]) -> Sample:
    files = {"truth": plan.manifest.root / (item.mask or ""), "coarse_mask": coarse_mask_file(plan.run, item)}
    return Sample(plan.manifest.root / item.image, tuple(files[p] for p in planes), item.class_index)


def _metrics(
    stage: str, task: Task, progress: Progress, report: LoadReport, plan: Plan, process: Process
) -> dict[str, object]:
    """What a stage says of itself: scores, and what made it."""
    manifest = plan.manifest
    return {
        "stage": stage,
        "score": task.score,
        "best": progress.best,
        "best_epoch": progress.best_epoch,
        "epochs": progress.epoch,
        "seconds": round(progress.seconds, 1),
        "initial_tensors": vars(report),
        "pretrained": {e: Path(source).name for e, source in plan.weights.items()},
        "data": {"name": manifest.root.resolve().name, "fingerprint": manifest.fingerprint},
        "code_version": runs.code_version(),
        "environment": {
            "python": platform.python_version(),
            "device": process.device.type,
            "processes": process.world,
            "bfloat16": use_bfloat16(plan.config.precision, process.device),
            "nvidia-dali": nvidia.dali.__version__,
            **{name: version(name) for name in PACKAGES},
        },
    }
