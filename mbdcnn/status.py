"""How far a run is, read from the files of its folder, which may be written to at the same time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from mbdcnn import config as configuration
from mbdcnn import layout
from mbdcnn.config import STAGES, Config
from mbdcnn.errors import UserError

NOT_BEGUN, IN_PROGRESS, STOPPED, FINISHED = "not begun", "in progress", "stopped", "finished"
_SCORES = ("JA", "mean_AUC", "AC")  # what selects an epoch: the first that a validation has


@dataclass(frozen=True)
class StageStatus:
    """How far a stage is.

    Attributes:
        stage: one of `STAGES`.
        round: of the bootstrapping, from 1.
        fold: whose images coarse-SN is kept from, from 1; 0 for a stage of the run itself.
        state: `NOT_BEGUN`, `IN_PROGRESS`, `STOPPED` (ended before it was over; the same command goes on) or `FINISHED`.
        epoch: whole epochs done.
        epochs: at most.
        step: of the optimizer, done over all epochs.
        steps_per_epoch: None while no epoch is whole and the trainer has not said.
        score: name of the measure that selects the best epoch, None before the first validation.
        best: its best value.
        best_epoch: counted from 1.
        seconds: spent, over all calls.
        seconds_left: at most, for early stopping may come first; None where nothing like it has been trained.
        images_per_second: in training, without validation; None where the trainer has not said.
        silent_seconds: since the trainer gave a sign of life; None where it gives none.
    """

    stage: str
    round: int
    fold: int
    state: str
    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int | None
    score: str | None
    best: float | None
    best_epoch: int | None
    seconds: float
    seconds_left: float | None
    images_per_second: float | None
    silent_seconds: float | None

    @property
    def name(self) -> str:
        """As people read it."""
        further = f", round {self.round}" if self.round > 1 else f", fold {self.fold}" if self.fold else ""
        return self.stage + further


@dataclass(frozen=True)
class RunStatus:
    """How far a run is.

    Attributes:
        run: its folder.
        preset: that its settings started from.
        data: `{"name", "fingerprint", "leakage"}`: leakage is the number of pairs of images that two splits share.
            None without a readable fingerprint.
        stages: in the order in which they are trained.
        seconds: spent.
        seconds_left: as far as known; None where nothing is known of a stage that is not finished.
        next: what comes next, with the command.
    """

    run: str
    preset: str
    data: dict[str, Any] | None
    stages: tuple[StageStatus, ...]
    seconds: float
    seconds_left: float | None
    next: str

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def run_status(run: Path) -> RunStatus:
    """Look at a run folder.

    Raises:
        UserError: there is none, or no stage has begun in it.
    """
    if not run.is_dir():
        raise UserError(f"There is no run folder {run}; train one with `mbdcnn train all --run {run} --data DIR`.")
    config = next((c for stage in reversed(STAGES) if (c := _config(run / stage)) is not None), None)
    if config is None:
        raise UserError(f"{run} has no stage that has begun; name a folder that `mbdcnn train` was given as --run.")
    stages: list[StageStatus] = []
    for folder, stage, round_number, fold in _steps(run, config):
        stages.append(_stage_status(folder, stage, round_number, fold, config, stages))
    left = [s.seconds_left for s in stages]
    known = [seconds for seconds in left if seconds is not None]
    return RunStatus(
        run=str(run),
        preset=config.preset,
        data=_data(run),
        stages=tuple(stages),
        seconds=round(sum(s.seconds for s in stages), 1),
        seconds_left=round(sum(known), 1) if len(known) == len(left) else None,
        next=_next(run, stages),
    )


def _steps(run: Path, config: Config) -> Iterator[tuple[Path, str, int, int]]:
    """Each stage's folder, name, round and fold, in the order of training."""
    yield run / "coarse", "coarse", 1, 0
    folds = config.bootstrap.coarse_folds
    for fold in range(1, folds + 1 if folds > 1 else 1):
        yield layout.fold_folder(layout.coarse_masks_folder(run, folds), fold) / "coarse", "coarse", 1, fold
    for number in range(1, config.bootstrap.rounds + 1):
        for stage in STAGES[1:]:
            yield layout.round_folder(run, number) / stage, stage, number, 0


def _stage_status(
    folder: Path, stage: str, round_number: int, fold: int, run_config: Config, before: Sequence[StageStatus]
) -> StageStatus:
    begun = _config(folder)
    epochs = (begun or run_config).stage(stage).epochs
    metrics = _read(folder / layout.METRICS) if layout.is_finished(folder.parent, stage) else {}
    beat = _read(folder / layout.PROGRESS)
    log = list(_rows(folder / layout.LOG))
    steps, validations = [row for row in log if "step" in row], [row for row in log if "step" not in row]
    step = max([row["step"] for row in steps] + [beat.get("step", 0)])
    per_epoch = beat.get("steps_per_epoch") or sum(row["epoch"] == 1 for row in steps if validations) or None
    score = next((name for name in _SCORES if validations and name in validations[0]), None)
    best = max(validations, key=lambda row: row.get(score, 0.0)) if score else {}
    spent = max([row.get("seconds", 0.0) for row in [*validations, beat]])
    state = FINISHED if metrics else NOT_BEGUN if begun is None else STOPPED if beat.get("stopped") else IN_PROGRESS
    return StageStatus(
        stage=stage,
        round=round_number,
        fold=fold,
        state=state,
        epoch=len(validations),
        epochs=epochs,
        step=step,
        steps_per_epoch=per_epoch,
        score=score,
        best=best[score] if score else None,
        best_epoch=best.get("epoch"),
        seconds=metrics.get("seconds", spent),
        seconds_left=_time_left(stage, state, epochs, step / per_epoch if per_epoch else 0.0, spent, before),
        images_per_second=beat.get("images_per_second") if state == IN_PROGRESS else None,
        silent_seconds=max(0.0, round(time.time() - beat["time"], 1)) if beat and state == IN_PROGRESS else None,
    )


def _time_left(
    stage: str, state: str, epochs: int, done: float, spent: float, before: Sequence[StageStatus]
) -> float | None:
    """Seconds for a stage's other epochs, from those done; else from the last stage that trained a network like it."""
    if state == FINISHED:
        return 0.0
    if done > 0:
        return round(spent / done * max(0.0, epochs - done), 1)
    for other in reversed(before):
        if (other.stage == "mask") == (stage == "mask") and other.epoch:
            return round(other.seconds / other.epoch * epochs, 1)
    return None


def _data(run: Path) -> dict[str, Any] | None:
    document = _read(run / layout.FINGERPRINT)
    if not {"name", "fingerprint", "leakage"} <= document.keys():
        return None
    return {"name": document["name"], "fingerprint": document["fingerprint"], "leakage": len(document["leakage"])}


def _next(run: Path, stages: Sequence[StageStatus]) -> str:
    data = _read(run / layout.MANIFEST).get("root", "DIR")
    ahead = [status for status in stages if status.state != FINISHED]
    if not ahead:
        return f"every stage is finished; score them: mbdcnn evaluate --run {quote(str(run))} --data {quote(data)}"
    first, *others = ahead
    if first.state == IN_PROGRESS:
        then = f"then {others[0].name}" if others else "the last stage"
        return f"{first.name} is being trained, {then}"
    command = f"mbdcnn train all --run {quote(str(run))} --data {quote(data)}"
    return f"{first.name}{' goes on' if first.state == STOPPED else ''}: {command}"


def _config(folder: Path) -> Config | None:
    try:
        return configuration.load(folder / layout.CONFIG) if (folder / layout.CONFIG).is_file() else None
    except UserError:  # just being written
        return None


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or where it is just being written."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _rows(log: Path) -> Iterator[dict[str, Any]]:
    """A log's lines, but for one that is just being written."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "epoch" in row:
            yield row
