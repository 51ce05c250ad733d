"""Everything that is shown and logged of a stage while it trains.

`log.jsonl` is the truth: TensorBoard, MLflow, the line per epoch and the bar repeat what it says. Nothing here waits
for the device at a step. What is written besides the log is written on other threads, whose failure the training
survives.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from tqdm import tqdm

from mbdcnn import layout
from mbdcnn.config import Config
from mbdcnn.files import replacing
from train import _log, _mlflow
from train._background import Background
from train._bar import Bar
from train.processes import Process
from train.progress import Progress

if TYPE_CHECKING:
    from train._tensorboard import EventFile

# takes images, true masks, found masks and a title of each: what `Monitor.pictures` does
Show = Callable[[Tensor, Tensor | None, Tensor | None, Sequence[str]], None]

_HEARTBEAT = 2.0  # seconds between two writings of progress.json
_PATIENCE = 8.0  # seconds that an ending stage waits for its writers: a stop has 20 for everything
_EXAMPLES = 4


class Monitor:
    """Watches one stage. On every process but the first its methods do nothing."""

    def __init__(
        self,
        stage: str,
        folder: Path,
        config: Config,
        steps_per_epoch: int,
        process: Process,
        resumed: Progress,
    ) -> None:
        """Begin to watch; drops the log's lines of what was done after the checkpoint that the stage goes on from.

        Args:
            stage: its name.
            folder: of the stage.
            config: of the run.
            steps_per_epoch: steps of the optimizer.
            process: this one.
            resumed: what the checkpoint holds.

        Raises:
            UserError: MLflow is wanted and not installed.
        """
        tracked = _mlflow.is_wanted()  # on every process: the sentence of any reaches the user
        self._watches = process.is_first
        if not self._watches:
            return
        self._stage, self._folder, self._settings = stage, folder, config.stage(stage)
        self._steps_per_epoch = steps_per_epoch
        self._progress = replace(resumed)
        self._world = process.world
        self._step = resumed.epoch * steps_per_epoch + resumed.step
        self._began = time.monotonic()
        self._pace = _Pace()
        self._next_heartbeat = 0.0
        _log.forget_after(folder / layout.LOG, resumed.epoch)
        self._preprocessing = config.preprocessing
        self._bar = Bar(stage, self._settings, steps_per_epoch, self._step)
        whole = resumed.epoch * steps_per_epoch  # what the log still tells, and so what TensorBoard may
        self._heart = Background(layout.PROGRESS, lambda: nullcontext(folder / layout.PROGRESS))
        self._tensorboard = Background("TensorBoard's file", lambda: _events(folder / layout.TENSORBOARD, whole))
        self._mlflow = (
            Background("MLflow's run", lambda: nullcontext(_mlflow.Tracked(folder, config))) if tracked else None
        )
        self._beat(now=True)

    def epoch_begins(self, epoch: int, first_step: int) -> None:
        """Say that an epoch begins, or goes on.

        Args:
            epoch: counted from 0.
            first_step: the step of it that comes first, counted from 0; more than 0 after a checkpoint inside it.
        """
        if self._watches:
            self._step = epoch * self._steps_per_epoch + first_step
            self._pace = _Pace()
            self._bar.epoch_begins(epoch + 1)

    def step_done(self, losses: Mapping[str, Tensor], images: int) -> None:
        """Note a step of the optimizer; does not wait for the device.

        Args:
            losses: scalars, this process's.
            images: of the step, this process's; the others have as many.
        """
        if self._watches:
            self._step += 1
            self._pace.add(images * self._world)
            self._bar.step_done(losses, self._pace.images_per_second)
            self._beat()

    def epoch_ends(
        self,
        progress: Progress,
        means: Mapping[str, float],
        measures: Mapping[str, float],
        rows: Sequence[Mapping[str, float]],
    ) -> None:
        """Write an epoch to the log, and say it in a line.

        Args:
            progress: with this epoch.
            means: of the losses, over the epoch's steps.
            measures: of its validation.
            rows: each step's learning rate, losses and gradient norm, averaged over the processes; also of the steps
                before a checkpoint inside the epoch.

        Raises:
            UserError: the log cannot be written.
        """
        if not self._watches:
            return
        self._progress = replace(progress)  # the engine's own goes on to change
        numbers = {**means, **measures, "images_per_second": round(self._pace.images_per_second, 1)}
        row = {**numbers, "seconds": round(progress.seconds, 1)}
        steps = self._numbered(rows)
        head = {"stage": self._stage, "epoch": progress.epoch}
        _log.append(self._folder / layout.LOG, [*({**head, **step} for step in steps), {**head, **row}])
        at, epoch = self._step, progress.epoch
        self._tensorboard.submit(lambda file: file.scalars(steps, "step"))
        self._tensorboard.submit(lambda file: file.scalars([{"step": at, **numbers}], "epoch"))
        if self._mlflow:
            self._mlflow.submit(lambda run: run.epoch(epoch, numbers))
        self._began = time.monotonic()
        self._beat(now=True)
        self._bar.validated(measures)
        mark = " *" if progress.best_epoch == progress.epoch else ""
        shown = "  ".join(f"{k} {v:.4f}" for k, v in {**means, **measures}.items())
        line = f"{self._stage:<9}epoch {progress.epoch:>3}  {shown}  {progress.seconds:.0f} s{mark}"
        tqdm.write(line, file=sys.stderr)

    def pictures(
        self,
        images: Tensor,
        truth: Tensor | None,
        found: Tensor | None,
        titles: Sequence[str],
    ) -> None:
        """Show the first few examples of a validation batch, side by side, in TensorBoard.

        Args:
            images: `(B, 3, S, S)`, as the network sees them.
            truth: `(B, 1, S, S)` true masks, to outline; None without.
            found: `(B, 1, S, S)` probabilities or masks that the network found, to outline; None without.
            titles: a line above each image, such as its diagnosis; none at all for no lines.
        """
        if not self._watches:
            return
        from train._examples import draw_examples
        from train.outline import as_pictures

        pictures = as_pictures(images[:_EXAMPLES], self._preprocessing)
        true, made = (None if m is None else m[:_EXAMPLES, 0].float().cpu().numpy() for m in (truth, found))
        step, lines = self._step, tuple(titles[:_EXAMPLES])
        self._tensorboard.submit(
            lambda file: file.picture("validation", draw_examples(pictures, true, made, lines), step)
        )

    def close(self) -> None:
        """End: take the bar away and let the writers finish, for a few seconds at most."""
        if not self._watches:
            return
        self._bar.close()
        self._beat(now=True, stopped=True)
        done, settings = self._progress, self._settings
        if self._mlflow:
            self._mlflow.submit(lambda run: run.end(done.is_over(settings)))
        deadline = time.monotonic() + _PATIENCE
        writers: list[Background[Any] | None] = [self._heart, self._tensorboard, self._mlflow]
        for writer in filter(None, writers):
            writer.close(max(1.0, deadline - time.monotonic()))

    def _numbered(self, rows: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
        """The epoch's rows with their steps' numbers."""
        return [{"step": step, **row} for step, row in enumerate(rows, self._step - len(rows) + 1)]

    def _beat(self, now: bool = False, stopped: bool = False) -> None:
        """Leave word in progress.json of how far the stage is, for `mbdcnn status`; every two seconds, or now."""
        if not now and time.monotonic() < self._next_heartbeat:
            return
        self._next_heartbeat = time.monotonic() + _HEARTBEAT
        document = {
            "epoch": self._progress.epoch,
            "epochs": self._settings.epochs,
            "step": self._step,
            "steps_per_epoch": self._steps_per_epoch,
            "seconds": round(self._progress.seconds + time.monotonic() - self._began, 1),
            "images_per_second": round(self._pace.images_per_second, 1),
            "stopped": stopped,
            "time": round(time.time(), 1),
        }
        self._heart.submit(lambda path: _replace(path, document))


class _Pace:
    """Images a second since it was made; validation and checkpoints come after and do not count."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seconds = 0.0
        self._images = 0

    def add(self, images: int) -> None:
        """Count a step's images, just now."""
        self._images += images
        self._seconds = time.monotonic() - self._began

    @property
    def images_per_second(self) -> float:
        """0 before the first step."""
        return self._images / self._seconds if self._seconds else 0.0


def _events(folder: Path, done: int) -> AbstractContextManager[EventFile]:
    # takes a moment to import; here it is the thread's, and the first process's
    from train._tensorboard import EventFile

    return closing(EventFile(folder, done))


def _replace(path: Path, document: Mapping[str, object]) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(document) + "\n", encoding="utf-8")
