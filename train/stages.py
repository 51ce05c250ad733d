"""The stages of a run, in order; each reads what those before it published."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.config import Config
from mbdcnn.data.derive import out_of_fold
from mbdcnn.data.manifest import Item
from mbdcnn.files import locked
from mbdcnn.layout import fold_folder
from mbdcnn.losses import HybridLoss
from mbdcnn.networks import CoarseSN, EnhancedSN, LoadReport, MaskCN, place
from mbdcnn.networks.backbone import tensors_of
from train import stopping
from train._environment import environment
from train._same_folder import require_same_folder
from train.checkpoints import publish_best
from train.engine import AfterEpoch, Task, fit
from train.guidance import mask_file, write_masks
from train.pipeline import Loader, Sample, Segment
from train.pixels import record_pixels
from train.plan import Plan
from train.processes import Process
from train.progress import Progress
from train.proxies import proxy_masks
from train.sampling import EvaluationOrder, TrainingOrder
from train.tasks import CoarseTask, EnhancedTask, MaskTask

_LOCK_PATIENCE_S = 10.0


def train_stages(process: Process, plan: Plan, stages: Sequence[str], after_epoch: AfterEpoch | None = None) -> None:
    """Train stages in the order given, and the rounds that follow; what is finished is left as it is.

    Args:
        process: this one.
        plan: what is trained.
        stages: of the plan.
        after_epoch: called after each epoch of these stages, whose checkpoint is then on the disk.

    Raises:
        UserError: the loss is not finite, a checkpoint is damaged, another process trains in the run folder, or the
            processes do not share it.
        Stopped: SIGTERM or Ctrl-C.
    """
    # a process that was just killed may still hold the folder while the system takes its memory back
    with locked(plan.run, "--run", _LOCK_PATIENCE_S) if process.is_first else nullcontext():
        require_same_folder(plan.run, process)
        for step, stage in plan.steps(stages):
            (stop,) = process.any(stopping.requested())
            if stop:
                raise stopping.stopped(f"with stage {stage}")
            _train_unless_finished(process, step, stage, after_epoch)


def _train_unless_finished(process: Process, plan: Plan, stage: str, after_epoch: AfterEpoch | None = None) -> None:
    if not runs.is_finished(plan.round_folder, stage):
        _train(process, plan, stage, after_epoch)
    elif process.is_first:
        print(f"{stage:<9}is finished in {plan.round_folder / stage}", file=sys.stderr)
    if process.is_first:  # also after a kill that came between the result and this
        shutil.rmtree(plan.round_folder / stage / runs.CHECKPOINTS, ignore_errors=True)  # what is left costs only room


def _train(process: Process, plan: Plan, stage: str, after_epoch: AfterEpoch | None) -> None:
    folder, config = plan.round_folder / stage, plan.config
    if plan.reads_guide(stage):
        _write_guiding_masks(process, plan, stage)
    if stage == "enhanced" and plan.proxied():
        _write_proxies(process, plan)
    if process.is_first:
        (folder / runs.CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        configuration.save(config, folder / runs.CONFIG)
        record_pixels(plan)  # before the manifest, which says that the run has begun
        plan.manifest.save(plan.run / runs.MANIFEST)
    process.barrier()

    # after the masks: making them, or finding them made, must not shift the start
    torch.manual_seed(config.seed)
    task, report = {"coarse": _coarse, "mask": _mask, "enhanced": _enhanced}[stage](process, plan)
    if process.is_first:
        counts = ", ".join(f"{len(plan.items(s, stage))} {s} images" for s in ("training", "validation"))
        print(f"{stage:<9}{counts}; {report}", file=sys.stderr)
    progress = fit(task, stage, config, folder, process, after_epoch)
    if process.is_first:
        publish_best(folder / runs.CHECKPOINTS, progress.best_epoch, folder / runs.WEIGHTS)
        runs.write_json(folder / runs.METRICS, _metrics(stage, task, progress, report, plan, process))
    process.barrier()


def _write_guiding_masks(process: Process, plan: Plan, stage: str) -> None:
    """Segment the images that a guided stage trains on, with networks that it is fair to ask.

    With folds, each training image that coarse-SN could have learnt from is segmented by a network that did not.
    """
    items = [*plan.items("training", stage), *plan.items("validation", stage)]
    folder, folds = plan.guiding_folder, plan.config.bootstrap.coarse_folds
    if plan.round == 1 and folds > 1:
        for number, (held_out, manifest) in enumerate(out_of_fold(plan.manifest, folds, plan.config.seed), 1):
            fold = replace(plan, run=fold_folder(folder, number), manifest=manifest)
            _train_unless_finished(process, fold, "coarse")
            ids = {item.sha256 for item in held_out}
            chosen = [item for item in items if item.split == "training" and item.sha256 in ids]
            _write(process, plan, folder, chosen, partial(_segmenter, process, fold), ())
    _write(process, plan, folder, items, partial(_segmenter, process, plan), ())


def _write_proxies(process: Process, plan: Plan) -> None:
    load, planes = partial(_proxy_maker, process, plan), plan.planes("mask")
    _write(process, plan, plan.proxy_folder, plan.proxied(), load, planes, _computed(process, plan, "mask"))


def _write(
    process: Process,
    plan: Plan,
    folder: Path,
    items: Sequence[Item],
    load: Callable[[], Segment],
    planes: Sequence[str],
    computed: Mapping[str, Segment] | None = None,
) -> None:
    write_masks(folder, items, load, lambda item: _sample(plan, item, planes), planes, plan.config, process, computed)


def _computed(process: Process, plan: Plan, stage: str) -> dict[str, Segment]:
    """The masks that a stage's loaders compute, by name."""
    computes = plan.is_guided(stage) and not plan.reads_guide(stage)
    return {"guide": _segmenter(process, plan)} if computes else {}


def _segmenter(process: Process, plan: Plan) -> Segment:
    """What guides a round: coarse-SN in the first, then the whole chain of the rounds before."""
    if plan.round == 1:
        coarse_sn = place(runs.load_stage(plan.run, "coarse"), process.device)
        return lambda batch: coarse_sn(batch.images)
    chain = place(runs.load_finished(plan.run, plan.round - 1, calibrated=False)[0], process.device)
    return lambda batch: chain(batch.images).lesion_probability


def _proxy_maker(process: Process, plan: Plan) -> Segment:
    return partial(proxy_masks, place(_mask_cn(plan), process.device))


def _mask_cn(plan: Plan) -> MaskCN:
    network = runs.load_stage(plan.round_folder, "mask")
    assert isinstance(network, MaskCN)
    return network


def _coarse(process: Process, plan: Plan) -> tuple[Task, LoadReport]:
    network = CoarseSN(plan.config.network)
    report = _start(network, "coarse", plan)
    return CoarseTask(network, *_loaders(process, plan, "coarse"), process, _loss(plan.config)), report


def _mask(process: Process, plan: Plan) -> tuple[Task, LoadReport]:
    network = MaskCN(plan.config.network)
    report = _start(network, "mask", plan)
    smoothing = plan.config.mask.label_smoothing
    return MaskTask(network, *_loaders(process, plan, "mask"), process, smoothing), report


def _enhanced(process: Process, plan: Plan) -> tuple[Task, LoadReport]:
    network = EnhancedSN(plan.config.network)
    if plan.round == 1 and plan.config.bootstrap.coarse_start and not plan.config.bootstrap.start_run:
        coarse_sn = runs.load_stage(plan.run, "coarse")
        assert isinstance(coarse_sn, CoarseSN)
        report = network.start_from(coarse_sn)
    else:
        report = _start(network, "enhanced", plan)
    mask_cn = _mask_cn(plan) if plan.config.network.e_layer != "none" else None
    return EnhancedTask(network, *_loaders(process, plan, "enhanced"), process, _loss(plan.config), mask_cn), report


def _start(network: CoarseSN | MaskCN, stage: str, plan: Plan) -> LoadReport:
    """Give a network its first weights: the round before's, those of the run to start from, or the pretrained ones."""
    if plan.round > 1:
        before = runs.round_folder(plan.run, plan.round - 1)
    elif plan.config.bootstrap.start_run:
        before = Path(plan.config.bootstrap.start_run)
    else:
        encoders = plan.config.network.segmentation_encoder, plan.config.network.classification_encoder
        return network.load_pretrained(plan.pretrained(encoders[stage == "mask"]))
    runs.load_weights(network, before / stage / runs.WEIGHTS)
    return LoadReport(len(tensors_of(network)), 0, 0)


def _loss(config: Config) -> HybridLoss:
    return HybridLoss(config.loss.lambda_rank, config.loss.top_k, config.loss.margin)


def _loaders(process: Process, plan: Plan, stage: str) -> tuple[Loader, Loader]:
    """Training and validation batches with the masks that the stage needs."""
    config, settings = plan.config, plan.config.stage(stage)
    training, validation = plan.items("training", stage), plan.items("validation", stage)
    rank_of = (process.rank, process.world)
    labels = [plan.class_index(i) for i in training] if settings.balanced else None
    share = settings.batch_size // process.world
    computed = _computed(process, plan, stage)
    order = TrainingOrder(len(training), settings.batch_size, config.seed, *rank_of, labels)
    orders = (
        (training, order, config.augmentation),
        (validation, EvaluationOrder(len(validation), share, *rank_of), None),
    )
    first, second = (
        Loader(
            [_sample(plan, item, plan.planes(stage)) for item in items],
            plan.planes(stage),
            order,
            config.preprocessing,
            augmentation,
            config.seed,
            process.device,
            process.threads,
            computed,
        )
        for items, order, augmentation in orders
    )
    return first, second


def _sample(plan: Plan, item: Item, planes: Sequence[str]) -> Sample:
    truth = plan.mask_file(item) or mask_file(plan.proxy_folder, item)
    files = {"truth": truth, "guide": mask_file(plan.guiding_folder, item)}
    return Sample(plan.image_file(item), tuple(files[p] for p in planes), plan.class_index(item))


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
        "short_side": plan.copies and plan.copies.short_side,
        "code_version": runs.code_version(),
        "environment": environment(plan.config, process),
    }
