"""Which classes a run tells apart: its data set's, unless it was begun with, or starts from, others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mbdcnn import config as configuration
from mbdcnn import runs
from mbdcnn.classes import CLASSES
from mbdcnn.config import Config
from mbdcnn.data.manifest import Manifest
from mbdcnn.errors import UserError


def with_classes(run: Path, config: Config, manifest: Manifest, stages: Sequence[str]) -> Config:
    """Settings whose `network.classes` are those that mask-CN will tell apart.

    They are the data set's. Other names than the default that the settings give, and those of the run to start from,
    hold where they include the data set's: so an order can be chosen, and a network of three classes trained on with
    images of two.

    Raises:
        UserError: the settings', or those of the run to start from, lack a class of the data set.
    """
    given, found = config.network.classes, manifest.classes
    names = found if given == CLASSES else given
    start = config.bootstrap.start_run
    trained = Path(start) / "mask" / runs.CONFIG
    if start and trained.is_file():
        begun = configuration.load(trained).network.classes
        if set(found) <= set(begun) and given in (CLASSES, begun):
            names = begun
        elif "mask" in stages:
            raise UserError(
                f"{start} tells apart {', '.join(begun)}, but {manifest.root} has {', '.join(names)}; start from a "
                "run with the same classes, or leave out bootstrap.start_run."
            )
    if not set(found) <= set(names):
        raise UserError(
            f"The classes of {run} are {', '.join(names)}, but {manifest.root} has {', '.join(found)}; use another "
            "--run, or name them all in network.classes."
        )
    return replace(config, network=replace(config.network, classes=names))
