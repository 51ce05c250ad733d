"""What all trials of a search share, and where each of them trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mbdcnn.config import Config, override
from mbdcnn.lineage import stage_key
from tune._data import SearchData
from tune._space import Point, Space, configured

STAGE = "coarse"  # the network whose loss is searched, and the one whose settings are


@dataclass(frozen=True)
class Share:
    """What a trial gets of the cluster.

    Attributes:
        processes: that train together.
        cpus: of each process.
        gpus: of each process.
    """

    processes: int = 1
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class Work:
    """What all trials share.

    Attributes:
        out: results folder, absolute; all machines see it.
        config: settings that every point changes.
        data: what is trained on.
        share: of the cluster, for each trial.
        space: whose points are trained.
        evolving: whether settings change while a trial trains (population based training): its weights then go through
            Ray's checkpoints, and its run folder is its own.
    """

    out: Path
    config: Config
    data: SearchData
    share: Share
    space: Space
    evolving: bool = False

    def settings_of(self, point: Point, seed: int) -> Config:
        """The settings that a point stands for."""
        return configured(self.config, point, seed)

    def trained_with(self, point: Point, seed: int) -> Config:
        """A trial's settings; of its checkpoints, which serve nobody but itself, the last is enough."""
        return override(self.settings_of(point, seed), ["engine.keep_checkpoints=1"])

    def run_folder(self, point: Point, seed: int) -> Path:
        """The run folder of a training with constant settings: the same settings and data are trained once."""
        config = self.settings_of(point, seed)
        return self.out / "trials" / stage_key(config, STAGE, self.data.fingerprint, self.data.pixels)
