"""How far a stage has come."""

from __future__ import annotations

from dataclasses import dataclass, field


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
