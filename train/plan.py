"""A run before it starts: what is trained on what, and all that would otherwise go wrong half-way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.config import STAGES, Config
from mbdcnn.data.derive import out_of_fold, supervised
from mbdcnn.data.manifest import Item, Manifest
from mbdcnn.data.prepared import Copies
from mbdcnn.errors import UserError
from mbdcnn.lineage import is_read, must_fit, needs
from mbdcnn.networks import find_weights, read_backbone
from train.classes import with_classes
from train.guidance import guiding_folder


@dataclass(frozen=True)
class Plan:
    """A run that has been checked: what is trained, on what, where it goes.

    Attributes:
        run: run folder.
        config: settings.
        manifest: data set, without the labels that the settings leave out.
        weights: encoder -> what `find_weights` returned.
        round: of the bootstrapping, from 1.
        copies: to train on; None for the originals, which also serve for what has no copy.
    """

    run: Path
    config: Config
    manifest: Manifest
    weights: dict[str, str]
    round: int = 1
    copies: Copies | None = None

    @property
    def round_folder(self) -> Path:
        """The run folder of this round."""
        return runs.round_folder(self.run, self.round)

    @property
    def guiding_folder(self) -> Path:
        """Where this round's guiding masks lie."""
        return guiding_folder(self.run, self.config, self.round)

    @property
    def proxy_folder(self) -> Path:
        """Where the proxy labels of images without a mask lie."""
        return self.round_folder / "mask" / "proxies"

    def steps(self, stages: Sequence[str]) -> Iterator[tuple[Plan, str]]:
        """The stages to train, in order; further bootstrapping rounds follow where enhanced-SN is among them."""
        for stage in stages:
            yield self, stage
        if STAGES[-1] in stages:
            for number in range(2, self.config.bootstrap.rounds + 1):
                for stage in STAGES[1:]:
                    yield replace(self, round=number), stage

    def pending(self, stages: Sequence[str]) -> bool:
        """Whether any of the steps is not finished."""
        return not all(runs.is_finished(plan.round_folder, stage) for plan, stage in self.steps(stages))

    def image_file(self, item: Item) -> Path:
        """An image to train on."""
        copy = self.copies and self.copies.images.get(item.sha256)
        return copy or self.manifest.root / item.image

    def mask_file(self, item: Item) -> Path | None:
        """The lesion mask to train on, None without."""
        copy = self.copies and self.copies.masks.get(item.mask_sha256 or "")
        return copy or (self.manifest.root / item.mask if item.mask else None)

    def planes(self, stage: str) -> tuple[str, ...]:
        """The masks that a stage's batches carry and that lie on disk."""
        truth = ("truth",) if stage != "mask" else ()
        return (*truth, "guide") if self.reads_guide(stage) else truth

    def class_index(self, item: Item) -> int:
        """Which of mask-CN's outputs an image's label is, -1 without label."""
        return -1 if item.label is None else self.config.network.classes.index(item.label)

    def is_guided(self, stage: str) -> bool:
        """Whether a stage looks at coarse masks."""
        return self.config.network.mask_channel and (stage == "mask" or "mask" in needs(self.config, stage))

    def reads_guide(self, stage: str) -> bool:
        """Whether a stage finds its coarse masks on disk; where it is guided and does not, it computes them."""
        return self.is_guided(stage) and self.config.bootstrap.coarse_masks == "stored"

    def items(self, split: str, stage: str) -> tuple[Item, ...]:
        """The images that a stage can use: those with a mask, or for mask-CN those with a label."""
        items = self.manifest.select(split, masks=stage != "mask", labels=stage == "mask")
        return items + self.proxied() if stage == "enhanced" and split == "training" else items

    def proxied(self) -> tuple[Item, ...]:
        """The training images that get a proxy label for their missing mask."""
        labelled = self.manifest.select("training", labels=True) if self.config.bootstrap.proxy_labels else ()
        return tuple(item for item in labelled if item.mask is None)

    def pretrained(self, encoder: str) -> dict[str, torch.Tensor] | None:
        """The encoder's ImageNet weights, None to start from random ones."""
        return read_backbone(encoder, self.weights[encoder])


def plan_run(run: Path, stages: Sequence[str], config: Config, manifest: Manifest, world: int = 1) -> Plan:
    """Check, before any process starts, all that would go wrong later.

    Weights `auto` are also looked for in a folder `weights` in or beside the data folder. The plan's settings name the
    classes that mask-CN tells apart: see `train.classes`.

    Raises:
        UserError: a stage of the run folder was made with other settings or data, the data set lacks what a stage
            needs, a batch cannot be shared by `world` processes, the engine lacks a GPU, or a weights file is missing
            or does not fit.
    """
    if config.engine.compile and not torch.cuda.is_available():
        raise UserError("engine.compile is for GPUs, and there is none; leave it out.")
    config = with_classes(run, config, manifest, stages)
    network, wanted = config.network, config.supervision
    encoders = sorted({network.segmentation_encoder, network.classification_encoder})
    beside = [manifest.root / "weights", manifest.root.resolve().parent / "weights"]
    weights = {e: find_weights(e, network.weights, beside) for e in encoders}
    used = supervised(manifest, wanted.pixel_labels, wanted.image_labels, config.seed)
    plan = Plan(run, config, used, weights)
    unfinished = [stage for stage in stages if not runs.is_finished(run, stage)]
    for stage in STAGES:
        _check_settings(run, stage, config, trained=stage in stages)
    for stage in unfinished:
        _check_data(plan, stage, world)
    if unfinished and (run / runs.MANIFEST).is_file():
        begun_with = Manifest.load(run / runs.MANIFEST)
        if begun_with.fingerprint != used.fingerprint:
            raise UserError(
                f"{manifest.root} is not the data that {run} began with (see {run / runs.MANIFEST}); "
                "use another --run, or the same data to go on."
            )
    if config.bootstrap.start_run:
        for stage in unfinished:
            runs.require_stage(Path(config.bootstrap.start_run), stage)
    else:
        for encoder in _pretrained_encoders(config, unfinished):
            read_backbone(encoder, plan.weights[encoder])  # now, lest a missing file stop the second stage
    for position, stage in enumerate(stages if unfinished else ()):
        for needed in needs(config, stage):
            if needed not in stages[:position]:
                runs.require_stage(run, needed)
    return plan


def _pretrained_encoders(config: Config, stages: Sequence[str]) -> list[str]:
    """The encoders whose pretrained weights some stages start from."""
    segmentation = "coarse" in stages or ("enhanced" in stages and not config.bootstrap.coarse_start)
    named = {config.network.segmentation_encoder} if segmentation else set()
    return sorted(named | ({config.network.classification_encoder} if "mask" in stages else set()))


def _check_settings(run: Path, stage: str, config: Config, trained: bool) -> None:
    """A stage that goes on must do so with all its settings; one that others build on shares networks and input."""
    started = run / stage / runs.CONFIG
    if not started.is_file():
        return
    counts = is_read if trained else must_fit
    begun = configuration.load(started)
    changed = [name for name in configuration.differences(begun, config) if counts(name, stage)]
    if "network.classes" in changed:
        raise UserError(
            f"{run} has a stage {stage} that tells apart {', '.join(begun.network.classes)}; now the classes are "
            f"{', '.join(config.network.classes)}: use another --run, or the same data to go on."
        )
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
    labels = {item.label for item in plan.items("training", stage)}
    if stage == "mask" and len(labels) < 2:
        raise UserError(
            f"{plan.manifest.root} has training images of the class {labels.pop()} alone; stage mask needs some of "
            "another class too."
        )
    batch = plan.config.stage(stage).batch_size
    if counts["training"] < batch:
        raise UserError(
            f"{plan.manifest.root} has {counts['training']} training images with a {needed}, fewer than "
            f"{stage}.batch_size = {batch}; lower it."
        )
    if stage == "coarse" and plan.config.bootstrap.coarse_folds > 1:
        for _, without in out_of_fold(plan.manifest, plan.config.bootstrap.coarse_folds, plan.config.seed):
            if len(without.select("training", masks=True)) < batch:
                raise UserError(
                    f"bootstrap.coarse_folds = {plan.config.bootstrap.coarse_folds} leaves fewer training images than "
                    f"coarse.batch_size = {batch}; lower the batch size or raise the folds."
                )
    _check_shares(stage, batch, world, plan.config.engine.accumulation)


def _check_shares(stage: str, batch: int, world: int, accumulation: int) -> None:
    """Each micro-batch of each process needs an image, and batch norm two over all processes.

    The smallest batch of an epoch is half as large as the settings say.
    """
    shares = world * accumulation
    least = 2 * shares if world > 1 else 4 * shares if accumulation > 1 else 2
    if batch % shares or batch < least:
        micro = f" with engine.accumulation = {accumulation}" if accumulation > 1 else ""
        raise UserError(
            f"{stage}.batch_size = {batch} cannot be shared by {world} process{'es' * (world > 1)}{micro}; "
            f"make it a multiple of {shares}, at least {least}."
        )
