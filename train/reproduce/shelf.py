"""Trained stages that experiments share: what has the same settings and data is trained once."""

from __future__ import annotations

from pathlib import Path

from mbdcnn.config import Config
from mbdcnn.lineage import lineage, stage_key


def run_folder(out: Path, config: Config, stage: str, fingerprint: str, pixels: str = "") -> Path:
    """Make the run folder of a configuration; its stages are links to the shelf where all runs keep theirs.

    Args:
        out: the experiments' folder; the shelf is `out/stages`, run folders are in `out/runs`.
        config: of the run.
        stage: the last one of the run.
        fingerprint: of the whole data set.
        pixels: as in `stage_key`.

    Returns:
        A folder that `train_stages` fills or goes on with.
    """
    run = out / "runs" / f"{stage}-{stage_key(config, stage, fingerprint, pixels)}"
    run.mkdir(parents=True, exist_ok=True)
    for name in lineage(config, stage):
        place = f"{name}-{stage_key(config, name, fingerprint, pixels)}"
        (out / "stages" / place).mkdir(parents=True, exist_ok=True)
        link = run / name
        if not link.is_symlink():
            link.symlink_to(Path("..", "..", "stages", place), target_is_directory=True)
    return run
