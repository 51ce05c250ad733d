"""A stage's checkpoints: folders that appear whole or not at all, of which the latest few are kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import nn

from mbdcnn import runs
from mbdcnn.errors import UserError
from mbdcnn.files import naming, replacing
from train.ema import WeightsMean
from train.processes import Process
from train.progress import Progress
from train.strategy import Strategy
from train.tensors import damaged, read_tensors, write_tensors

STATE = "state.json"
_MEAN = "mean.safetensors"
_UNFINISHED = ".part"


@dataclass
class State:
    """What a checkpoint holds besides tensors.

    Attributes:
        total_steps: of the optimizer since the stage began; names the checkpoint's folder.
        progress: how far the stage has come.
        history: losses of the steps done in the unfinished epoch, averaged over the processes.
        strategy: that wrote the checkpoint.
        processes: that trained together.
    """

    total_steps: int
    progress: Progress
    history: list[dict[str, float]] = field(default_factory=list)
    strategy: str = "ddp"
    processes: int = 1


class Checkpoints:
    """The checkpoints of one stage, `step-000123` and so on, and beside them the weights of the best epoch so far.

    Random numbers need no place in them: every draw is a function of seed, epoch, step and process.

    Args:
        folder: of the checkpoints.
        strategy: writes weights and optimizer.
        mean: of the weights, where one is kept.
        process: this one.
        keep: how many.
    """

    def __init__(self, folder: Path, strategy: Strategy, mean: WeightsMean | None, process: Process, keep: int) -> None:
        self._folder = folder
        self._strategy = strategy
        self._mean = mean
        self._process = process
        self._keep = keep

    def resume(self, strategy: str) -> State | None:
        """Take up the latest checkpoint; None where there is none.

        Raises:
            UserError: it is damaged, or another strategy wrote it.
        """
        if self._process.is_first:
            for left in self._folder.glob(f"*{_UNFINISHED}"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._process.barrier()
        whole = checkpoints(self._folder)
        if not whole:
            return None
        state = read_state(whole[-1])
        if state.strategy != strategy:
            raise UserError(
                f"{whole[-1]} was written with engine.strategy={state.strategy}; go on with that, or delete the folder "
                f"{self._folder} to train this stage from its start."
            )
        self._strategy.load(whole[-1])
        if self._mean is not None:
            try:
                self._mean.load_state_dict(read_tensors(whole[-1] / _MEAN))
            except RuntimeError:
                raise damaged(whole[-1] / _MEAN) from None
        return state

    def save(self, state: State) -> None:
        """Write a checkpoint; all processes call it, and none goes on before it is whole."""
        target = self._folder / f"step-{state.total_steps:06}"
        part = target.with_name(target.name + _UNFINISHED)
        self._on_first(lambda: _empty(part))
        try:
            self._strategy.save(part)
            if self._process.is_first:
                self._write_rest(part, state)
            self._process.barrier()
        except Exception:  # also of another process, to which the connection is then lost
            if self._process.is_first:
                shutil.rmtree(part, ignore_errors=True)  # what a full disk still took is room for others
            raise
        self._on_first(lambda: self._publish(part, target))

    def save_best(self, network: nn.Module, epoch: int) -> None:
        """Keep the weights of an epoch that is the best so far."""
        if self._process.is_first:
            runs.save_weights(network, best_file(self._folder, epoch))

    def _on_first(self, action: Callable[[], None]) -> None:
        if self._process.is_first:
            action()
        self._process.barrier()

    def _write_rest(self, part: Path, state: State) -> None:
        if self._mean is not None:
            write_tensors(self._mean.state_dict(), part / _MEAN)
        with naming(part / STATE):
            (part / STATE).write_text(json.dumps(asdict(state)))

    def _publish(self, part: Path, target: Path) -> None:
        for path in [*part.rglob("*"), part]:
            _sync(path)
        if target.is_dir():  # the same step, before its epoch's validation
            _discard(target)
        part.rename(target)
        _sync(self._folder)
        for old in checkpoints(self._folder)[: -self._keep]:
            _discard(old)
        needed = {read_state(kept).progress.best_epoch for kept in checkpoints(self._folder)}
        for file in self._folder.glob("best-*.safetensors"):
            if int(file.stem.removeprefix("best-")) not in needed:
                file.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, the latest last."""
    names = [p for p in folder.glob("step-*") if p.name.removeprefix("step-").isdigit()]
    return sorted(names, key=lambda p: int(p.name.removeprefix("step-")))


def best_file(folder: Path, epoch: int) -> Path:
    """Where the checkpoints' folder keeps the weights of the epoch that was the best so far."""
    return folder / f"best-{epoch:04}.safetensors"


def read_state(checkpoint: Path) -> State:
    """What a checkpoint says of itself.

    Raises:
        UserError: it is damaged.
    """
    try:
        document = json.loads((checkpoint / STATE).read_text())
        return State(**{**document, "progress": Progress(**document["progress"])})
    except (OSError, ValueError, KeyError, TypeError):
        raise damaged(checkpoint / STATE) from None


def publish_best(folder: Path, epoch: int, weights: Path) -> None:
    """Make the best epoch's weights the stage's result.

    Raises:
        UserError: they are gone.
    """
    best = best_file(folder, epoch)
    if not best.is_file():
        raise UserError(f"{best} is missing; delete the folder {folder} to train this stage from its start.")
    with replacing(weights) as part:
        shutil.copyfile(best, part)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _discard(checkpoint: Path) -> None:
    """Delete a checkpoint; under another name first, lest a kill leave half of one."""
    doomed = checkpoint.with_name(f"{checkpoint.name}.old{_UNFINISHED}")
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)


def _sync(path: Path) -> None:
    """Have a file or folder on the disk, and not only in the system's memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
