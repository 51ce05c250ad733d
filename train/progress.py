"""How far a stage has come, and when it is over."""

from __future__ import annotations

from dataclasses import dataclass, field

from mbdcnn.config import StageConfig


@dataclass
class Progress:
    """How far a stage has come; goes into its checkpoints.

    Attributes:
        epoch: epochs done.
        step: steps done of the next one.
        best_epoch: the one with the best score, counted from 1.
        best: its measures.
        seconds: of training, over all calls.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def is_over(self, settings: StageConfig) -> bool:
        """Whether all epochs are done, or so many without a better score that training stops."""
        return self.epoch >= settings.epochs or self.epoch - self.best_epoch >= settings.patience
