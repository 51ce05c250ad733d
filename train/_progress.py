"""What a user sees of a stage that is trained: a bar, a line per epoch, and log.jsonl, which is the truth."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from mbdcnn import runs
from mbdcnn.config import StageConfig
from mbdcnn.files import naming, replacing
from train.processes import Process
from train.progress import Progress


class Monitor:
    """Shows and logs a stage on the first process.

    Args:
        stage: its name.
        folder: of the stage.
        settings: of the stage.
        steps_per_epoch: of the optimizer.
        process: this one.
        resumed: how far the stage had come.
    """

    def __init__(
        self,
        stage: str,
        folder: Path,
        settings: StageConfig,
        steps_per_epoch: int,
        process: Process,
        resumed: Progress,
    ) -> None:
        self._stage, self._settings, self._steps = stage, settings, steps_per_epoch
        self._log = folder / runs.LOG
        self._process = process
        self._bar: tqdm | None = None
        self._score: dict[str, float] = {}
        if process.is_first:
            _forget_after(resumed.epoch, self._log)

    def epoch_begins(self, epoch: int, first_step: int) -> None:
        """An epoch, counted from 0, is trained from a step on."""
        self._bar = tqdm(
            desc=f"{self._stage} {epoch + 1}/{self._settings.epochs}",
            total=self._steps,
            initial=first_step,
            leave=False,
            disable=not (self._process.is_first and sys.stderr.isatty()),
        )

    def step_done(self, losses: dict[str, Tensor], learning_rate: float, gradient_norm: Tensor, images: int) -> None:
        """A step was done; what it gave stays on the device, but for one step in five."""
        if self._bar is not None and not self._bar.disable:
            self._bar.update()
            if self._bar.n % 5 == 0:
                self._bar.set_postfix({"loss": losses["loss"].item(), **self._score})

    def epoch_ends(
        self,
        progress: Progress,
        means: dict[str, float],
        measures: dict[str, float],
        rows: list[dict[str, float]],
    ) -> None:
        """Append an epoch to the log and say it in a line."""
        self.close()
        self._score = {f"best_{name}": value for name, value in progress.best.items()}
        if not self._process.is_first:
            return
        first = (progress.epoch - 1) * len(rows)
        document: list[dict[str, object]] = [
            {"stage": self._stage, "epoch": progress.epoch, "step": first + i, **row} for i, row in enumerate(rows, 1)
        ]
        seconds = round(progress.seconds, 1)
        document.append({"stage": self._stage, "epoch": progress.epoch, **means, **measures, "seconds": seconds})
        with naming(self._log), self._log.open("a") as log:
            log.writelines(json.dumps(row) + "\n" for row in document)
        mark = " *" if progress.best_epoch == progress.epoch else ""
        shown = "  ".join(f"{k} {v:.4f}" for k, v in {**means, **measures}.items())
        words = f"{self._stage:<9}epoch {progress.epoch:>3}  {shown}  {progress.seconds:.0f} s{mark}"
        tqdm.write(words, file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


def _forget_after(epoch: int, log: Path) -> None:
    """Drop the log's lines of epochs that no checkpoint holds: they are trained again."""
    if log.is_file():
        kept = [line for line in log.read_text().splitlines(keepends=True) if _epoch_of(line) <= epoch]
        with replacing(log) as part:
            part.write_text("".join(kept))


def _epoch_of(line: str) -> float:
    """A log line's epoch; infinite for a line that a kill or a full disk cut short."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
